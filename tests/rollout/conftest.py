"""Toy environments and policies, fresh for every test."""

import gymnasium as gym
import pytest

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
