"""Who keeps the rules of safety: what an observation or an action becomes where one is broken.

Letters: Da the axes of one action.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.control.safety import SafetyConfig, SafetyCounts
from diffusion_policy.errors import ConfigError, ObservationError
from diffusion_policy.policies.chunk import Array, FloatArray

_ROUNDING = 1e-6
"""Of a range, by which float32 may miss a bound that was met."""


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
        low: (*Da), the least action permitted, the tighter of rule and bound; -inf where there is neither.
        high: (*Da), the greatest.
        rate: (*Da), the greatest change a second.

    Raises:
        ConfigError: a limit has another shape than the action, is not finite, or leaves nothing permitted; or the
            limits of changes (`kind: delta`) exclude 0, without which such a robot cannot be held.
    """

    def __init__(
        self, config: SafetyConfig, obs_spec: ObsSpec, action_spec: ActionSpec, safe_action: FloatArray | None = None
    ) -> None:
        self.config, self.counts = config, SafetyCounts()
        self.stopped: str | None = None
        self._delta = action_spec.kind == "delta"
        bounds = action_spec.bounds() or (None, None)
        self.low = _limit("low", config.low, bounds[0], action_spec.shape, -np.inf)
        self.high = _limit("high", config.high, bounds[1], action_spec.shape, np.inf)
        if (self.low > self.high).any():
            raise ConfigError(f"safety: low {config.low} is above high {config.high} in some dimension")
        if self._delta and ((self.low > 0) | (self.high < 0)).any():
            raise ConfigError(
                f"safety: limits of actions that are changes must permit 0, which holds the robot, but got low "
                f"{self.low} and high {self.high}; widen them"
            )
        self.rate = _limit("rate", config.rate, None, action_spec.shape, np.inf)
        self._is_rated = bool(np.isfinite(self.rate).any())
        self._boundless = np.full(action_spec.shape, np.inf)
        self._lowest = np.nextafter(self.low, np.float32(-np.inf))  # as float32 may round a bound
        self._highest = np.nextafter(self.high, np.float32(np.inf))
        if (self.rate < 0).any():
            raise ConfigError(f"safety.rate must be 0 or more, but got {config.rate}")
        if safe_action is not None and (self._beyond(safe_action)).any():
            raise ConfigError(f"safe_action must be within the limits, but got {safe_action}")
        self._safe = None if safe_action is None else np.clip(safe_action, self.low, self.high)
        self._ranges = {
            key: (_range(key, sides[0], obs_spec), _range(key, sides[1], obs_spec))
            for key, sides in config.observed.items()
        }
        for key, (low, high) in self._ranges.items():
            if (low > high).any():
                raise ConfigError(f"safety.observed.{key}: low {low} is above high {high}")

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
            known = np.isfinite(low) & np.isfinite(high)
            slack = _ROUNDING * np.maximum(np.abs(low), np.abs(high), where=known, out=np.ones_like(low))
            if ((value < low - slack) | (value > high + slack)).any():
                self.counts.range += 1
                self._maybe_stop(self.config.on_range, f"observation '{key}' was outside of what training had")
                return self.config.on_range == "count"
        return True

    def permitted(
        self,
        action: FloatArray | None,
        last: FloatArray | None,
        age_s: float,
        elapsed_s: float,
        *,
        starved: bool = True,
    ) -> FloatArray:
        """Returns what is sent instead of an action: itself where every rule is kept.

        It is within the limits. One exception: where `last` is beyond them, since that is where the robot stands, and
        there is a rate, it is led back no faster than the rate; nothing leads it further out.

        Args:
            action: (*Da), what is wanted; None where no plan has one.
            last: what was sent before, or where the robot stands; None where nobody knows.
            age_s: of the newest observation.
            elapsed_s: since `last` was sent.
            starved: whether no action means that plans ceased to come; False before the first one of an episode.

        Raises:
            ObservationError: there is nothing to hold yet: no action was sent, and no safe action is known.
        """
        if action is None:
            self._maybe_stop(self.config.on_starved if starved else "hold", "no plan had an action")
        elif self.config.stale_s is not None and not age_s <= self.config.stale_s:
            self.counts.stale += 1
            self._maybe_stop(self.config.on_stale, f"the newest observation was {age_s:.3g} s old")
            action = None if self.config.on_stale == "hold" else action
        if action is not None and self._beyond(action).any():
            self.counts.limit += 1
            self._maybe_stop(self.config.on_limit, "an action was beyond its limits")
            action = np.clip(action, self.low, self.high) if self.config.on_limit == "clip" else None
        reach = self._reach(elapsed_s)
        moves = self._is_rated and self.stopped is None
        if moves and action is not None and last is not None and _fast(action, last, reach).any():
            self.counts.rate += 1
            self._maybe_stop(self.config.on_rate, "an action changed too fast")
            action = action if self.config.on_rate == "clip" else None
        if self.stopped is not None:
            self.counts.stopped += 1
            action = self._safe
        if action is None:
            return self._held(last, reach)
        return self._within(action, last, reach)

    def foreseen(self, actions: FloatArray, last: FloatArray | None, ages_s: Array, step_s: float) -> FloatArray:
        """Returns what may be sent of actions that follow each other (N, *Da), within the limits; counts nothing.

        Fewer than N where a rule would hold or stop the robot: those before. Rates are kept by whoever sends them: they
        count from what is sent.

        Args:
            actions: (N, *Da), what will be wanted.
            last: what is sent before the first; None where nobody knows.
            ages_s: (N,), of the newest observation by then.
            step_s: seconds from one to the next.
        """
        ends = np.full(len(actions), self.stopped is not None)
        if self.config.stale_s is not None:
            ends |= ~(ages_s <= self.config.stale_s) & (self.config.on_stale != "count")
        if self.config.on_limit != "clip":
            ends |= _any(self._beyond(actions))
        if self.config.on_rate != "clip":
            before = np.concatenate([actions[:1] if last is None else last[None], actions[:-1]])
            ends |= _any(_fast(actions, before, self._reach(step_s)))
        return np.clip(actions[: int(ends.argmax()) if ends.any() else len(ends)], self.low, self.high)

    def _reach(self, elapsed_s: float) -> Array:
        """Returns by how much an action may change after a time (*Da)."""
        if not self._is_rated:
            return self._boundless
        reach = self._boundless.copy()
        np.multiply(self.rate, max(0.0, elapsed_s), out=reach, where=np.isfinite(self.rate), dtype=np.float64)
        return reach

    def _held(self, last: FloatArray | None, reach: Array) -> FloatArray:
        """Returns what keeps a robot where it is, or where that is not permitted brings it back.

        Raises:
            ObservationError: nothing was sent yet, and there is no safe action.
        """
        if last is not None:
            return np.zeros_like(last) if self._delta else self._within(last, last, reach)
        if self._safe is None:
            raise ObservationError(
                "there is no action to send yet; observe and plan first, or give the controller a safe_action"
            )
        return self._safe

    def release(self) -> None:
        """Lets actions through again after a stop."""
        self.stopped = None

    def _within(self, action: FloatArray, last: FloatArray | None, reach: Array) -> FloatArray:
        """Returns the nearest action within its limits and its rate; see `permitted` for where these contradict."""
        found, low, high = np.asarray(action, np.float64), self.low, self.high
        if last is not None and self._is_rated:
            before = last.astype(np.float64)
            if self._delta:  # a change says nothing about where the robot stands
                before = np.clip(before, low, high)
            # exactly what was wanted where that is slow enough: a sum would round
            found = np.where(_fast(action, before, reach), before + np.clip(found - before, -reach, reach), found)
            low = np.minimum(low, (before + reach).astype(np.float32))
            high = np.maximum(high, (before - reach).astype(np.float32))
        return np.clip(found.astype(np.float32), low, high)

    def _beyond(self, action: FloatArray) -> Array:
        """Returns where an action breaks its limits, not only by how float32 rounds a bound that it was clipped to."""
        beyond: Array = ~((action >= self._lowest) & (action <= self._highest))
        return beyond

    def _maybe_stop(self, reaction: str, reason: str) -> None:
        if reaction == "stop" and self.stopped is None:
            self.stopped = reason


def _any(broken: Array) -> Array:
    """Returns for which actions (N, *Da) a rule is broken in some dimension, (N,)."""
    found: Array = np.asarray(broken.reshape(len(broken), -1).any(1))
    return found


def _fast(action: FloatArray, last: Array, reach: Array) -> Array:
    """Returns where an action changes by more than its reach, and more than float32 rounds."""
    slack = 4 * np.finfo(np.float32).eps * np.maximum(np.abs(action), np.abs(last))
    fast: Array = np.abs(action.astype(np.float64) - last) > reach + slack
    return fast


def _limit(name: str, given: Any, bound: Any, shape: tuple[int, ...], otherwise: float) -> FloatArray:
    """Returns a limit (*Da), the tighter of the given one and the action's own bound.

    In float32 it is never beyond what was asked: 0.1 becomes the float32 below it where it is an upper limit.
    """
    inward = np.inf if name == "low" else -np.inf
    found = np.full(shape, otherwise, np.float64)
    for value in (each for each in (bound, given) if each is not None):
        try:
            wanted = np.asarray(value, np.float64)
            wanted = wanted.reshape(shape) if wanted.size == found.size else np.broadcast_to(wanted, shape)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"safety.{name}: expected a number, or {shape} of them, but got {value!r}") from error
        if np.isnan(wanted).any() or (wanted == inward).any():
            raise ConfigError(f"safety.{name} must be numbers that permit something, but got {value!r}")
        found = np.maximum(found, wanted) if name == "low" else np.minimum(found, wanted)
    rounded = found.astype(np.float32)
    beyond = rounded < found if name == "low" else rounded > found
    tight: FloatArray = np.where(beyond, np.nextafter(rounded, np.float32(inward)), rounded).astype(np.float32)
    return tight


def _range(key: str, side: Any, obs_spec: ObsSpec) -> Array:
    """Returns one end of the range of an observation, (*shape)."""
    if key not in obs_spec:
        raise ConfigError(f"safety.observed: no observation '{key}', known: {', '.join(obs_spec)}")
    try:
        found = np.broadcast_to(np.asarray(side, np.float64), obs_spec[key].shape)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"safety.observed.{key}: expected a number, or {obs_spec[key].shape} of them, but got {side!r}"
        ) from error
    if np.isnan(found).any():
        raise ConfigError(f"safety.observed.{key} must be numbers, but got {side!r}")
    return found
