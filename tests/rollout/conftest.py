"""Toy environments and policies, fresh for every test."""

import gymnasium as gym
import pytest

import diffusion_policy_envs  # noqa: F401 (registers its ids before the toys: what is registered later ends with them)
from tests.rollout.toys import ChaosEnv, ToyPolicy


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    """The environment that keeps a log; what a test registers is forgotten after it."""
    monkeypatch.setattr(ChaosEnv, "log", [])
    before = dict(gym.registry)
    yield ChaosEnv
    gym.registry.clear()
    gym.registry.update(before)


@pytest.fixture
def toy_policy():
    return ToyPolicy
