import gymnasium as gym
import pytest

from diffusion_policy.rollout.env_facts import actions_a_second
from diffusion_policy.rollout.environments import make_env


@pytest.mark.parametrize(
    ("env_id", "kwargs", "expected"),
    [
        ("diffusion_policy_envs:PushT-v0", {"obs_keys": ["state"]}, 10),
        ("diffusion_policy_envs:PushT-v0", {"obs_keys": ["state"], "control_hz": 50}, 50),
        ("diffusion_policy_envs:PickPlace-v0", {"obs_keys": ["state"]}, 20),
        ("Hopper-v5", {}, 125),
        ("Hopper-v5", {"frame_skip": 3}, 1 / 0.006),  # its render_fps is a whole number
        ("Pendulum-v1", {}, 20),  # a step is 0.05 s, though its film runs at 30 pictures a second
    ],
)
def test_actions_a_second_are_those_of_the_environments_own_time(env_id, kwargs, expected):
    env = make_env(env_id, kwargs)
    assert actions_a_second(env) == pytest.approx(expected, rel=1e-6)
    env.close()


def test_a_step_of_the_physics_is_no_step_of_the_actions():
    class PhysicsOf(gym.Env):
        """As gym-pusht's: dt is the simulation's; others do not say control_hz."""

        dt, metadata = 0.01, {"render_fps": 10}

    assert actions_a_second(PhysicsOf()) == 10
    PhysicsOf.control_hz = 20
    assert actions_a_second(PhysicsOf()) == 20
    PhysicsOf.control_hz = None
    PhysicsOf.metadata = {"render_fps": 99}  # rounded, dt is exact
    assert actions_a_second(PhysicsOf()) == 100
    PhysicsOf.metadata = {}
    assert actions_a_second(PhysicsOf()) is None


def test_an_environment_that_does_not_tell_its_rate_has_none():
    class Silent(gym.Env):
        dt = None

    assert actions_a_second(Silent()) is None
