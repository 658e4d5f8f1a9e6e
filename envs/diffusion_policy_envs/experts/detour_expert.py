"""An expert for Detour: it chooses a route by chance and follows it with a slightly unsteady hand."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.detour.geometry import BEHAVIORS, HALF_WIDTH, LENGTH, Floats
from diffusion_policy_envs.detour.physics import DetourPhysics
from diffusion_policy_envs.experts.detour_path import DetourPath, corners

__all__ = ["DetourExpert"]

_STREAM = 1  # beside the seed: a start drawn from the same seed must tell nothing of the route


class DetourExpert:
    """Leads the agent along a way by pure pursuit: `action = expert(obs, info)`, every step.

    The target always lies the same length ahead on the way, so that the agent comes back to it from wherever it is.
    The hand trembles slowly, so that demonstrations show how.

    Args:
        physics: the simulated table, which it only reads.
        seed: the same seed does the same; over seeds each route is as likely.
        control_hz: calls per simulated second.
        lead: m, how far ahead the target is; 0.04 m make about 0.15 m/s.
        hand_noise: m, standard deviation of how far from the way the hand drifts, in either axis.
        hand_seconds: s, in which it forgets where it drifted, and in which it gets there: so the target moves smoothly
            and is off by about 0.7 of `hand_noise`.
    """

    def __init__(
        self,
        physics: DetourPhysics,
        *,
        seed: int,
        control_hz: int = 10,
        lead: float = 0.04,
        hand_noise: float = 0.008,
        hand_seconds: float = 0.5,
    ) -> None:
        self._physics = physics
        self._rng = np.random.default_rng([seed, _STREAM])
        self.route = BEHAVIORS[self._rng.integers(len(BEHAVIORS))]
        self._lead = lead
        self._keep = float(np.exp(-1.0 / (control_hz * hand_seconds)))
        self._shake = hand_noise * float(np.sqrt(1.0 - self._keep**2))
        self._drift = np.zeros(2)
        self._off = np.zeros(2)
        self._path: DetourPath | None = None

    def __call__(self, obs: dict[str, NDArray[Any]], info: dict[str, Any]) -> NDArray[np.float32]:
        """Returns the agent's next target (2,), m."""
        agent: Floats = self._physics.state[:2]
        if self._path is None:
            self._path = DetourPath(corners(agent, self.route))
        self._drift = self._keep * self._drift + self._shake * self._rng.standard_normal(2)
        self._off = self._keep * self._off + (1.0 - self._keep) * self._drift
        target = self._path.ahead(agent, self._lead) + self._off
        return np.clip(target, [-HALF_WIDTH, 0.0], [HALF_WIDTH, LENGTH]).astype(np.float32)
