import numpy as np
import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import EnvironmentIdError
from diffusion_policy.rollout.recorded_env import find_env
from tests.rollout.toys import ChaosEnv

CHAOS = "toys/Chaos-v0"


def recorded(env_id):
    buffer = ReplayBuffer.create(attrs={"provenance": {"env_id": env_id}} if env_id else None)
    buffer.add_episode({"action": np.zeros((3, 2), np.float32)})
    return buffer


def test_environment_is_the_recorded_one_unless_another_is_named():
    assert find_env(recorded(None), None) is None
    assert isinstance(find_env(recorded(CHAOS), None).unwrapped, ChaosEnv)
    assert isinstance(find_env(recorded("none/None-v0"), CHAOS).unwrapped, ChaosEnv)


def test_recorded_environment_that_is_not_here_is_done_without(caplog):
    assert find_env(recorded("no_such_package:None-v0"), None) is None
    assert "no package 'no_such_package'" in caplog.text
    with pytest.raises(EnvironmentIdError, match="no package 'no_such_package'"):
        find_env(recorded(None), "no_such_package:None-v0")
