"""Whether demonstrations are what the task says of them; a mistake in it would train, and fail in the environment.

Letters: N steps, Da numbers in an action.
"""

import logging

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.config import ActionSpec
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.mirror import Mirror, check_mirror
from diffusion_policy.errors import ConfigError

logger = logging.getLogger(__name__)

_ROUNDING = 1e-4  # of the range between the bounds: a recording at the limit is no mistake
_HOPELESS = 0.5  # share of steps outside, from which the bounds belong to other data
_TRIED = 64  # steps in the mirror


def check_mirrored(mirror: Mirror, both: WindowDataset, action_shape: tuple[int, ...], where: str = "") -> None:
    """Tries the mirror on a few steps, and says how many demonstrations it made.

    Args:
        mirror: of the task.
        both: windows of demonstrations and then, as many, of their mirror images.
        action_shape: of one action.
        where: what begins the message, e.g. "demos: "; empty where there is one data set.

    Raises:
        DataError: see `check_mirror`.
    """
    ids = np.unique(np.linspace(0, len(both) // 2 - 1, _TRIED).astype(np.int64))  # of the demonstrations
    batch = both.batch(ids)
    obs = {key: values[:, 0].cpu().numpy() for key, values in batch.obs.items()}  # (B, *shape), of the oldest step
    check_mirror(mirror, obs, batch.action[:, 0].cpu().numpy().reshape(len(ids), *action_shape))
    episodes = len(np.unique(both.index.episode_ids))
    logger.info("%s%d episodes and their mirror images (data.mirror)", where, episodes)


def check_action_bounds(action: Tensor, spec: ActionSpec, *, strict: bool = False, where: str = "") -> None:
    """Compares recorded actions with the bounds to which a controller clips what it sends; warns if some lie outside.

    Args:
        action: (N, Da), all steps.
        spec: the task's actions; nothing is checked unless it has both bounds.
        strict: refuse any that lie outside: critics would value what can never be done.
        where: what begins the message, e.g. "demos: "; empty where there is one data set.

    Raises:
        ConfigError: more than half of the steps lie outside, or any if `strict`.
    """
    bounds = spec.bounds()
    if bounds is None:
        return
    low, high = (torch.tensor(bound, dtype=action.dtype, device=action.device) for bound in bounds)  # each (Da,)
    beyond = torch.maximum(low - action, action - high)  # (N, Da), in the action's unit
    outside = beyond > _ROUNDING * (high - low).abs()
    share = float(outside.any(dim=1).float().mean())
    if share == 0.0:
        return
    worst = int((beyond / (high - low).abs().clamp_min(1e-12)).max(dim=0).values.argmax())
    name = spec.names[worst] if spec.names else f"number {worst}"
    column = action[:, worst]
    message = (
        f"{where}action: {_percent(share)} of {len(action)} steps lie outside [action.low, action.high], worst {name}: "
        f"recorded {float(column.min()):.4g} to {float(column.max()):.4g} {spec.unit}".rstrip()
        + f", allowed {bounds[0][worst]:.4g} to {bounds[1][worst]:.4g}; controllers clip what they send to these "
        f"bounds: correct them, or the unit (rad or degrees? m or mm?)"
    )
    if strict or share > _HOPELESS:
        raise ConfigError(message)
    logger.warning("%s", message)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "less than 0.1 %"
