"""MuJoCo environments that can be put into a state and asked what follows an action there."""

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.environments import Env

_PROBE = 1e3  # a velocity beyond any limit


class Outcome(NamedTuple):
    """What followed an action: the next observation and the reward, (size + 1,), and whether that ended the task."""

    values: NDArray[np.float64]
    terminated: bool


class Simulator:
    """A gymnasium MuJoCo environment, whose observation is the state but for the first positions (x), put into states.

    Args:
        env: it is stepped without its wrappers: a time limit does not matter.
        name: its id.

    Raises:
        ConfigError: it has no states to be put into, or the observation is something else.
    """

    def __init__(self, env: Env, name: str) -> None:
        self._core = cast(Any, env.unwrapped)  # a MujocoEnv
        missing = [
            each for each in ("set_state", "init_qpos", "init_qvel", "_get_obs") if not hasattr(self._core, each)
        ]
        if missing:
            raise ConfigError(
                f"{name} cannot be put into a recorded state: expected gymnasium's MujocoEnv, but its "
                f"{type(self._core).__name__} has no {', '.join(missing)}"
            )
        env.reset(seed=0)
        nq, nv = len(self._core.init_qpos), len(self._core.init_qvel)
        self.size = int(np.prod(env.observation_space.shape or ()))
        self._hidden, self._nv = nq + nv - self.size, nv
        probe = np.linspace(-0.01, 0.01, max(self.size, 1))
        if not 0 <= self._hidden < nq or not np.allclose(self._seen(probe), probe, atol=1e-12):
            raise ConfigError(
                f"{name} cannot be put into a recorded state: its observation is not made of the {nq} positions, but "
                f"for the first, and the {nv} velocities; such environments cannot be checked"
            )
        self._limit = float(np.abs(self._seen(np.full(self.size, _PROBE))[-nv:]).max())

    def outcome(self, obs: NDArray[Any], action: NDArray[Any]) -> Outcome:
        """Returns what follows an action in a state.

        Args:
            obs: (size,) the state.
            action: (A,).
        """
        self._set(obs.astype(np.float64))
        seen, reward, terminated, *_ = self._core.step(action.astype(self._core.action_space.dtype))
        return Outcome(np.append(seen, float(reward)).astype(np.float64), bool(terminated))

    def knows(self, obs: NDArray[Any]) -> bool:
        """Whether an observation tells the whole state: none of its velocities was clipped."""
        return bool((np.abs(obs[-self._nv :]) < self._limit).all())

    def _set(self, obs: NDArray[np.float64]) -> None:
        positions = np.concatenate([np.zeros(self._hidden), obs[: -self._nv]])
        self._core.set_state(positions, obs[-self._nv :])

    def _seen(self, obs: NDArray[np.float64]) -> NDArray[np.float64]:
        self._set(obs)
        return np.asarray(self._core._get_obs(), np.float64)
