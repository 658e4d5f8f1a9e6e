"""Augmenting: exact resume on the one loop, a file that draws without refit, a stream without loss or duplicates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy import ReplayBuffer
from diffusion_policy.augment.model_file import load_model, model_digest
from diffusion_policy.augment.reading import read_transitions
from diffusion_policy.augment.synther import SyntherAugmenter
from diffusion_policy.cli.compose import compose_config
from diffusion_policy.data.dataset import split_episodes
from diffusion_policy.data.survey import survey
from diffusion_policy.diffusion.edm import EdmConfig, denoised, heun
from diffusion_policy.errors import CheckpointError, ConfigError, DataError
from diffusion_policy.training.augmenting import run as augment_run
from diffusion_policy.training.augmenting.run import augment
from diffusion_policy.training.metrics import read_metrics

TINY = (
    "model.width=16", "model.blocks=1", "model.embed_dim=8", "sampling.steps=3", "training.num_grad_steps=12",
    "training.batch_size=16", "training.log_every=4", "training.checkpoint_every=5", "samples=50", "rows=16",
    "device=cpu",
)  # fmt: skip


def recorded(path: Path, told: bool = False, **columns: Any) -> Path:
    rng = np.random.default_rng(0)
    with ReplayBuffer.create(path, attrs={"provenance": {"action_bounds": [[-1.0, -1.0], [1.0, 1.0]]}}) as buffer:
        for number in range(6):
            steps = 20 + number
            last = np.arange(steps) == steps - 1
            episode = {
                "pos": rng.normal(size=(steps, 3)).astype(np.float32),
                "action": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
                "reward": rng.normal(size=steps).astype(np.float32),
                "terminated": last & (number % 3 == 0),
                "truncated": last & (number % 3 != 0),
            }
            if told:
                episode["next_pos"] = np.concatenate([episode["pos"][1:], rng.normal(size=(1, 3)).astype(np.float32)])
            buffer.add_episode({**episode, **{key: make(steps) for key, make in columns.items()}})
    return path


@pytest.fixture
def make(tmp_path: Path):
    data = recorded(tmp_path / "data.zarr")

    def config(*words: str, out: str | None = "synthetic.zarr", dataset: Path = data) -> dict[str, Any]:
        where = [] if out is None else [f"out={tmp_path / out}"]
        return compose_config("augment", f"dataset={dataset}", *TINY, *where, *words)

    return config


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_model(run / "augmenter.pt")[0].state_dict()


def test_autoencoder_fits_and_draws_by_the_same_command(make, tmp_path: Path) -> None:
    assert augment(make("augmenter=vae")).finished
    with ReplayBuffer.open(tmp_path / "synthetic.zarr") as buffer:
        assert buffer.num_steps == 50
        assert buffer.attrs["provenance"]["augmenter"]["kind"] == "vae"


def test_run_leaves_model_data_and_provenance(make, tmp_path: Path) -> None:
    done = augment(make())
    assert done.finished
    assert done.run == tmp_path / "synthetic.fit"
    assert {"augmenter.pt", "metrics.jsonl", "curves.png", "config.yaml"} <= {each.name for each in done.run.iterdir()}
    assert [record["grad_step"] for record in read_metrics(done.run / "metrics.jsonl")] == [4, 8, 12]
    with ReplayBuffer.open(tmp_path / "synthetic.zarr") as buffer:
        assert buffer.num_episodes == buffer.num_steps == 50
        assert buffer.verify()
        assert buffer.digest() == done.digest
        assert survey(buffer).problems == ()
        told = buffer.attrs["provenance"]
        assert told["real"]["transitions"] == sum(range(20, 26)) - 6
        assert (told["real"]["terminals"], told["real"]["left_out"], told["real"]["terminals_left_out"]) == (0, 6, 2)
        assert (told["real"]["origin"]["episodes"], told["real"]["origin"]["of"]) == (6, 6)
        assert {"augmenter", "seed", "rows", "versions", "training", "command", "bf16"} <= set(told)
        assert (np.abs(buffer["action"]) <= 1).all()
        assert (buffer["truncated"] == ~buffer["terminated"]).all()
        assert len(read_transitions(buffer)) == 50


def test_stream_keeps_one_batch_in_memory(make, tmp_path: Path, monkeypatch) -> None:
    sizes: list[int] = []
    add = ReplayBuffer.add_episodes
    monkeypatch.setattr(ReplayBuffer, "add_episodes", lambda self, e: (sizes.append(len(e)), add(self, e))[1])
    augment(make())
    assert sizes == [16, 16, 16, 2]


def test_terminals_whose_outcome_is_not_stored_are_left_out_and_said(make, tmp_path: Path, caplog) -> None:
    bare = augment_run.read_real(make())
    assert "2 terminal steps are left out" in caplog.text
    assert "dp-collect next_obs=true" in caplog.text
    assert bare.told()["terminals_left_out"] == 2
    caplog.clear()
    whole = augment_run.read_real(make(dataset=recorded(tmp_path / "whole.zarr", told=True)))
    assert caplog.text == ""
    assert (len(whole.table), int(whole.table.terminated.sum()), whole.left_out) == (sum(range(20, 26)), 2, 0)


def test_actions_are_clipped_to_the_data_where_nobody_names_an_environment(make, tmp_path: Path) -> None:
    data = recorded(tmp_path / "bare.zarr")
    with ReplayBuffer.open(data, mode="a") as buffer:
        buffer.update_attrs({"provenance": {}})
        low, high = buffer["action"].min(axis=0), buffer["action"].max(axis=0)
    real = augment_run.read_real(make(dataset=data, out=None))
    assert not real.of_env
    augment(make(dataset=data))
    with ReplayBuffer.open(tmp_path / "synthetic.zarr") as buffer:
        action = buffer["action"]
        assert buffer.attrs["provenance"]["action_bounds"] is None
    used = real.table.action  # of the rows that are learned from
    np.testing.assert_array_equal(np.array(real.bounds, np.float32), [used.min(axis=0), used.max(axis=0)])
    assert (used.min(axis=0) >= low).all()
    assert (used.max(axis=0) <= high).all()
    assert ((action >= used.min(axis=0)) & (action <= used.max(axis=0))).all()
    assert (action == used.max(axis=0)).any()  # an untrained model goes beyond


def test_choice_of_episodes_and_rows_is_part_of_the_digest(make, tmp_path: Path) -> None:
    whole = augment_run.read_real(make())
    few = augment_run.read_real(make("data.episodes=2"))
    some = augment_run.read_real(make("data.transitions=30"))
    assert some.origin == whole.origin != few.origin
    assert len(some.table) == 30
    assert len(few.table) < len(whole.table)
    assert len({whole.digest, few.digest, some.digest}) == 3
    again = augment_run.read_real(make("data.transitions=30", "seed=1"))
    assert not np.array_equal(again.table.rows, some.table.rows)


def test_training_draws_the_same_episodes(make, tmp_path: Path) -> None:
    """So that an agent and the model that augments its data learn from the same few."""
    few = augment_run.read_real(make("data.episodes=2", "seed=3"))
    with ReplayBuffer.open(tmp_path / "data.zarr") as buffer:
        chosen, _ = split_episodes(buffer.num_episodes, val_ratio=0.0, seed=3, max_episodes=2)
        starts = np.array([buffer.get_episode(int(i))["pos"][0] for i in chosen])
    assert {tuple(row) for row in starts} <= {tuple(row) for row in few.table.obs}
    assert len(few.table) <= sum(20 + int(i) for i in chosen)


def test_model_file_is_refused_where_it_is_none_or_changed(make, tmp_path: Path) -> None:
    augment(make(out=None) | {"run": str(tmp_path / "run")})
    file = tmp_path / "run/augmenter.pt"
    model, info = load_model(file)
    assert info["training"]["grad_steps"] == 12
    assert model_digest(model) == model_digest(load_model(file)[0])
    content = torch.load(file, weights_only=True)
    for change, said in (
        ({"format": 99}, "format 99"),
        ({"kind": "nothing"}, "unknown augmenter 'nothing'"),
        ({"columns": {}}, "do not fit"),
    ):
        torch.save({**content, **change}, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=said):
            load_model(tmp_path / "other.pt")
    torch.save({"format": 1}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no augmenter"):
        load_model(tmp_path / "other.pt")


def test_file_of_format_1_draws_what_it_drew(make, tmp_path: Path) -> None:
    data = recorded(tmp_path / "whole.zarr", told=True)
    augment(make(dataset=data, out=None) | {"run": str(tmp_path / "run")})
    content = torch.load(tmp_path / "run/augmenter.pt", weights_only=True)
    assert content["state_dict"]["unit"].min() == 0.25
    state = {name: value for name, value in content["state_dict"].items() if name not in ("unit", "deviation")}
    torch.save({**content, "format": 1, "state_dict": state}, tmp_path / "old.pt")
    model, _ = load_model(tmp_path / "old.pt")
    assert isinstance(model, SyntherAugmenter)
    model.draw_by({"bf16": False})  # else processors that have bfloat16 draw by it, as they did from format 1

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return denoised(model.network, x, sigma, 1.0)

    generator = torch.Generator().manual_seed(0)
    noise, edm, sampling = torch.randn((9, model.columns.size), generator=generator), EdmConfig(), model.config.sampling
    before = heun(denoise, noise, edm.levels(sampling.steps), sampling.churn, generator)
    torch.testing.assert_close(model.draw_rows(9, torch.Generator().manual_seed(0)), before, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_fitted_is_refused_before_anything_is_written(make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one batch of 4096 transitions, but got 129"):
        augment(make("training.batch_size=4096"))
    with pytest.raises(ConfigError, match="training: unknown setting"):
        augment(make("+training.val_every=3"))
    with pytest.raises(ConfigError, match="dataset: expected"):
        augment(make() | {"dataset": None})
    with pytest.raises(ConfigError, match="out: expected"):
        augment(make(out=None))
    bare = ReplayBuffer.create(tmp_path / "bare.zarr")
    bare.add_episode({"pos": np.zeros((4, 3), np.float32), "action": np.zeros((4, 2), np.float32)})
    bare.close()
    with pytest.raises(DataError, match="augmenting needs data 'reward'"):
        augment(make(dataset=tmp_path / "bare.zarr"))
    assert not list(tmp_path.glob("*.fit"))
