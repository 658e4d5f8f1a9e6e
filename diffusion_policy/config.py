"""The small types that every room shares: fields of observations, actions, horizons. Standard library only.

Letters: To = obs_horizon, Ta = action_horizon, Tp = pred_horizon (steps of the environment's control rate).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from diffusion_policy.errors import ConfigError
from diffusion_policy.settings import build


@dataclass(frozen=True)
class ObsField:
    """One entry of an observation: the only notion of modality in this package.

    Args:
        type: "low_dim" for vectors, "rgb" for HWC uint8 images, or any name with a registered sub-encoder.
        shape: shape of one step, without time and batch.
        unit: for people ("px", "m", "rad").
        source: the name in a data set that does not use the field's own name, optionally with a slice of its
            last axis: "keypoint", "state[0:2]".
    """

    type: str
    shape: tuple[int, ...]
    unit: str = ""
    source: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if any(n < 1 for n in self.shape):
            raise ConfigError(f"shape of an observation must be positive, but got {self.shape}")

    @property
    def size(self) -> int:
        """Numbers in one step of the field."""
        return math.prod(self.shape)

    @property
    def is_picture(self) -> bool:
        """Whether its steps are uint8 pictures, which are kept as such and may stay on the disk."""
        return self.type == "rgb"


ObsSpec = dict[str, ObsField]


def obs_spec_from(settings: Mapping[str, Any]) -> ObsSpec:
    """Returns the observation schema of a task's `obs:` section.

    Raises:
        ConfigError: the section is empty or an entry has unknown keys.
    """
    if not settings:
        raise ConfigError("obs: expected at least one field, e.g. {agent_pos: {type: low_dim, shape: [2]}}, got none")
    return {str(key): build(ObsField, entry, f"obs.{key}") for key, entry in settings.items()}


@dataclass(frozen=True)
class ActionSpec:
    """What a policy sends to the robot.

    Args:
        shape: shape of one action; flattened to Da numbers inside the network.
        low: lower bound for each of the Da numbers, or one number for all, or None where there is none.
        high: upper bound, likewise.
        unit: for people ("px", "m", "Nm").
        names: one name a number, for plots and logs.
        kind: "absolute" (a target) or "delta" (a change).
        source: dataset keys that make up the action, concatenated in this order.
    """

    shape: tuple[int, ...]
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    unit: str = ""
    names: tuple[str, ...] = ()
    kind: Literal["absolute", "delta"] = "absolute"
    source: str | tuple[str, ...] = ("action",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if isinstance(self.source, str):
            object.__setattr__(self, "source", (self.source,))
        for name in ("low", "high", "names", "source"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
            if name != "source" and isinstance(value, Sequence) and value and len(value) != self.size:
                raise ConfigError(f"action.{name} must have {self.size} entries (shape {self.shape}), but got {value}")
        if not self.shape or any(n < 1 for n in self.shape):
            raise ConfigError(f"action.shape must have at least one axis, all positive, but got {self.shape}")
        if self.kind not in ("absolute", "delta"):
            raise ConfigError(f"action.kind must be absolute or delta, but got '{self.kind}'")

    @property
    def size(self) -> int:
        """Da: numbers in one action."""
        return math.prod(self.shape)

    def bounds(self) -> tuple[list[float], list[float]] | None:
        """Returns (low, high), Da numbers each, or None unless both are given."""
        if self.low is None or self.high is None:
            return None

        def spread(value: float | tuple[float, ...]) -> list[float]:
            return [float(value)] * self.size if isinstance(value, (int, float)) else [float(v) for v in value]

        return spread(self.low), spread(self.high)


def action_spec_from(settings: Mapping[str, Any]) -> ActionSpec:
    """Returns the action schema of a task's `action:` section."""
    return build(ActionSpec, settings, "action")


@dataclass(frozen=True)
class Horizons:
    """How many steps a policy sees, executes and predicts; see `timeline` for how they lie.

    Args:
        obs_horizon: To, observations seen, the last of them is now.
        action_horizon: Ta, actions executed before the next prediction.
        pred_horizon: Tp, actions predicted; the first belongs to the oldest observation.

    Raises:
        ConfigError: the executed actions do not lie inside the predicted ones.
    """

    obs_horizon: int
    action_horizon: int
    pred_horizon: int

    def __post_init__(self) -> None:
        for name in ("obs_horizon", "action_horizon", "pred_horizon"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a positive whole number, but got {value!r}")
        longest = self.pred_horizon - self.obs_horizon + 1
        if not 1 <= self.action_horizon <= longest:
            allowed = f"in [1, {longest}]" if longest >= 1 else "impossible"
            drawing = "\n" + self.timeline() if self.pred_horizon + self.action_horizon <= 64 else ""
            raise ConfigError(
                f"action_horizon must be {allowed} (pred_horizon {self.pred_horizon} - obs_horizon "
                f"{self.obs_horizon} + 1), but got {self.action_horizon}; raise pred_horizon or lower the others"
                + drawing
            )

    @property
    def start(self) -> int:
        """Index in the prediction of the first executed action: the one for now."""
        return self.obs_horizon - 1

    def timeline(self) -> str:
        """Returns three lines that draw which steps are seen, predicted and executed (0 is now).

        For To 2, Ta 3, Tp 6 (`o` seen, `p` predicted only, `A` executed):

            step        -1  0  1  2  3  4
            observation  o  o
            action       p  A  A  A  p  p
        """
        first = -self.start
        last = max(self.pred_horizon, self.start + self.action_horizon) + first
        steps = range(first, last)

        def action(step: int) -> str:
            predicted = step - first < self.pred_horizon
            executed = 0 <= step < self.action_horizon
            return ("A" if predicted else "!") if executed else ("p" if predicted else " ")

        rows = {
            "step": [str(s) for s in steps],
            "observation": ["o" if s <= 0 else " " for s in steps],
            "action": [action(s) for s in steps],
        }
        return "\n".join(f"{name:<12}" + "".join(f"{c:>3}" for c in row).rstrip() for name, row in rows.items())
