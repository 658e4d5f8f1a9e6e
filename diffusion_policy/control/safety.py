"""What a robot must never be told, and what happens instead: limits, rates, stale or strange observations.

Every rule has a reaction and a counter. `clip` sends the nearest permitted action. `hold` keeps the robot where it is:
the last action again, or none where actions are changes (`kind: delta`). `stop` goes to the safe action, no faster than
the rate permits, or holds where there is none, until somebody says `release`. Nothing here raises: a robot needs an
action at every tick.

Letters: Da the axes of one action.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import Array, FloatArray

OnAction = Literal["clip", "hold", "stop"]
OnInput = Literal["count", "hold", "stop"]

_ROUNDING = 1e-6
"""Of a range, by which float32 may miss a bound that was met."""


@dataclass(frozen=True, eq=False)
class SafetyConfig:
    """The rules. Numbers stand for all dimensions, sequences (*Da) for each.

    Args:
        low: least action permitted, in the action's unit; None: the action's own bound, if it has one.
        high: greatest action permitted.
        rate: greatest change from one `action_at` to the next, in the action's unit; None: any.
        observed: {key: (low, high)} of observations seen in training, numbers or (*shape); other keys are not looked
            at.
        stale_s: age of the newest observation beyond which actions no longer rest on what is; None: any.
        on_limit: where an action is beyond its limits.
        on_rate: where it changes too fast.
        on_range: where an observation is outside of what was seen in training; `count` only counts.
        on_nan: where an observation is not finite. It is never taken: the ones before stand.
        on_stale: where observations ceased to come.
    """

    low: Any = None
    high: Any = None
    rate: Any = None
    observed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    stale_s: float | None = None
    on_limit: OnAction = "clip"
    on_rate: OnAction = "clip"
    on_range: OnInput = "count"
    on_nan: OnInput = "hold"
    on_stale: OnInput = "hold"

    def __post_init__(self) -> None:
        for name in ("on_limit", "on_rate", "on_range", "on_nan", "on_stale"):
            known = ("clip" if name in ("on_limit", "on_rate") else "count", "hold", "stop")
            if getattr(self, name) not in known:
                raise ConfigError(f"safety.{name}: expected {', '.join(known)}, but got {getattr(self, name)!r}")
        if self.stale_s is not None and not self.stale_s > 0:
            raise ConfigError(f"safety.stale_s must be positive seconds, or None, but got {self.stale_s!r}")


@dataclass
class SafetyCounts:
    """How often each rule was broken.

    Args:
        limit: actions beyond their limits.
        rate: actions that changed too fast.
        range: observations outside of what was seen in training.
        nan: observations that were not finite.
        stale: actions for which observations had ceased to come.
        stopped: actions sent while stopped.
    """

    limit: int = 0
    rate: int = 0
    range: int = 0
    nan: int = 0
    stale: int = 0
    stopped: int = 0

    def to_dict(self) -> dict[str, int]:
        """Returns the counts by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


class Guard:
    """Applies the rules to one robot's observations and actions.

    Args:
        config: the rules.
        obs_spec: of the observations.
        action_spec: of the actions; its bounds hold where the rules name none.
        safe_action: what is sent while stopped; None: what holds.

    Attributes:
        counts: what happened so far.
        stopped: why nothing but the safe action is sent; None while all is well.

    Raises:
        ConfigError: a limit has another shape than the action, is not finite, or leaves nothing permitted.
    """

    def __init__(
        self, config: SafetyConfig, obs_spec: ObsSpec, action_spec: ActionSpec, safe_action: FloatArray | None = None
    ) -> None:
        self.config, self.counts = config, SafetyCounts()
        self.stopped: str | None = None
        self._safe, self._delta = safe_action, action_spec.kind == "delta"
        bounds = action_spec.bounds() or (None, None)
        self._low = _limit("low", config.low, bounds[0], action_spec.shape, -np.inf)
        self._high = _limit("high", config.high, bounds[1], action_spec.shape, np.inf)
        if (self._low > self._high).any():
            raise ConfigError(f"safety: low {config.low} is above high {config.high} in some dimension")
        self._rate = _limit("rate", config.rate, None, action_spec.shape, np.inf)
        if (self._rate < 0).any():
            raise ConfigError(f"safety.rate must be 0 or more, but got {config.rate}")
        if safe_action is not None and (self._beyond(safe_action)).any():
            raise ConfigError(f"safe_action must be within the limits, but got {safe_action}")
        self._ranges = {
            key: tuple(_range(key, side, obs_spec) for side in sides) for key, sides in config.observed.items()
        }

    def admits(self, obs: Mapping[str, Array]) -> bool:
        """Whether an observation may be taken; counts and reacts where it is not finite or was never seen the like.

        Args:
            obs: {key: (*shape)}, checked for keys, shapes and dtypes.
        """
        finite = all(np.isfinite(value).all() for value in obs.values() if value.dtype.kind == "f")
        if not finite:
            self.counts.nan += 1
            self._maybe_stop(self.config.on_nan, "an observation was not finite")
            return False
        for key, (low, high) in self._ranges.items():
            value = obs[key].astype(np.float64)
            slack = _ROUNDING * (high - low)
            if ((value < low - slack) | (value > high + slack)).any():
                self.counts.range += 1
                self._maybe_stop(self.config.on_range, f"observation '{key}' was outside of what training had")
                return self.config.on_range == "count"
        return True

    def permitted(self, action: FloatArray, last: FloatArray | None, age_s: float) -> FloatArray:
        """Returns what is sent instead of an action: itself where every rule is kept.

        Args:
            action: (*Da), what is wanted.
            last: what was sent before, which was permitted; None for the first.
            age_s: of the newest observation.
        """
        held = self.held(action if last is None else last)
        if self.config.stale_s is not None and age_s > self.config.stale_s:
            self.counts.stale += 1
            self._maybe_stop(self.config.on_stale, f"the newest observation was {age_s:.3g} s old")
            if self.config.on_stale == "hold":
                action = held
        if not np.isfinite(action).all() or self._beyond(action).any():
            self.counts.limit += 1
            self._maybe_stop(self.config.on_limit, "an action was beyond its limits")
            action = action if self.config.on_limit == "clip" and np.isfinite(action).all() else held
        if last is not None and self.stopped is None and self._is_fast(action, last):
            self.counts.rate += 1
            self._maybe_stop(self.config.on_rate, "an action changed too fast")
            action = action if self.config.on_rate == "clip" else held
        if self.stopped is not None:
            self.counts.stopped += 1
            action = held if self._safe is None else self._safe
        return self._within(action, last)

    def held(self, last: FloatArray) -> FloatArray:
        """Returns what keeps a robot where it is, the last action having been `last`."""
        return np.zeros_like(last) if self._delta else last

    def release(self) -> None:
        """Lets actions through again after a stop."""
        self.stopped = None

    def _within(self, action: FloatArray, last: FloatArray | None) -> FloatArray:
        """Returns the nearest action that is finite, within its limits and, where possible, its rate."""
        found = np.nan_to_num(action)
        if last is not None:  # exactly what was wanted where that is slow enough: a sum would round
            slow = last + np.clip(found - last, -self._rate, self._rate)
            found = np.where(np.abs(found - last) > self._rate, slow, found)
        return np.clip(found, self._low, self._high).astype(np.float32)

    def _is_fast(self, action: FloatArray, last: FloatArray) -> bool:
        return bool((np.abs(action - last) > self._rate * (1 + _ROUNDING)).any())

    def _beyond(self, action: FloatArray) -> Array:
        beyond: Array = (action < self._low) | (action > self._high)
        return beyond

    def _maybe_stop(self, reaction: str, reason: str) -> None:
        if reaction == "stop" and self.stopped is None:
            self.stopped = reason


def _limit(name: str, given: Any, bound: Any, shape: tuple[int, ...], otherwise: float) -> FloatArray:
    """Returns a limit (*Da), the tighter of the given one and the action's own bound."""
    if given is None and bound is None:
        return np.full(shape, otherwise, np.float32)
    own = None if bound is None else np.asarray(bound, np.float32).reshape(shape)
    if given is None:
        assert own is not None
        return own
    try:
        wanted = np.broadcast_to(np.asarray(given, np.float32), shape)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"safety.{name}: expected a number, or {shape} of them, but got {given!r}") from error
    if np.isnan(wanted).any():
        raise ConfigError(f"safety.{name} must be numbers, but got {given!r}")
    if own is None:
        return wanted.copy()
    tighter: FloatArray = np.maximum(wanted, own) if name == "low" else np.minimum(wanted, own)
    return tighter


def _range(key: str, side: Any, obs_spec: ObsSpec) -> Array:
    """Returns one end of the range of an observation, (*shape)."""
    if key not in obs_spec:
        raise ConfigError(f"safety.observed: no observation '{key}', known: {', '.join(obs_spec)}")
    try:
        return np.broadcast_to(np.asarray(side, np.float64), obs_spec[key].shape)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"safety.observed.{key}: expected a number, or {obs_spec[key].shape} of them, but got {side!r}"
        ) from error
