"""The door of the Adroit hand (gymnasium-robotics), with the fields of its human demonstrations."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diffusion_policy_envs import gl  # first: it chooses the GL before MuJoCo is imported
from diffusion_policy_envs.adapters.needs import needed
from diffusion_policy_envs.adapters.robotics import Floats, Info, RoboticsEnv
from diffusion_policy_envs.arguments import check_choice, check_vector

__all__ = ["AdroitDoorEnv"]

_OPEN = {"ajar": 0.2, "open": 1.0}  # rad: stages of the package's reward
_SUCCESS = 1.35  # rad, the package's
_FIELDS = {"hand": (0, 27), "latch": (27, 28), "door": (28, 29), "palm": (29, 32), "handle": (32, 35)}
_FIELDS |= {"palm_from_handle": (35, 38)}  # of the package's observation (39,); the last number is the sign of door - 1


class AdroitDoorEnv(RoboticsEnv):
    """Undo the latch of a door and swing it open with a dexterous hand of 24 joints on an arm of 4.

    ## Description
    `AdroitHandDoor-v1` of gymnasium-robotics (Rajeswaran et al. 2018), its physics, starts, rewards and success; the
    25 human demonstrations of DAPG and D4RL replay in it. The arm slides 0.8 m towards the door, z points up.

    ## Action space
    `Box(-1, 1, (28,), float32)`: where the joints shall be, absolute; -1 and 1 are the ends of each joint's range (m
    for the first, rad for the others). Values outside are clipped.

    ## Observation space
    A `Dict` with the entries named by `obs_keys`:

    | Key                | Shape     | Type    | Unit     | Meaning                                                   |
    |--------------------|-----------|---------|----------|-----------------------------------------------------------|
    | `hand`             | (27,)     | float32 | rad      | joints: 3 of the arm (its slide shows in `palm`), 24 of   |
    |                    |           |         |          | wrist and fingers                                         |
    | `latch`            | (1,)      | float32 | rad      | angle of the latch, 0 to 1.8                              |
    | `door`             | (1,)      | float32 | rad      | angle of the door, 0 to 1.57                              |
    | `palm`             | (3,)      | float32 | m        | position of the palm                                      |
    | `handle`           | (3,)      | float32 | m        | position of the handle                                    |
    | `palm_from_handle` | (3,)      | float32 | m        | palm - handle                                             |
    | `state`            | (63,)     | float32 | rad, m, s| positions (30: arm and hand, door, latch), velocities     |
    |                    |           |         |          | (30), place of the door (3)                               |
    | `image`            | (s, s, 3) | uint8   | 0 to 255 | picture from above the arm, s = `image_size`              |

    The package's observation of 39 numbers is `hand`, `latch`, `door`, `palm`, `handle`, `palm_from_handle` and a sign.

    ## Rewards
    The package's, `dense` or `sparse` (`reward_type`): dense, 2 is added from a door angle of 0.2 rad on, 8 more from
    1.0 and 10 more from 1.35. `info` holds `is_success` (door at 1.35 rad or more now), `door` (rad) and `subgoals`
    {"ajar": 0.2 rad, "open": 1.0 rad}.

    ## Starting state
    The hand is stretched out, the door's place uniform in 10 x 10 x 9.8 cm (the demonstrations': 19 x 19 x 13 cm).
    `reset(options={"state": state})` starts from an observed `state`; the episode goes on as the recorded one did but
    for rounding, which contacts amplify.

    ## Episode end
    Never terminated. Truncated by the registered id after 300 steps (3 s; the demonstrations take 223 to 300, and the
    package's own limit of 200 would cut them).

    ## Arguments
    - `obs_keys`: entries of the observation.
    - `reward_type`: `dense` or `sparse`.
    - `image_size`, `render_mode` (None or `rgb_array`), `render_size`: pictures, px.

    ## Pictures
    `picture(obs, size)` and `observe(obs)` take recorded steps with `state`, with the fields `hand`, `latch`, `door`,
    `palm` and `handle`, or with the package's `observation`: arm and door are put where palm and handle were.

    ## Version history
    - v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 100}  # noqa: RUF012 (Gymnasium's own type)
    _camera = "vil_camera"
    _action = "targets of the 28 joints in [-1, 1]"

    def __init__(
        self,
        obs_keys: Sequence[str] = tuple(_FIELDS),
        reward_type: str = "dense",
        image_size: int = 96,
        render_mode: str | None = None,
        render_size: int = 512,
    ) -> None:
        check_choice("reward_type", reward_type, ("dense", "sparse"))
        self._reward_type = reward_type
        super().__init__(obs_keys, image_size, render_mode, render_size)

    def _make_core(self) -> Any:
        needed("gymnasium_robotics", "robotics")
        module: Any = import_module("gymnasium_robotics.envs.adroit_hand.adroit_door")
        core = module.AdroitHandDoorEnv(reward_type=self._reward_type)
        core.reset(seed=0)
        return core

    def _fields(self, core: Any) -> dict[str, Floats]:
        seen = core._get_obs()
        return {key: seen[start:stop] for key, (start, stop) in _FIELDS.items()}

    def _state(self, core: Any) -> Floats:
        return np.concatenate([core.data.qpos, core.data.qvel, core.model.body_pos[core.door_body_id]])

    def _set_state(self, core: Any, state: Floats) -> None:
        nq = core.model.nq
        # Twice the state would not be twice the same: the solver starts from what it found last.
        gl.mujoco.mj_resetData(core.model, core.data)
        core.set_env_state({"qpos": state[:nq], "qvel": state[nq:-3], "door_body_pos": state[-3:]})

    def _info(self) -> Info:
        angle = float(self.core.data.qpos[self.core.door_hinge_addrs])
        subgoals = {name: angle > beyond for name, beyond in _OPEN.items()}
        return {"is_success": angle >= _SUCCESS, "door": angle, "subgoals": subgoals}

    def _recorded(self, obs: Mapping[str, ArrayLike]) -> Floats:
        if "state" in obs:
            return self._check_state("a recorded state", obs["state"])
        if "observation" in obs:
            seen = check_vector("a recorded observation", obs["observation"], 39, "as the package has it")
            obs = {key: seen[start:stop] for key, (start, stop) in _FIELDS.items()}
        fields = [key for key in _FIELDS if key != "palm_from_handle"]
        if missing := [key for key in fields if key not in obs]:
            raise ValueError(
                f"a recorded step must hold state, observation or {', '.join(fields)}, but it has "
                f"{', '.join(sorted(obs)) or 'nothing'}; record {', '.join(missing)}"
            )
        parts = [check_vector(key, obs[key], _FIELDS[key][1] - _FIELDS[key][0], "one step") for key in fields]
        return self._placed(*parts)

    def _placed(self, hand: Floats, latch: Floats, door: Floats, palm: Floats, handle: Floats) -> Floats:
        """Returns the state at rest, (63,), in which palm and handle lie where they were seen.

        The arm's slide moves the palm along a line, the door's place the handle by as much: two trials tell both.
        """
        place = self._stage.model.body_pos[self._stage.door_body_id].copy()
        trials = []
        for slide in (0.0, 1.0):
            state = np.concatenate([[slide], hand, door, latch, np.zeros(self._stage.model.nv), place])
            self._set_state(self._stage, state)
            trials.append((state, self._fields(self._stage)))
        (state, near), (_, far) = trials
        along = far["palm"] - near["palm"]
        state[0] = (palm - near["palm"]) @ along / (along @ along)
        state[-3:] += handle - near["handle"]
        return state
