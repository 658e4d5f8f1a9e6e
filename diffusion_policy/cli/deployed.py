"""What the commands that run a policy by the clock share: the policy, its strategy and its rules."""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusion_policy.cli.command import count
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.info import rate_of
from diffusion_policy.settings import build

if TYPE_CHECKING:
    from diffusion_policy.control.safety import SafetyConfig
    from diffusion_policy.control.strategies import Strategy
    from diffusion_policy.policies.chunk import ChunkPolicy, FloatArray

logger = logging.getLogger(__name__)

_USUAL_HZ = 10.0  # where a policy does not tell


def deployed_policy(config: dict[str, Any]) -> "ChunkPolicy":
    """Returns the policy of `checkpoint=`, warmed up for one robot; with `own_process` in another process."""
    from diffusion_policy.policies.controller import RecedingHorizonController
    from diffusion_policy.policies.own_process import PolicyProcess

    checkpoint, device, precision = str(config["checkpoint"]), str(config["device"]), config["precision"]
    if config["own_process"]:
        return PolicyProcess(checkpoint, device=device, precision=precision, plugins=config["plugins"] or ())
    return RecedingHorizonController.load(checkpoint, device=device, precision=precision, batch_size=1).policy


def deployed_strategy(config: dict[str, Any], policy: "ChunkPolicy", every: int | None = None) -> "Strategy":
    """Returns the strategy, after the policy has shown that it can follow it."""
    from diffusion_policy.control.plan import warm_up_guidance
    from diffusion_policy.control.strategies import make_strategy

    name, delay = str(config["strategy"]), count(config, "delay", 0)
    strategy = make_strategy(name, policy.horizons, delay=delay, every=every)
    if name == "real_time":
        warm_up_guidance(policy)
    return strategy


def deployed_rules(config: dict[str, Any], policy: "ChunkPolicy") -> "SafetyConfig":
    """Returns the section `safety`; `observed: trained` takes the ranges that the policy's normalisers kept.

    Raises:
        ConfigError: a rule makes no sense, or the policy does not know the ranges.
    """
    from diffusion_policy.control.safety import SafetyConfig

    rules = dict(config["safety"] or {})
    if rules.get("observed") == "trained":
        from diffusion_policy.policies.trained_ranges import trained_ranges

        rules["observed"] = {key: (low.tolist(), high.tolist()) for key, (low, high) in trained_ranges(policy).items()}
    return build(SafetyConfig, rules, "safety")


def control_hz(config: dict[str, Any], policy: "ChunkPolicy") -> float:
    """Returns actions a second: the setting of that name, or else what the policy was trained at.

    Where its file does not tell, that is said, and 10 is taken.

    Raises:
        ConfigError: it is no positive number.
    """
    said = rate_of(policy) if config["control_hz"] is None else config["control_hz"]
    if said is None:
        logger.warning(
            "nothing in the policy tells the rate of its demonstrations; %g actions a second are taken: control_hz=HZ "
            "says another rate",
            _USUAL_HZ,
        )
        return _USUAL_HZ
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not 0 < said < float("inf"):
        raise ConfigError(f"control_hz must be a positive number of actions a second, but got {said!r}")
    return float(said)


def safe_action(config: dict[str, Any], policy: "ChunkPolicy") -> "FloatArray | None":
    """Returns the setting of that name, (*Da)."""
    said = config["safe_action"]
    if said is None:
        return None
    try:
        return np.asarray(said, np.float32).reshape(policy.action_spec.shape)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"safe_action must be {policy.action_spec.shape} numbers, but got {said}") from error
