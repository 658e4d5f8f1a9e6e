"""Policies that answer every observed step with one action, and execute the answer to the last."""

from diffusion_policy.config import Horizons
from diffusion_policy.errors import ConfigError


def check_stepwise(kind: str, horizons: Horizons) -> None:
    """Raises ConfigError unless there is one action to each observation."""
    if horizons.pred_horizon != horizons.obs_horizon or horizons.action_horizon != 1:
        To = horizons.obs_horizon
        raise ConfigError(
            f"policy '{kind}' answers each observation with one action: expected horizons {{obs_horizon: {To}, "
            f"action_horizon: 1, pred_horizon: {To}}}, but got action_horizon {horizons.action_horizon} and "
            f"pred_horizon {horizons.pred_horizon}"
        )
