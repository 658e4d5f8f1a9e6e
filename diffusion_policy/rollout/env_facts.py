"""What an environment tells of itself and of its episodes, where it does: renderer, rate, bounds, success, subgoals."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from diffusion_policy.config import ObsSpec
from diffusion_policy.errors import ObservationError
from diffusion_policy.rollout.environments import Env

_LIKE = 0.1  # `render_fps` is a rounded number


def renderer_of(env: Env, obs_spec: ObsSpec) -> str | None:
    """Returns what draws the pictures that the policy reads; None if it reads none or the environment does not say."""
    if not any(field.is_picture for field in obs_spec.values()):
        return None  # without asking: an environment may have to try its renderer before it knows
    renderer = getattr(env.unwrapped, "renderer", None)
    return None if renderer is None else str(renderer)


def check_renderer(env_id: str, learned: str | None, draws: str | None) -> None:
    """Raises if a policy learned from the pictures of another renderer: it would see another world.

    Args:
        env_id: of the environment.
        learned: the renderer of the policy's data set, None where that is not recorded.
        draws: that of the environment, from `renderer_of`.

    Raises:
        ObservationError: both are known and differ.
    """
    if learned is None or draws is None or learned == draws:
        return
    raise ObservationError(
        f"the policy learned from pictures by '{learned}', but this environment draws with '{draws}'; expected "
        f"{env_id} to draw with '{learned}', got '{draws}': install a software GL if '{learned}' needs one (Debian: "
        f"libegl1 libgl1-mesa-dri), or ask for it with env_kwargs (commands: +env.kwargs.renderer={learned})"
    )


def actions_a_second(env: Env) -> float | None:
    """Returns how many actions an environment takes a second of its own time; None where it does not tell.

    Its `control_hz`, or `dt` where that is known to be the time of an action (Gymnasium's own, and what repeats frames
    as its MuJoCo environments do), for it is exact; of others `dt` is often a step of their physics. Else `render_fps`.
    """
    core, fps = env.unwrapped, _positive(env.metadata.get("render_fps"))
    if (hz := _positive(getattr(core, "control_hz", None))) is not None:
        return hz
    if (step_s := _positive(getattr(core, "dt", None))) is not None:
        told = hasattr(core, "frame_skip") or hasattr(core, "n_substeps")
        if told or type(core).__module__.startswith("gymnasium.") or (fps and abs(step_s * fps - 1) < _LIKE):
            return round(1 / step_s, 6)
    return fps


def _positive(value: object) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
    return float(value) if known else None  # type: ignore[arg-type]


def bounds_of(space: Any) -> list[list[float]] | None:
    """Returns [low, high] of actions, Da numbers each, in plain lists; None where there are no finite ones."""
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        return None
    return [[float(each) for each in np.ravel(bound)] for bound in (space.low, space.high)]


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Returns what `is_success` or `success` says, None where the environment says neither."""
    said = info.get("is_success", info.get("success"))
    return None if said is None else bool(said)


def behavior_of(info: Mapping[str, Any]) -> str | None:
    """Returns what `info["behavior"]` says; None where the environment does not, or not yet."""
    said = info.get("behavior")
    return said if isinstance(said, str) and said else None


def subgoals_of(info: Mapping[str, Any]) -> dict[str, bool]:
    """Returns what `info["subgoals"]` says; empty where the environment has none."""
    said = info.get("subgoals")
    return {str(name): bool(done) for name, done in said.items()} if isinstance(said, Mapping) else {}
