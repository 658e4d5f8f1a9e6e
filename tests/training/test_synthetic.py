"""Agents on real and synthetic transitions: what is mixed, what is not looked at, exact resume, refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy import ReplayBuffer, train
from diffusion_policy.cli.compose import compose_config
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.policies.checkpoint import read_policy_file
from diffusion_policy.training.assembly import assemble
from diffusion_policy.training.augmenting.run import augment
from tests.training.augmenting.test_run import TINY
from tests.training.test_agents import AGENTS, make, recorded, state  # noqa: F401  (make is a fixture)


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    path = tmp_path / "synthetic.zarr"
    with ReplayBuffer.create(path, attrs={"provenance": {"augmenter": {}}}) as buffer:
        for number in range(60):
            ended = np.array([number % 10 == 0])
            buffer.add_episode({
                "pos": 5 + rng.uniform(-1, 1, (1, 2)).astype(np.float32),
                "next_pos": 5 + rng.uniform(-1, 1, (1, 2)).astype(np.float32),
                "action": rng.uniform(-1, 1, (1, 2)).astype(np.float32),
                "reward": np.array([100.0], np.float32), "terminated": ended, "truncated": ~ended,
            })  # fmt: skip
    return path


def mixing(config: dict[str, Any], path: Path, **data: Any) -> dict[str, Any]:
    return {**config, "data": {**config["data"], "synthetic": str(path), "synthetic_from": "any", **data}}


def same(one: Path, other: Path) -> bool:
    mine, theirs = state(one), state(other)
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_agent_resumes_exactly_on_a_mixture_and_none_is_as_without(make, synthetic, tmp_path: Path) -> None:  # noqa: F811
    train(mixing(make("td3_bc", "whole"), synthetic))
    train(mixing(make("td3_bc", "parts", num_grad_steps=9), synthetic))
    train({"resume": str(tmp_path / "parts"), "training": {"num_grad_steps": 20}})
    assert same(tmp_path / "whole", tmp_path / "parts")
    train(make("td3_bc", "without"))
    assert not same(tmp_path / "whole", tmp_path / "without")
    train(mixing(make("td3_bc", "none"), synthetic, synthetic_ratio=0.0))
    assert same(tmp_path / "none", tmp_path / "without")
    told = read_policy_file(tmp_path / "whole/policy.pt").info.dataset["synthetic"]
    assert told["ratio"] == 0.5
    assert told["digest"]


@pytest.mark.parametrize("kind", [kind for kind in AGENTS if kind != "chunks"])
def test_every_agent_learns_from_a_mixture(kind: str, make, synthetic) -> None:  # noqa: F811
    loop = assemble(mixing(make(kind, "run"), synthetic)).loop
    for _ in range(2):
        loop.step()
    loop.check_weights()


def test_batches_are_mixed_and_normalisers_are_of_the_real_data(make, synthetic) -> None:  # noqa: F811
    alone = assemble(make("iql", "a"))
    mixed = assemble(mixing(make("iql", "b"), synthetic, synthetic_ratio=0.25))
    batch = mixed.loop.dataset.batch(np.arange(16))
    assert (batch.obs["pos"][:, 0, 0] > 3).sum() == 4
    assert (batch.reward == 100).sum() == 4
    for one, other in zip(alone.loop.objective.model.buffers(), mixed.loop.objective.model.buffers(), strict=True):
        assert torch.equal(one, other)
    assert mixed.data.digest != alone.data.digest


def test_rewards_of_both_are_scaled_by_the_real_ones(make, synthetic) -> None:  # noqa: F811
    plain = assemble(make("iql", "a")).data.transitions
    assert plain is not None
    rewards = plain.rewards().numpy()
    data = {"standardize_rewards": True, "reward_scale": 2.0, "reward_shift": 1.0, "synthetic_ratio": 1.0}
    mixed = assemble(mixing(make("iql", "b"), synthetic, **data))
    found = mixed.loop.dataset.batch(np.arange(16)).reward
    assert found.unique().numel() == 1  # below: of all steps, but those whose outcome nobody saw
    assert found[0].item() == pytest.approx(2 * ((100 - rewards.mean()) / rewards.std() + 1), rel=0.1)


def test_synthetic_data_of_other_episodes_are_refused_unless_meant(make, synthetic, tmp_path: Path) -> None:  # noqa: F811
    def made(name: str, *words: str) -> Path:
        out = tmp_path / name
        augment(compose_config("augment", f"dataset={tmp_path / 'data.zarr'}", *TINY, f"out={out}", *words))
        return out

    def mixed(path: Path, seed: int = 0, dataset: Path | None = None, **data: Any) -> None:
        config = {**make("iql", "run"), "seed": seed}
        config["dataset"] = str(dataset or config["dataset"])
        assemble(mixing(config, path, **{"synthetic_from": "same", **data}))

    whole, few = made("whole.zarr"), made("few.zarr", "data.episodes=2")
    mixed(whole)
    mixed(few, episodes=2)
    mixed(whole, dataset=recorded(tmp_path / "wider.zarr", temperature=lambda steps: np.zeros(steps, np.float32)))
    refused: list[tuple[Path, dict[str, Any]]] = [
        (few, {}), (whole, {"episodes": 2}), (few, {"episodes": 2, "seed": 1}), (whole, {"val_ratio": 0.4}),
    ]  # fmt: skip
    for path, settings in refused:
        with pytest.raises(
            ConfigError, match=r"was made of \d of 6 episodes .*, but the agent trains on \d of 6 episodes"
        ):
            mixed(path, **settings)
    other = recorded(tmp_path / "other.zarr")
    with ReplayBuffer.open(other, mode="a") as buffer:
        buffer.add_episode(buffer.get_episode(0))
    with pytest.raises(ConfigError, match=r"made of 6 of 6 .* trains on 7 of 7"):
        mixed(whole, dataset=other)
    with pytest.raises(ConfigError, match="does not tell which transitions it was made of"):
        mixed(synthetic)
    mixed(few, synthetic_from="any")


def test_what_cannot_be_mixed_is_refused(make, synthetic, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="single transitions, but horizons are 2, 2, 4"):
        assemble(mixing(make("chunks", "a"), synthetic))
    with pytest.raises(ConfigError, match="holds no windows, which imitation needs"):
        assemble({**mixing(make("idql", "b"), synthetic), "agent": {"name": "imitation"}})
    with pytest.raises(ConfigError, match="synthetic_ratio must be in"):
        assemble(mixing(make("iql", "c"), synthetic, synthetic_ratio=2.0))
    with ReplayBuffer.create(tmp_path / "other.zarr") as buffer:
        buffer.add_episode({"speed": np.zeros((1, 2), np.float32), "action": np.zeros((1, 2), np.float32)})
    with pytest.raises(DataError, match="needs data 'pos'"):
        assemble(mixing(make("iql", "d"), tmp_path / "other.zarr"))


def test_changed_synthetic_data_do_not_go_on(make, synthetic: Path, tmp_path: Path) -> None:  # noqa: F811
    train(mixing(make("iql", "run", num_grad_steps=5), synthetic))
    with ReplayBuffer.open(synthetic, mode="a") as buffer:
        buffer.add_episode(buffer.get_episode(0))
    with pytest.raises(DataError, match="has changed since"):
        train({"resume": str(tmp_path / "run"), "training": {"num_grad_steps": 10}})
