"""Actions with times, and the question that a policy is asked to get them.

Letters: Tp pred_horizon, Da the axes of one action, N actions of a plan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_policy.errors import CheckpointError, ConfigError
from diffusion_policy.policies.chunk import (
    Array,
    ChunkPolicy,
    FloatArray,
    GuidedChunkPolicy,
    KnownActions,
    blank_windows,
    clipped,
)

_ROUNDING = 1e-3
"""Part of a step by which a time may be short of a boundary and still count as there: seconds since 1970 have seven
digits behind the point, and sums of steps round."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Actions one step apart, the first of them for the moment it was planned from.

    Args:
        start_s: when the first action is to be sent, seconds: the time of the observation that it rests on, or of its
            arrival where the robot waited for it; see `TimedController.accept`.
        step_s: seconds from one action to the next.
        actions: (N, *Da) in env units.
        ready_s: when it was there; later than `observed_s` by the time that planning took.
        observed_s: time of the newest observation that it rests on; NaN becomes `start_s`.
    """

    start_s: float
    step_s: float
    actions: FloatArray
    ready_s: float
    observed_s: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.observed_s):
            object.__setattr__(self, "observed_s", self.start_s)

    @property
    def end_s(self) -> float:
        """When it has no action any more."""
        return self.start_s + len(self.actions) * self.step_s

    def index(self, time_s: float) -> int:
        """Returns the number of the action for a time; negative before the first, N or more behind the last."""
        return math.floor((time_s - self.start_s) / self.step_s + _ROUNDING)

    def covers(self, time_s: float) -> bool:
        """Whether it has an action for a time."""
        return 0 <= self.index(time_s) < len(self.actions)

    def find(self, time_s: float) -> FloatArray | None:
        """Returns the action for a time (*Da), None where it does not cover it."""
        index = self.index(time_s)
        return self.actions[index] if 0 <= index < len(self.actions) else None

    def remaining(self, time_s: float) -> int:
        """Returns how many actions are still to come at a time, that of now included."""
        return int(min(len(self.actions), max(0, len(self.actions) - self.index(time_s))))


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """What is asked of a policy: everything that the answer depends on, so that anybody may compute it anywhere.

    Args:
        observed_s: time of the newest observation in it.
        window: {key: (To, *shape)}.
        noise: (*noise_shape,).
        known: of one row, actions that the plan should agree with; None where it is free.
        episode: in which it was asked; answers of another one are worth nothing.
    """

    observed_s: float
    window: dict[str, Array]
    noise: FloatArray
    known: KnownActions | None = None
    episode: int = 0


def answers(policy: ChunkPolicy, requests: Sequence[PlanRequest], batch_size: int | None = None) -> list[FloatArray]:
    """Returns what a policy predicts for requests, (Tp, *Da) each.

    Args:
        policy: what predicts; guided requests need a `GuidedChunkPolicy`.
        requests: all guided, or none.
        batch_size: rows of each call, filled by repeating the last one; None for as many as are asked. Rows of batches
            of different size differ in their last digits.

    Raises:
        ConfigError: the policy cannot be guided, or some requests are guided and some not.
        CheckpointError: an answer is not finite.
    """
    guided = {request.known is not None for request in requests}
    if len(guided) > 1:
        raise ConfigError("requests of one call must all be guided, or none; ask in two calls")
    size = batch_size or max(1, len(requests))
    found: list[FloatArray] = []
    for first in range(0, len(requests), size):
        some = requests[first : first + size]
        padded = [*some, *[some[-1]] * (size - len(some))]
        found += list(_predictions(policy, padded)[: len(some)])
    return found


def planned_actions(prediction: FloatArray, policy: ChunkPolicy) -> FloatArray:
    """Returns the actions of a plan from now on, (N, *Da), within the action's bounds.

    Args:
        prediction: (Tp, *Da) in env units.
        policy: whose it is.

    Raises:
        CheckpointError: it has another shape, or is not finite.
    """
    expected = (policy.horizons.pred_horizon, *policy.action_spec.shape)
    found = np.asarray(prediction, np.float32)
    if found.shape != expected or not np.isfinite(found).all():
        raise CheckpointError(f"expected {expected} finite numbers as a plan, but got {found.shape}: {found}")
    return clipped(found[policy.horizons.start :], policy.action_spec)


def warm_up_guidance(policy: ChunkPolicy) -> None:
    """Asks for a guided chunk of nothing: later ones take no longer then, or it is known at once that there are none.

    Raises:
        ConfigError: the policy cannot be guided.
    """
    Tp, shape = policy.horizons.pred_horizon, policy.action_spec.shape
    known = KnownActions(np.zeros((1, Tp, *shape), np.float32), np.zeros((1, Tp), np.float32))
    window = {key: array[0] for key, array in blank_windows(policy, 1).items()}
    for _ in range(2):
        answers(policy, [PlanRequest(0.0, window, np.zeros(policy.noise_shape, np.float32), known)])


def _predictions(policy: ChunkPolicy, requests: Sequence[PlanRequest]) -> FloatArray:
    """Returns (B, Tp, *Da)."""
    obs = {key: np.stack([request.window[key] for request in requests]) for key in policy.obs_spec}
    noise = np.stack([request.noise for request in requests])
    known = [request.known for request in requests if request.known is not None]
    if not known:
        found = policy.predict(obs, noise).prediction
    elif isinstance(policy, GuidedChunkPolicy):
        actions, weight = (np.concatenate([getattr(each, name) for each in known]) for name in ("actions", "weight"))
        found = policy.predict_guided(obs, noise, KnownActions(actions, weight)).prediction
    else:
        raise ConfigError(
            f"{type(policy).__name__} cannot be guided by known actions; load a diffusion policy's policy.pt, or "
            f"choose another strategy"
        )
    if not np.isfinite(found).all():
        raise CheckpointError(
            "the policy predicted actions that are not finite; its weights or normaliser are damaged, load an earlier "
            "checkpoint"
        )
    return np.asarray(found, np.float32)
