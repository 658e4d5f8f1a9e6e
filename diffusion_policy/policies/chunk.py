"""The seam between a policy and whoever runs it: NumPy observations and noise in, an action chunk out.

Letters: B batch, To/Ta/Tp = obs_horizon/action_horizon/pred_horizon, Da the axes of one action.
"""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.config import ActionSpec, Horizons, ObsSpec

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
ArrayT = TypeVar("ArrayT")


@dataclass(frozen=True, eq=False)
class ActionChunk(Generic[ArrayT]):
    """What a policy answers, in the environment's units; NumPy arrays or tensors, as the question was.

    Args:
        actions: (B, Ta, *Da), to be executed from now on: `prediction[:, To - 1 : To - 1 + Ta]`.
        prediction: (B, Tp, *Da), everything that was predicted; its first step belongs to the oldest observation.
    """

    actions: ArrayT
    prediction: ArrayT

    @classmethod
    def of(cls, prediction: Any, horizons: Horizons) -> "ActionChunk[Any]":
        """Returns a prediction with the part of it that is to be executed."""
        first = horizons.start
        return cls(actions=prediction[:, first : first + horizons.action_horizon], prediction=prediction)


class ChunkPolicy(Protocol):
    """What a controller drives: stateless, in NumPy, whatever engine computes it."""

    @property
    def obs_spec(self) -> ObsSpec:
        """The observations that `predict` reads."""

    @property
    def action_spec(self) -> ActionSpec:
        """Shape, bounds and units of one action."""

    @property
    def horizons(self) -> Horizons:
        """To, Ta and Tp."""

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of one row's standard-normal noise: (Tp, Da) for DDIM, (1 + N, Tp, Da) for DDPM with N steps."""

    def predict(self, obs: dict[str, Array], noise: FloatArray | None) -> ActionChunk[Array]:
        """Returns one chunk a row.

        Args:
            obs: {key: (B, To, *shape)}, float32 or, for images, uint8.
            noise: (B, *noise_shape) float32; None lets the policy draw its own.
        """


@dataclass(frozen=True, eq=False)
class KnownActions:
    """Actions that a prediction should agree with.

    Args:
        actions: (B, Tp, *Da) float32 in env units, finite everywhere.
        weight: (B, Tp) float32 in [0, 1]: 1 for actions that will be executed whatever is predicted, 0 for free ones.
    """

    actions: FloatArray
    weight: FloatArray


@runtime_checkable
class GuidedChunkPolicy(ChunkPolicy, Protocol):
    """A policy that can be held to actions that are known already."""

    def predict_guided(
        self, obs: dict[str, Array], noise: FloatArray | None, known: KnownActions
    ) -> ActionChunk[Array]:
        """Returns one chunk a row that agrees with the known actions, and is likely elsewhere.

        Args:
            obs: see `predict`.
            noise: see `predict`.
            known: of these rows.

        Raises:
            ConfigError: this policy, or the engine that computes it, cannot be guided.
        """


def clipped(actions: FloatArray, action_spec: ActionSpec) -> FloatArray:
    """Returns actions (..., *Da) within the bounds of a schema that has both, and as they are where it has not."""
    bounds = action_spec.bounds()
    if bounds is None:
        return actions
    low, high = (np.array(bound, np.float32).reshape(action_spec.shape) for bound in bounds)
    found: FloatArray = np.clip(actions, low, high)
    return found


def blank_windows(policy: ChunkPolicy, rows: int) -> dict[str, Array]:
    """Returns observations {key: (B, To, *shape)} of zeros that a policy accepts, B = rows."""
    return {
        key: np.zeros((rows, policy.horizons.obs_horizon, *field.shape), np.uint8 if field.is_picture else np.float32)
        for key, field in policy.obs_spec.items()
    }
