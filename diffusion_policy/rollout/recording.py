"""One episode while it is stepped and recorded, whoever acts.

Letters: T steps of an episode.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import Array
from diffusion_policy.rollout.env_facts import success_of
from diffusion_policy.rollout.environments import BOX_FIELD, Env

OWN_KEYS = ("action", "reward", "terminated", "truncated", "success")
"""What a recorded step holds beside the observation; `success` where the environment tells it."""


class Recording:
    """Steps an environment through one episode and keeps what was seen, what was done, and what came of that.

    Args:
        env: it is reset.
        seed: of the episode.

    Attributes:
        obs: what the environment shows now.
        info: likewise.
        reward: of the last step, 0 before the first.
        success: whether it succeeded so far; None where the environment does not say.
        ended: whether it terminated or was truncated.
    """

    def __init__(self, env: Env, seed: int) -> None:
        self._env = env
        self._steps: list[dict[str, Any]] = []
        self.obs, self.info = env.reset(seed=seed)
        self.reward = 0.0
        self.success: bool | None = None
        self.ended = False

    def __len__(self) -> int:
        """T so far."""
        return len(self._steps)

    def step(self, action: Any) -> None:
        """Acts once; afterwards `obs`, `info`, `success` and `ended` are those of the next step."""
        seen = self._seen()
        self.obs, reward, terminated, truncated, self.info = self._env.step(action)
        self.reward = float(reward)
        self._steps.append({**seen, "action": np.array(action), "reward": np.float32(reward)})
        self._steps[-1] |= {"terminated": np.bool_(terminated), "truncated": np.bool_(truncated)}
        said = success_of(self.info)
        self.success = self.success if said is None else said or bool(self.success)
        self._steps[-1]["success"] = np.bool_(bool(self.success))
        self.ended = bool(terminated or truncated)

    def _seen(self) -> dict[str, Array]:
        """Returns what is seen now, copied: an environment may reuse its arrays."""
        seen = dict(self.obs) if isinstance(self.obs, Mapping) else {BOX_FIELD: self.obs}
        return {key: np.array(value) for key, value in seen.items()}

    def cut(self) -> None:
        """Ends the episode after its last step from outside: that is what `truncated` means."""
        self._steps[-1]["truncated"] = np.bool_(True)
        self.ended = True

    def episode(self, *, next_obs: bool = False) -> dict[str, Array]:
        """Returns {key: (T, *shape)}, T >= 1; numbers as the environment gave them, but float64 becomes float32.

        `success` tells whether it had succeeded by the end of a step.

        Args:
            next_obs: adds `next_<key>` of what was observed: what followed each step, the last one too.
        """
        keys = [key for key in self._steps[0] if key != "success" or self.success is not None]
        episode = {key: np.stack([step[key] for step in self._steps]) for key in keys}  # (T, *shape)
        if next_obs:
            for key, last in self._seen().items():
                episode[NEXT + key] = np.concatenate([episode[key][1:], last[None]])  # (T, *shape)
        return {key: v.astype(np.float32) if v.dtype == np.float64 else v for key, v in episode.items()}


def needs_next_obs(env: Env) -> bool:
    """Whether a recording should hold what followed each step, where nobody says.

    True where one vector of numbers is observed, as in gymnasium's MuJoCo tasks: such data are for learning from
    rewards, where the outcome of an episode's last step counts. Named fields are for imitation, and pictures would take
    twice the room.
    """
    space = env.observation_space
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and bool(np.issubdtype(space.dtype, np.floating))


def check_names(env: Env, env_id: str, *, next_obs: bool = False) -> None:
    """Raises ConfigError where an observation has the name of something else that is recorded."""
    observed = set(getattr(env.observation_space, "spaces", {}))
    taken = observed & {*OWN_KEYS, *(NEXT + key for key in observed if next_obs)}
    if taken:
        raise ConfigError(
            f"{env_id} observes {', '.join(sorted(taken))}, but a data set needs these names for what was done; "
            f"rename them with a gymnasium wrapper"
        )
