"""Windows of demonstrations: learned as a policy sees them, drawn, kept, and mixed into its batches."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy import ReplayBuffer, train
from diffusion_policy.augment.windows import read_windows
from diffusion_policy.cli.compose import compose_config
from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.mixing import MixedWindows
from diffusion_policy.data.survey import survey
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.policies.checkpoint import read_policy_file
from diffusion_policy.training.assembly import assemble
from diffusion_policy.training.augmenting.run import augment
from tests.training.augmenting.test_run import TINY
from tests.training.runs import weights

HORIZONS = Horizons(2, 2, 4)


class Watched:
    """Windows that tell how many of them were taken at once."""

    def __init__(self, windows: Any, taken: list[int]) -> None:
        self.windows, self.taken = windows, taken

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, ids: Any) -> Any:
        self.taken.append(len(ids))
        return self.windows.batch(ids)


def recorded(path: Path, episodes: int = 6, **columns: Any) -> Path:
    """Points that move towards a goal; the digit of the grip is a whole number."""
    rng = np.random.default_rng(0)
    with ReplayBuffer.create(path) as buffer:
        for number in range(episodes):
            steps = 12 + number
            pos = rng.normal(size=(steps, 2)).cumsum(0).astype(np.float32)
            episode = {"pos": pos, "grip": rng.integers(0, 3, (steps, 1)).astype(np.float32)}
            episode["action"] = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
            buffer.add_episode({**episode, **{key: make(steps) for key, make in columns.items()}})
    return path


@pytest.fixture
def make(tmp_path: Path):
    data = recorded(tmp_path / "data.zarr")

    def config(*words: str, out: str = "synthetic.zarr", dataset: Path = data) -> dict[str, Any]:
        horizons = [f"horizons.{name}={getattr(HORIZONS, name)}" for name in HORIZONS.__dataclass_fields__]
        chosen = ["augment=demonstrations", *horizons, *TINY, f"dataset={dataset}", f"out={tmp_path / out}", *words]
        return compose_config("augment", *chosen)

    return config


@pytest.fixture
def learn(tmp_path: Path, make_config):
    """Returns the settings of a policy that learns from the points, and from synthetic windows of them."""

    def config(name: str, synthetic: Path | None = None, data: dict[str, Any] | None = None, **training: Any) -> Any:
        settings = make_config(tmp_path / name, **{"num_grad_steps": 20, "val_every": 0, **training})
        more = {} if synthetic is None else {"synthetic": str(synthetic)}
        fields = {"pos": {"type": "low_dim", "shape": [2]}, "grip": {"type": "low_dim", "shape": [1]}}
        chosen = {"val_ratio": 0.0, **more, **(data or {})}
        settings["optim"]["lr_schedule"] = "constant"  # the same whatever the length, for a run that grows
        return {**settings, "dataset": str(tmp_path / "data.zarr"), "obs": fields, "data": chosen}

    return config


@pytest.mark.parametrize("episodes", [None, np.array([1, 4])])
def test_rows_are_the_very_windows_that_a_policy_trains_on(episodes, tmp_path: Path) -> None:
    with ReplayBuffer.open(recorded(tmp_path / "data.zarr")) as buffer:
        known = read_windows(buffer, HORIZONS, fields=["pos", "grip"], episodes=episodes)
        spec = {"pos": ObsField("low_dim", (2,)), "grip": ObsField("low_dim", (1,))}
        policys = WindowDataset.from_buffer(buffer, spec, ActionSpec((2,)), HORIZONS, episodes=episodes)
        batch = policys.batch(np.arange(len(policys)))
    held = known.table.stored()
    assert len(known.table) == len(policys)
    np.testing.assert_array_equal(known.episodes, policys.index.episode_ids)
    np.testing.assert_array_equal(held["action"], batch.action.numpy())
    for key in spec:
        np.testing.assert_array_equal(held[key], batch.obs[key].numpy())
    names = known.table.columns.names
    assert (names[0], names[3], names[6], names[-1]) == ("pos[0]@-1", "pos[0]@0", "action[0]@-1", "action[1]@2")


def test_run_leaves_windows_that_go_on_where_they_were_killed(make, tmp_path: Path, monkeypatch) -> None:
    whole = augment(make("data.rounded=[grip]"))
    with ReplayBuffer.open(tmp_path / "synthetic.zarr") as buffer:
        assert buffer.num_episodes == buffer.num_steps == 50
        assert (buffer["action"].shape, buffer["pos"].shape, buffer["grip"].shape) == (
            (50, 4, 2),
            (50, 2, 2),
            (50, 2, 1),
        )
        assert survey(buffer).problems == ()
        assert (buffer["grip"] == np.round(buffer["grip"])).all()
        told = buffer.attrs["provenance"]
        action = buffer["action"]
    assert told["real"]["horizons"] == {"obs_horizon": 2, "action_horizon": 2, "pred_horizon": 4}
    assert told["real"]["origin"]["episodes"] == 6
    with ReplayBuffer.open(tmp_path / "data.zarr") as buffer:
        low, high = buffer["action"].min(axis=0), buffer["action"].max(axis=0)
    assert ((action >= low) & (action <= high)).all()  # what the policy's normaliser knows
    add = ReplayBuffer.add_episodes

    def torn(self: ReplayBuffer, episodes: Any) -> None:
        add(self, episodes[:5] if self.num_episodes else episodes)
        if self.num_episodes > 16:
            raise KeyboardInterrupt

    config = make(out="parts.zarr") | {"fitted": str(tmp_path / "synthetic.fit/augmenter.pt")}
    with monkeypatch.context() as patch:
        patch.setattr(ReplayBuffer, "add_episodes", torn)
        with pytest.raises(KeyboardInterrupt):
            augment(config)
    assert augment(config | {"resume": True}).digest == whole.digest


def test_noise_is_near_real_windows_and_keeps_no_model(make, tmp_path: Path) -> None:
    done = augment(make("augmenter=noise", "noise.scale=0.01"))
    assert done.run is not None
    assert [each.name for each in done.run.iterdir() if each.suffix == ".pt"] == []
    with ReplayBuffer.open(tmp_path / "data.zarr") as buffer:
        real = read_windows(buffer, HORIZONS, fields=["pos"]).table.obs
    with ReplayBuffer.open(tmp_path / "synthetic.zarr") as buffer:
        found = buffer["pos"].reshape(50, -1)
        assert buffer.attrs["provenance"]["augmenter"]["noise"] == {"scale": 0.01}
    nearest = np.abs(found[:, None] - real).max(axis=2).min(axis=1)
    assert 0 < nearest.max() < 0.1 * real.std()
    assert augment(make("augmenter=noise", "noise.scale=0.01") | {"resume": True}).digest == done.digest
    with pytest.raises(ConfigError, match="was begun with noise"):
        augment(make("augmenter=noise", "noise.scale=0.02") | {"resume": True})


def test_report_tells_of_no_ends_and_no_dynamics(make, tmp_path: Path) -> None:
    done = augment(make() | {"report": True})
    assert done.report is not None
    told = json.loads(done.report.with_suffix(".json").read_text())
    assert told["dynamics"] == "not measured: windows of demonstrations tell of no outcome"
    assert set(told["models"]) == {"synther", "noise", "vae", "gaussian"}
    assert "terminal_rate" not in told["models"]["synther"]
    assert "action[1]@2" in told["models"]["gaussian"]["ks_worst"] or told["models"]["gaussian"]["ks_mean"] > 0.5
    assert "real windows" in done.report.read_text()
    again = make(out="more.zarr") | {"fitted": str(done.run / "augmenter.pt"), "report": True, "horizons": None}
    assert augment(again).report == done.report  # a fitted model knows its horizons


def test_policy_trains_on_the_share_that_was_asked_and_resumes_exactly(make, learn, tmp_path: Path) -> None:
    augment(make())
    path = tmp_path / "synthetic.zarr"
    with ReplayBuffer.open(path) as buffer:
        drawn = {row.tobytes() for row in buffer["action"]}
    alone, mixed = assemble(learn("a")), assemble(learn("b", path, {"synthetic_ratio": 0.25}))
    batch = mixed.loop.dataset.batch(np.arange(16))
    assert [row.numpy().tobytes() in drawn for row in batch.action] == [False] * 12 + [True] * 4
    assert batch.obs["pos"].shape == (16, 2, 2)
    assert batch.obs["grip"].shape == (16, 2, 1)
    for one, other in zip(alone.loop.objective.model.buffers(), mixed.loop.objective.model.buffers(), strict=True):
        assert torch.equal(one, other)  # normalisers
    assert mixed.data.digest != alone.data.digest
    train(learn("whole", path))
    train(learn("parts", path, num_grad_steps=9))
    train({"resume": str(tmp_path / "parts"), "training": {"num_grad_steps": 20}})
    train(learn("none", path, {"synthetic_ratio": 0.0}))
    train(learn("without"))
    whole, parts, none, without = (weights(tmp_path / name) for name in ("whole", "parts", "none", "without"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert all(torch.equal(none[name], without[name]) for name in none)
    assert not all(torch.equal(whole[name], without[name]) for name in whole)
    told = read_policy_file(tmp_path / "whole/policy.pt").info.dataset["synthetic"]
    assert told["provenance"]["real"]["horizons"]["pred_horizon"] == 4


@pytest.mark.parametrize("micro_batch_size", [None, 4, 1])
def test_share_is_of_the_batch_however_it_is_computed_in_pieces(micro_batch_size, make, learn, tmp_path: Path) -> None:
    augment(make())
    config = learn("a", tmp_path / "synthetic.zarr", {"synthetic_ratio": 0.25}, micro_batch_size=micro_batch_size)
    loop = assemble({**config, "training": {**config["training"], "batch_size": 16}}).loop
    assert isinstance(loop.dataset, MixedWindows)
    drawn: list[int] = []
    synthetic = loop.dataset._synthetic
    loop.dataset._synthetic = Watched(synthetic, drawn)
    loop.step()
    assert sum(drawn) == 4


def test_windows_of_other_demonstrations_horizons_or_kinds_are_refused(make, learn, tmp_path: Path) -> None:
    augment(make("data.episodes=2", "seed=1"))
    path = tmp_path / "synthetic.zarr"
    assemble(learn("run", path, {"episodes": 2}))
    with pytest.raises(ConfigError, match=r"was made of 2 of 6 episodes .*, but the policy trains on 6 of 6"):
        assemble(learn("run", path))
    assemble(learn("run", path, {"synthetic_from": "any"}))
    config = learn("run", path, {"episodes": 2})
    with pytest.raises(ConfigError, match=r"has horizons .*'pred_horizon': 4.* but the policy .*'pred_horizon': 8"):
        assemble({**config, "horizons": {**config["horizons"], "pred_horizon": 8}})
    seen = {**config["obs"], "front": {"type": "rgb", "shape": [32, 32, 3]}}
    wide = recorded(tmp_path / "wide.zarr", front=lambda steps: np.zeros((steps, 32, 32, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"holds numbers, but the policy sees pictures: front"):
        assemble({**config, "dataset": str(wide), "obs": seen, "encoder": {"types": {"rgb": {"name": "cnn_small"}}}})
    with pytest.raises(DataError, match=r"'front' holds pictures .*; choose other fields: fields=\[grip, pos\]"):
        augment(make(dataset=wide, out="other.zarr"))
    with ReplayBuffer.create(tmp_path / "plain.zarr") as buffer:
        buffer.add_episode({"pos": np.zeros((1, 2), np.float32), "action": np.zeros((1, 2), np.float32)})
    with pytest.raises(ConfigError, match=r"holds no windows, which imitation needs"):
        assemble(learn("run", tmp_path / "plain.zarr"))


def test_windows_of_another_key_than_the_policy_reads_are_refused(make, learn, tmp_path: Path) -> None:
    """A key with a field's own name wins over its source, and the synthetic data may lack that key."""
    data = recorded(tmp_path / "both.zarr", state=lambda steps: np.full((steps, 2), 99, np.float32))
    augment(make("data.fields=[state,grip]", dataset=data))
    config = {**learn("run", tmp_path / "synthetic.zarr"), "dataset": str(data)}
    config["obs"] = {**config["obs"], "pos": {"type": "low_dim", "shape": [2], "source": "state"}}
    with pytest.raises(ConfigError, match=r"obs\.pos is 'pos' in the real data, but the model learned 'state'; fit it"):
        assemble(config)
    config["data"]["synthetic_from"] = "any"
    assemble(config)


def test_parts_of_keys_are_the_same_in_windows(make, learn, tmp_path: Path) -> None:
    data = recorded(tmp_path / "parts.zarr", speed=lambda steps: np.arange(steps, dtype=np.float32))
    augment(make(dataset=data))
    config = {**learn("run", tmp_path / "synthetic.zarr", {"synthetic_ratio": 1.0}), "dataset": str(data)}
    config["obs"] = {
        "x": {"type": "low_dim", "shape": [1], "source": "pos[1]"},
        "v": {"type": "low_dim", "shape": [1], "source": "speed[0:1]"},  # a number alone: in windows one a step
    }
    config["action"] = {**config["action"], "source": ["action[1]", "action[0:1]"]}
    batch = assemble(config).loop.dataset.batch(np.arange(8))
    with ReplayBuffer.open(tmp_path / "synthetic.zarr") as buffer:
        pos, speed, action = buffer["pos"][:, :, 1:], buffer["speed"][..., None], buffer["action"][:, :, ::-1]
    rows = [int(np.flatnonzero((pos == each).all(axis=(1, 2)))[0]) for each in batch.obs["x"].numpy()]
    np.testing.assert_array_equal(batch.obs["v"].numpy(), speed[rows])
    np.testing.assert_array_equal(batch.action.numpy(), action[rows])


def test_windows_that_are_not_all_drawn_are_refused(make, learn, tmp_path: Path, monkeypatch) -> None:
    add = ReplayBuffer.add_episodes

    def killed(self: ReplayBuffer, episodes: Any) -> None:
        add(self, episodes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReplayBuffer, "add_episodes", killed)
        with pytest.raises(KeyboardInterrupt):
            augment(make())
    with pytest.raises(DataError, match="holds 16 of 50 rows: they are still drawn, or that was interrupted"):
        assemble(learn("run", tmp_path / "synthetic.zarr"))
    augment(make() | {"resume": True})
    assemble(learn("run", tmp_path / "synthetic.zarr"))


def test_actions_of_several_keys_are_refused_with_what_can_be_done(make, tmp_path: Path) -> None:
    with ReplayBuffer.create(tmp_path / "keys.zarr") as buffer:
        buffer.add_episode({key: np.zeros((9, 1), np.float32) for key in ("pos", "arm", "hand")})
    with pytest.raises(
        DataError, match=r"needs data 'action', but .*: arm, hand, pos; store actions under this one key"
    ):
        augment(make(dataset=tmp_path / "keys.zarr"))


def test_demonstrations_without_rewards_are_pointed_to_windows(make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"augmenting needs data 'reward'.*augment=demonstrations"):
        augment(make() | {"horizons": None})
    with pytest.raises(DataError, match="episode 0"):
        augment(make("horizons.pred_horizon=14"))
    assert augment(make("horizons.pred_horizon=14", "data.drop_short=true")).finished
    for words, said in (
        ("data.ends=truncated", "data.ends: windows"),
        ("horizons.obs_horizon=9", "action_horizon must"),
    ):
        with pytest.raises(ConfigError, match=said):
            augment(make(words, out="other.zarr"))
