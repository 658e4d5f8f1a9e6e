"""Whatever moment dp-augment is killed at, it goes on to the model and data that an undisturbed run would have made."""

from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_policy import ReplayBuffer
from diffusion_policy.augment import model_file
from diffusion_policy.data.layout import Layout
from diffusion_policy.errors import CheckpointError, ConfigError, DataError, OutputExistsError, StorageError
from diffusion_policy.training import checkpoint_hook
from diffusion_policy.training.augmenting import run as augment_run
from diffusion_policy.training.augmenting.run import augment
from tests.training.augmenting.test_run import make, recorded, weights  # noqa: F401  (make is a fixture)


def test_fit_resumes_exactly(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    whole = augment(make(out=None) | {"run": str(tmp_path / "whole")})
    config = make(out=None) | {"run": str(tmp_path / "parts")}

    class StoppedError(Exception):
        pass

    step = augment_run.InFolder

    def killed(self: Any, model: Any, real: Any) -> None:
        inner = {"count": 0}
        losses = model.losses

        def counted(*args: Any) -> Any:
            inner["count"] += 1
            if inner["count"] == 8:
                raise StoppedError
            return losses(*args)

        model.losses = counted
        original(self, model, real)

    original = step.__call__
    with monkeypatch.context() as patch:
        patch.setattr(step, "__call__", killed)
        with pytest.raises(StoppedError):
            augment(config)
    with pytest.raises(OutputExistsError, match="resume=true"):
        augment(config)
    parts = augment(config | {"resume": True})
    assert whole.run is not None
    assert parts.run is not None
    mine, theirs = weights(whole.run), weights(parts.run)
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert any((value != 0).any() for name, value in mine.items() if name.startswith("network.out"))
    with pytest.raises(ConfigError, match="was begun with seed 0, but got 1"):
        augment(config | {"resume": True, "seed": 1})


def test_fit_killed_between_the_first_two_files_resumes_exactly(make, tmp_path: Path, monkeypatch, caplog) -> None:  # noqa: F811
    """Where augmenter.pt is there and state.pt is not, reading the first must not change the weights to begin with."""
    whole = augment(make(out=None) | {"run": str(tmp_path / "whole")})
    config = make(out=None) | {"run": str(tmp_path / "parts")}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_hook, "save_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            augment(config)
    caplog.clear()
    augment(make(out="early.zarr") | {"fitted": str(tmp_path / "parts/augmenter.pt")})
    assert "its fit was interrupted after 5 of 12 steps" in caplog.text
    assert not checkpoint_hook.state_path(tmp_path / "parts").exists()
    parts = augment(config | {"resume": True})
    assert whole.run is not None
    assert parts.run is not None
    mine, theirs = weights(whole.run), weights(parts.run)
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optim.lr=0.1"], r"was begun with optim\.lr 0\.0003, but got 0\.1; resume with"),
        (["sampling.churn.amount=0"], r"was begun with sampling\.churn\.amount 80\.0, but got 0; resume with"),
        (["model.width=8", "seed=3"], r"was begun with seed 0, but got 3; model\.width 16, but got 8; resume with"),
    ],
)
def test_settings_that_differ_are_named_and_no_others(words: list[str], said: str, make, tmp_path: Path) -> None:  # noqa: F811
    augment(make())
    with pytest.raises(ConfigError, match=said):
        augment(make(*words) | {"resume": True})


def test_samples_begun_otherwise_are_told_by_the_setting(make, tmp_path: Path) -> None:  # noqa: F811
    augment(make())
    config = make() | {"fitted": str(tmp_path / "synthetic.fit/augmenter.pt"), "resume": True}
    with pytest.raises(ConfigError, match=r"was begun with augmenter\.sampling\.steps 3, but got 5; resume with"):
        augment(config | {"sampling": {"steps": 5}})
    augment(make("training.num_grad_steps=13", out=None) | {"run": str(tmp_path / "other")})
    with pytest.raises(ConfigError, match=r"was begun with the model of digest '\w{12}', but got '\w{12}'; resume"):
        augment(config | {"fitted": str(tmp_path / "other/augmenter.pt")})


def test_samples_that_an_earlier_version_began_go_on(make, tmp_path: Path) -> None:  # noqa: F811
    """It kept the model's digest in the place of its network's sizes."""
    whole = augment(make())
    with ReplayBuffer.open(tmp_path / "synthetic.zarr", mode="a") as buffer:
        told = dict(buffer.attrs["provenance"])
        assert told["augmenter"]["model"]["width"] == 16
        told["augmenter"] = {**told["augmenter"], "model": told["augmenter"]["digest"]}
        del told["augmenter"]["digest"]
        buffer.update_attrs({"provenance": told})
    assert augment(make() | {"resume": True}).digest == whole.digest


def test_finished_run_says_that_it_was_finished_before(make, tmp_path: Path) -> None:  # noqa: F811
    assert not augment(make()).before
    assert augment(make() | {"resume": True}).before
    fitted = {"fitted": str(tmp_path / "synthetic.fit/augmenter.pt")}
    assert not augment(make(out="more.zarr") | fitted).before
    assert augment(make(out="more.zarr") | fitted | {"resume": True}).before
    assert not augment(make(out="others.zarr") | {"run": str(tmp_path / "synthetic.fit"), "resume": True}).before


def test_fit_begun_with_another_encoding_of_terminals_is_refused(tmp_path: Path, monkeypatch, make) -> None:  # noqa: F811
    """As a run of an earlier version is, whose terminals were columns like others."""
    config = make(dataset=recorded(tmp_path / "told.zarr", told=True), out=None) | {"run": str(tmp_path / "run")}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_hook, "draw_curves", killed)
        with pytest.raises(KeyboardInterrupt):
            augment(config)
    file = tmp_path / "run/augmenter.pt"
    content = torch.load(file, weights_only=True)
    state = {name: value for name, value in content["state_dict"].items() if name not in ("unit", "deviation")}
    torch.save({**content, "format": 1, "state_dict": state}, file)
    with pytest.raises(
        CheckpointError, match=r"begun by an earlier version, .*; finish it with that version, or start"
    ):
        augment(config | {"resume": True})
    torch.save(content, file)
    assert augment(config | {"resume": True}).finished


def test_files_that_a_kill_tore_are_gone_when_the_fit_goes_on(make, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    config = make(out=None) | {"run": str(tmp_path / "run")}

    def killed(_: Any, path: str | Path) -> None:
        for number in range(2):
            Path(path).with_name(f".{Path(path).name}.{number}").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model_file, "save_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            augment(config)
    assert len(list((tmp_path / "run").glob(".augmenter.pt.*"))) == 2
    assert augment(config | {"resume": True}).finished
    assert not list((tmp_path / "run").glob(".*"))


def test_fit_and_samples_in_one_folder_are_refused_before_the_fit(make, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="expected another folder than out="):
        augment(make(out="both") | {"run": str(tmp_path / "both")})
    assert not (tmp_path / "both").exists()


def test_fit_goes_on_with_the_same_data_only(make, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    config = make(out=None) | {"run": str(tmp_path / "run")}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_hook, "save_atomically", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            augment(config)
    with ReplayBuffer.open(tmp_path / "data.zarr", mode="a") as buffer:
        buffer.add_episode(buffer.get_episode(0))
    with pytest.raises(DataError, match="has changed since"):
        augment(config | {"resume": True})


def test_run_killed_while_its_settings_were_written_begins(make, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    config = make(out=None) | {"run": str(tmp_path / "run")}

    def killed(self: Path, text: str, encoding: str | None = None) -> None:
        with self.open("w", encoding=encoding) as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            augment(config)
    assert augment(config | {"resume": True}).finished


def test_stream_killed_while_its_store_was_made_begins(make, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    whole = augment(make())
    config = make(out="parts.zarr") | {"fitted": str(tmp_path / "synthetic.fit/augmenter.pt")}
    create = Layout.create

    def killed(group: Any, where: str, attrs: Any) -> Any:
        create(group, where, {})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Layout, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            augment(config)
    assert augment(config | {"resume": True}).digest == whole.digest


def test_killed_stream_goes_on_without_loss_or_duplicates(make, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    whole = augment(make())
    fitted = {"fitted": str(tmp_path / "synthetic.fit/augmenter.pt")}
    config = make(out="parts.zarr") | fitted
    add = ReplayBuffer.add_episodes

    def torn(self: ReplayBuffer, episodes: Any) -> None:
        """Writes only a part of the second batch, as a kill between two writes would."""
        if self.num_episodes:
            add(self, episodes[:5])
            raise KeyboardInterrupt
        add(self, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(ReplayBuffer, "add_episodes", torn)
        with pytest.raises(KeyboardInterrupt):
            augment(config)
    with ReplayBuffer.open(tmp_path / "parts.zarr") as buffer:
        assert buffer.num_episodes == 21
    assert augment(config | {"resume": True}).digest == whole.digest
    assert augment(config | {"resume": True}).digest == whole.digest  # nothing is left to do
    with pytest.raises(OutputExistsError):
        augment(config)
    with pytest.raises(ConfigError, match="begun with samples 50, but got 60"):
        augment(config | {"resume": True, "samples": 60})
    with pytest.raises(ConfigError, match="not made by augmenting"):
        augment(make() | fitted | {"out": str(tmp_path / "data.zarr"), "resume": True})


def test_stream_goes_on_on_the_same_kind_of_device_only(make, tmp_path: Path) -> None:  # noqa: F811
    """On another one numbers are rounded otherwise, and the set would be of two makes."""
    augment(make())
    with ReplayBuffer.open(tmp_path / "synthetic.zarr", mode="a") as buffer:
        buffer.update_attrs({"provenance": {**buffer.attrs["provenance"], "device": "cuda"}})
    with pytest.raises(ConfigError, match="begun with device 'cuda', but got 'cpu'"):
        augment(make() | {"resume": True})


def test_store_of_another_writer_is_not_replaced(make, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    create, other = ReplayBuffer.create, tmp_path / "synthetic.zarr/theirs"

    def late(*args: Any, **settings: Any) -> ReplayBuffer:
        other.mkdir(parents=True)
        return create(*args, **settings)

    monkeypatch.setattr(ReplayBuffer, "create", late)
    with pytest.raises(StorageError, match=r"synthetic\.zarr"):
        augment(make())
    assert other.exists()
