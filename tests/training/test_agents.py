"""Agents on the one training loop: exact resume, a policy.pt that deploys, and what cannot be learned from."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from diffusion_policy import RecedingHorizonController, train
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions import TransitionDataset
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.policies.library import load_policy
from diffusion_policy.training.assembly import assemble
from diffusion_policy.training.curves import draw_curves
from diffusion_policy.training.metrics import read_metrics
from diffusion_policy.training.ranks import Ranks

MLP = {"name": "mlp", "hidden_dims": [16], "activation": "relu", "squash": True}
CRITIC = {"hidden_dims": [16]}
AGENTS: dict[str, dict[str, Any]] = {
    "diffusion_ql": {"agent": {"name": "diffusion_ql", "num_candidates": 4, "critic": CRITIC}},
    "chunks": {
        "agent": {"name": "diffusion_ql", "num_candidates": 4, "critic": CRITIC},
        "horizons": {"obs_horizon": 2, "action_horizon": 2, "pred_horizon": 4},
        "denoiser": {"name": "unet1d", "down_dims": [8, 16], "n_groups": 4, "embed_dim": 8, "kernel_size": 3},
        "sampler": {"name": "ddim", "num_inference_steps": 2},
    },
    "edp": {"agent": {"name": "diffusion_ql", "one_step": True, "num_candidates": 4, "critic": CRITIC}},
    "td3_bc": {
        "agent": {"name": "td3_bc", "critic": CRITIC}, "policy": MLP, "denoiser": None, "diffusion": None,
        "sampler": None,
    },
    "iql": {
        "agent": {"name": "iql", "critic": CRITIC}, "policy": {"name": "gaussian", "hidden_dims": [16]},
        "denoiser": None, "diffusion": None, "sampler": None,
    },
    "idql": {"agent": {"name": "iql", "weighted": False, "num_candidates": 4, "critic": CRITIC}},
}  # fmt: skip


def recorded(path: Path, **columns: Any) -> Path:
    """Points that are rewarded near their goal; every third episode ends there, at its own length."""
    rng = np.random.default_rng(0)
    with ReplayBuffer.create(path) as buffer:
        for number in range(6):
            steps = 20 + number
            pos, action = (rng.uniform(-1, 1, (steps, 2)).astype(np.float32) for _ in range(2))
            done = np.arange(steps) == steps - 1
            ended = done & (number % 3 == 0)
            whole = {
                "pos": pos, "action": action, "reward": -np.abs(pos).sum(1), "terminated": ended,
                "truncated": done & ~ended, **{key: make(steps) for key, make in columns.items()},
            }  # fmt: skip
            buffer.add_episode(whole)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    data = recorded(tmp_path / "data.zarr")

    def config(kind: str, out: str, dataset: Path = data, **training: Any) -> dict[str, Any]:
        return {
            "env": {"id": "nowhere:None-v0"},
            "obs": {"pos": {"type": "low_dim", "shape": [2]}},
            "action": {"shape": [2], "low": -1.0, "high": 1.0},
            "dataset": str(dataset),
            "data": {"val_ratio": 0.0},
            "horizons": {"obs_horizon": 1, "action_horizon": 1, "pred_horizon": 1},
            "denoiser": {"name": "mlp", "hidden_dims": [16]},
            "diffusion": {"num_train_timesteps": 3, "beta_schedule": "vp"},
            "sampler": {"name": "ddpm", "num_inference_steps": 3},
            "normalization": {"obs": "gaussian", "action": "identity"},
            "optim": {"lr": 1e-3, "warmup_steps": 0, "lr_schedule": "constant", "grad_clip": 4.0},
            "training": {"num_grad_steps": 20, "batch_size": 16, "log_every": 5, "val_every": 0, **training},
            "device": "cpu",
            "out": str(tmp_path / out),
            **deepcopy(AGENTS[kind]),  # tests change theirs
        }

    return config


def load_data(config: dict[str, Any]) -> TransitionDataset:
    transitions = assemble(config).data.transitions
    assert transitions is not None
    return transitions


def state(out: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(out / "checkpoints/state.pt", weights_only=True)["loop"]
    return {**saved["model"], **{f"ema.{key}": value for key, value in saved["ema"]["model"].items()}}


def test_validation_measures_imitation_whatever_is_selected_at_deployment(make: Any, tmp_path: Path) -> None:
    measured = []
    for candidates in (4, 1):
        config = make("idql", f"of{candidates}", val_every=20)
        train({**config, "data": {"val_ratio": 0.2}, "agent": {**config["agent"], "num_candidates": candidates}})
        records = read_metrics(tmp_path / f"of{candidates}/metrics.jsonl")
        measured.append([record for record in records if record["kind"] == "validation"])
    assert measured[0]
    assert measured[0] == measured[1]


@pytest.mark.parametrize("kind", AGENTS)
def test_agent_resumes_exactly_and_deploys(kind: str, make: Any, tmp_path: Path) -> None:
    train(make(kind, "whole"))
    train(make(kind, "parts", num_grad_steps=9))
    train({"resume": str(tmp_path / "parts"), "training": {"num_grad_steps": 20}})
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    policy = load_policy(tmp_path / "whole/policy.pt")
    assert (policy.selector is not None) == (kind not in ("td3_bc", "iql"))
    if policy.selector is not None:  # the slow critic judges
        kept = policy.selector.critic.state_dict()
        assert all(torch.equal(kept[name], whole[f"slow_critic.{name}"]) for name in kept)
    controller = RecedingHorizonController.load(tmp_path / "whole/policy.pt", seeds=0)
    action = controller.act({"pos": np.zeros(2, np.float32)})
    assert np.isfinite(action).all()
    assert (np.abs(action) <= 1).all()


def test_agent_tells_its_values_and_draws_them(make: Any, tmp_path: Path) -> None:
    out = train(make("diffusion_ql", "run")).out
    told = read_metrics(out / "metrics.jsonl")[-1]
    assert {"q", "q_target", "critic_loss", "imitation_loss", "q_loss"} <= told.keys()
    draw_curves(out / "metrics.jsonl", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_data_that_no_agent_should_learn_from_are_refused(make: Any, tmp_path: Path) -> None:
    def refused(message: str, error: type[Exception] = DataError, **columns: Any) -> None:
        number = len(list(tmp_path.glob("bad*.zarr")))
        data = recorded(tmp_path / f"bad{number}.zarr", **columns)
        with pytest.raises(error, match=message):
            train(make("td3_bc", f"bad{number}", dataset=data))
        assert not (tmp_path / f"bad{number}").exists()

    broken = recorded(tmp_path / "broken.zarr")
    zarr.open_array(broken / "data/reward", mode="r+")[3] = np.nan  # somebody else's writer
    with pytest.raises(
        DataError, match="'reward' must be finite, but has NaN or infinity, first at step 3 of episode 0"
    ):
        train(make("td3_bc", "broken", dataset=broken))
    refused(
        r"of 135 steps lie outside \[action\.low, action\.high\]",
        ConfigError,
        action=lambda steps: np.r_[np.zeros((steps - 1, 2)), [[1.5, 0]]].astype(np.float32),
    )
    cut = make("td3_bc", "cut", dataset=_limited(tmp_path / "limited.zarr"))
    with pytest.raises(DataError, match=r"a time limit stored as termination.*data\.ends=truncated"):
        train(cut)
    cut["data"]["ends"] = "truncated"
    assert train(cut).finished


def _limited(path: Path) -> Path:
    with ReplayBuffer.create(path) as buffer:
        for number in range(4):
            rows = np.random.default_rng(number).uniform(-1, 1, (15, 2)).astype(np.float32)
            buffer.add_episode({"pos": rows, "action": rows, "reward": rows[:, 0], "terminated": np.arange(15) == 14})
    return path


def test_rewards_are_standardized_shifted_and_scaled_as_told(make: Any) -> None:
    config = make("td3_bc", "plain")
    plain = load_data(config).rewards()
    config["data"] |= {"reward_shift": -0.5, "reward_scale": 4.0}
    torch.testing.assert_close(load_data(config).rewards(), 4 * (plain - 0.5))
    config["data"]["standardize_rewards"] = True
    standard = load_data(config).rewards() / 4 + 0.5
    assert abs(standard.mean()) < 0.1  # of the transitions; exactly 0 is that of all steps
    assert abs(standard.std() - 1) < 0.1


def test_settings_that_imitation_would_ignore_are_refused(make: Any) -> None:
    for name, value in (("ends", "truncated"), ("reward_scale", 2.0), ("standardize_rewards", True)):
        config = {**make("diffusion_ql", "ignored"), "agent": {"name": "imitation"}}
        config["data"] = {**config["data"], name: value}
        with pytest.raises(ConfigError, match=rf"data\.{name}: imitation looks at no rewards"):
            assemble(config)
    for agent in ({"eta": 3.0}, {"name": "imitation", "eta": 3.0}):
        with pytest.raises(ConfigError, match="agent: imitation has no settings, but got eta; name an agent: "):
            assemble({**make("diffusion_ql", "nameless"), "agent": agent})
    with pytest.raises(ConfigError, match="draws nothing, so all candidates would be equal"):
        assemble({**make("iql", "equal"), "agent": {"name": "iql", "num_candidates": 8, "critic": CRITIC}})


def test_every_batch_of_an_agent_is_whole(make: Any) -> None:
    loop = assemble(make("td3_bc", "whole", batch_size=20)).loop
    rows = [len(loop.order.batch(step)) for step in range(3 * loop.order.steps_per_epoch)]
    assert set(rows) == {20}
    assert len(loop.dataset) % 20


def test_judge_never_trains_so_that_rollouts_are_those_of_the_saved_policy(make: Any) -> None:
    loop = assemble(make("diffusion_ql", "judge")).loop
    loop.step()
    deployed = loop.objective.deployed(loop.ema.model)
    assert loop.objective.policy.training
    assert deployed.selector is not None
    assert not any(module.training for module in deployed.modules())


def test_changed_next_observations_are_noticed_on_resume(make: Any, tmp_path: Path) -> None:
    def ending(name: str, last: float) -> Path:
        base = ReplayBuffer.open(tmp_path / "data.zarr")
        with ReplayBuffer.create(tmp_path / name) as buffer:
            for episode in base.episodes():
                after = np.concatenate([episode["pos"][1:], np.full((1, 2), last, np.float32)])
                buffer.add_episode({**episode, "next_pos": after})
        return tmp_path / name

    data = ending("next.zarr", 1.0)
    train(make("td3_bc", "run", dataset=data))
    other = ending("other.zarr", 2.0)
    data.rename(tmp_path / "old.zarr")
    other.rename(data)
    with pytest.raises(DataError, match="has changed since"):
        train({"resume": str(tmp_path / "run"), "training": {"num_grad_steps": 25}})


def test_agent_whose_batch_would_be_cut_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match="agent= computes each batch as a whole, on one process"):
        assemble(make("td3_bc", "ranks"), ranks=Ranks(0, 2))
    with pytest.raises(ConfigError, match=r"training\.micro_batch_size=null"):
        assemble(make("td3_bc", "pieces", micro_batch_size=4))


def test_agent_goes_on_from_another_agents_policy(make: Any, tmp_path: Path) -> None:
    first = train(make("diffusion_ql", "first")).out / "policy.pt"
    second = assemble({**make("idql", "second"), "init": str(first)}).loop.objective.policy
    kept = load_policy(first).state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in second.state_dict().items())
    assert second.selector is None


def test_critic_learns_beside_a_policy_that_stays_as_it_was_also_over_a_resume(make: Any, tmp_path: Path) -> None:
    first = train(make("diffusion_ql", "first")).out / "policy.pt"
    config = make("idql", "judged")
    config["agent"]["train_policy"] = False
    with pytest.raises(ConfigError, match=r"expected init=policy\.pt, got no init"):
        assemble(config)
    out = train({**config, "init": str(first)}).out
    shorter = load_policy(out / "policy.pt")
    longer = train(
        {"resume": str(out), "training": {"num_grad_steps": config["training"]["num_grad_steps"] + 5}}
    ).policy
    kept = load_policy(first).state_dict()
    for policy in (shorter, longer):
        own = {name: value for name, value in policy.state_dict().items() if not name.startswith("selector.")}
        assert all(torch.equal(value, kept[name]) for name, value in own.items())
        assert policy.selector.config.num_candidates == 4
    judges = [dict(policy.selector.named_parameters()) for policy in (shorter, longer)]
    assert any(not torch.equal(value, judges[1][name]) for name, value in judges[0].items())
