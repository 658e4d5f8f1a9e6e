"""Configurations composed in Python are those of the command."""

from pathlib import Path

import pytest
import yaml

from diffusion_policy import compose_config, train
from diffusion_policy.errors import ConfigError
from tests.cli.running import dp

TINY = (
    "denoiser.down_dims=[8,16]", "denoiser.n_groups=4", "denoiser.embed_dim=8", "sampler.num_inference_steps=2",
    "data.episodes=2", "optim.warmup_steps=0", "logger.tensorboard=false",
    "training.num_grad_steps=2", "training.batch_size=4", "training.val_every=0",
)  # fmt: skip


def test_composed_settings_train_what_the_command_trains(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(compose_config("train", "task=pusht", "preset=fast", *TINY, "out=notebook"))
    assert run.finished
    done = dp("train", *TINY, "out=command", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 0, done.err
    ours, theirs = (yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in ("notebook", "command"))
    assert ours.pop("out") != theirs.pop("out")
    assert ours == theirs


def test_composed_settings_know_tasks_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my conf" / "task").mkdir(parents=True)
    task = "# @package _global_\ndataset: mine.zarr\naction: {shape: [3]}\n"
    (tmp_path / "my conf" / "task" / "mine.yaml").write_text(task)
    settings = compose_config("train", "task=mine", conf=tmp_path / "my conf")
    assert (settings["dataset"], settings["action"]) == ("mine.zarr", {"shape": [3]})
    assert not set(settings) & {"choice", "collect", "resume", "debug", "hydra"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "expected a command that Python composes for, train, collect, augment, online; got 'trian'"),
        (["train", "task=pushtt"], r"unknown task 'pushtt', did you mean pusht\? known: .*pusht, pusht_image"),
        (["train", "optim.lrr=1"], r"unknown setting 'optim\.lrr', did you mean optim\.lr"),
        (["train", "pusht"], "settings are KEY=VALUE, but got 'pusht'"),
    ],
)
def test_settings_that_cannot_be_composed_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        compose_config(*words)
    assert "\n" not in str(caught.value)


def test_resume_is_a_setting_of_augmenting_and_of_no_other_composed_command() -> None:
    assert compose_config("augment", "dataset=a.zarr", "out=b.zarr", "resume=true")["resume"] is True
    with pytest.raises(ConfigError, match="a run brings its own settings"):
        compose_config("train", "resume=runs/a")


def test_settings_from_a_folder_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is none"):
        compose_config("train", conf=tmp_path / "nope")
