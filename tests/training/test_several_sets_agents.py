"""Agents on several data sets, with and without synthetic rows; the command line's way to say so."""

# ruff: noqa: F811 - fixtures of other files

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion_policy.cli.compose import compose_config
from diffusion_policy.data.origin import Origin
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.settings import plain
from diffusion_policy.training.assembly import assemble
from diffusion_policy.training.run import train
from tests.training.test_agents import make, recorded, state  # noqa: F401  (make is a fixture)
from tests.training.test_synthetic import mixing, synthetic  # noqa: F401  (synthetic is a fixture)


@pytest.fixture
def weighted(tmp_path: Path) -> list[dict[str, Any]]:
    rich = recorded(tmp_path / "rich.zarr", reward=lambda steps: np.full(steps, 10.0))
    return [{"path": str(tmp_path / "data.zarr"), "weight": 0.75}, {"path": str(rich), "weight": 0.25}]


def test_agent_on_weighted_sets_resumes_exactly(make, weighted, tmp_path: Path) -> None:
    train({**make("diffusion_ql", "whole"), "dataset": weighted})
    train({**make("diffusion_ql", "parts", num_grad_steps=9), "dataset": weighted})
    train({"resume": str(tmp_path / "parts"), "training": {"num_grad_steps": 20}})
    whole, parts = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_batches_of_an_agent_hold_the_shares(make, weighted) -> None:
    loop = assemble({**make("td3_bc", "run"), "dataset": weighted}).loop
    for step in range(5):
        assert (loop.dataset.batch(loop.order.batch(step)).reward == 10).sum() == 4


def test_rewards_are_standardized_over_all_sets_together(make, weighted) -> None:
    config = {**make("td3_bc", "run"), "dataset": weighted, "data": {"val_ratio": 0.0, "standardize_rewards": True}}
    rewards = assemble(config).data.transitions.rewards()
    stored = []
    for each in weighted:
        with ReplayBuffer.open(each["path"]) as buffer:
            stored.append(buffer["reward"])
    both = np.concatenate(stored)
    assert rewards.max().item() == pytest.approx((10 - both.mean()) / both.std(), rel=1e-5)


def test_synthetic_rows_take_their_places_from_all_sets_alike(make, weighted, synthetic) -> None:
    config = mixing({**make("td3_bc", "run"), "dataset": weighted}, synthetic, synthetic_ratio=0.25)
    loop = assemble(config).loop
    for step in range(5):
        reward = loop.dataset.batch(loop.order.batch(step)).reward
        assert (reward == 100).sum() == 4
        assert abs(int((reward == 10).sum()) - 3) <= 1  # a quarter of 12 rows


def test_synthetic_rows_may_be_made_of_one_of_the_sets_and_of_no_other(
    make,
    weighted,
    synthetic,
    tmp_path: Path,
) -> None:
    def told(path: str) -> dict[str, Any]:
        with ReplayBuffer.open(path) as buffer:
            ends = np.cumsum(np.diff(buffer.episode_ends, prepend=0)) - 1
            terminated = np.zeros(buffer.num_steps, bool)
            terminated[ends] = buffer["terminated"][ends]
            keys = ["action", "pos", "reward", "terminated"]
            return plain(Origin.read(buffer, keys, np.arange(buffer.num_episodes), terminated))

    config = mixing({**make("td3_bc", "run"), "dataset": weighted}, synthetic, synthetic_from="same")
    other = recorded(tmp_path / "other.zarr", reward=lambda steps: np.full(steps, 7.0))
    for path, known in ((weighted[1]["path"], True), (str(other), False)):
        with ReplayBuffer.open(synthetic, mode="a") as buffer:
            buffer.update_attrs({"provenance": {"real": {"origin": told(path)}}})
        if known:
            assert assemble(config).data.synthetic
        else:
            with pytest.raises(
                ConfigError, match=r"was made of 6 of 6 episodes .* but the agent trains on .* and 6 of"
            ):
                assemble(config)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "dataset=[{path: a/human.zarr, weight: 0.7}, {path: package://pusht, weight: 0.3}]",
            [{"path": "a/human.zarr", "weight": 0.7}, {"path": "package://pusht", "weight": 0.3}],
        ),
        ("dataset=[a.zarr, b.zarr]", ["a.zarr", "b.zarr"]),
        ("dataset=http://host:8000/a.zarr", "http://host:8000/a.zarr"),
        ("dataset=[s3://bucket/a.zarr, b.zarr]", ["s3://bucket/a.zarr", "b.zarr"]),
    ],
)
def test_command_line_takes_lists_and_addresses(word: str, expected: Any) -> None:
    assert compose_config("train", "task=pusht", word)["dataset"] == expected
