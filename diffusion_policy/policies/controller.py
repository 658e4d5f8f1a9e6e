"""Receding horizon: execute the first part of a chunk, then ask again. This is what a robot runs.

Imports NumPy and the standard library only; the engine that computes the policy (torch, ...) is imported by the
kind of the file that is loaded.

Letters: E envs (or robots), R slots that need a prediction, B batch of a policy call, To/Ta/Tp =
obs_horizon/action_horizon/pred_horizon, Da the axes of one action.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError, ObservationError
from diffusion_policy.policies.chunk import ActionChunk, Array, ChunkPolicy, FloatArray, blank_windows, clipped
from diffusion_policy.policies.episode_slots import EpisodeSlots
from diffusion_policy.policies.observation_check import check_finite, check_observation

ENGINES = {
    ".pt": "diffusion_policy.policies.engines.eager:load_chunk_policy",
    ".pt2": "diffusion_policy.policies.engines.aoti:load_chunk_policy",
    ".onnx": "diffusion_policy.policies.engines.onnx:load_chunk_policy",
}
"""Kind of policy file -> "module:function" that loads it: (path, device, precision or None) -> ChunkPolicy."""

_WARM_UP_CALLS = 2  # the first one allocates and chooses kernels, the second shows that it is over

_LATENCIES_KEPT = 100_000  # a robot runs for days; the log must not grow with it


def policy_file(path: str | Path) -> Path:
    """Returns where a policy's file is.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: no engine is known for this kind of file.
    """
    file = Path(path).expanduser()
    if file.suffix not in ENGINES:
        raise CheckpointError(
            f"no engine runs a policy file of kind '{file.suffix}' ({file}), known: {', '.join(ENGINES)}"
        )
    if not file.is_file():
        raise MissingFileError(f"policy file {file} does not exist; dp-train writes one as <out>/policy.pt")
    return file


class RecedingHorizonController:
    """Holds the observation window and the action queue of E slots, and asks the policy when a queue is empty.

    Observations come in and actions go out in the environment's units. One slot serves one robot or env, and its
    noise comes from its own generator, so that an episode does not depend on what runs beside it.

    Predicted actions are clipped to the bounds of `action_spec` when it has both, and sent as predicted when not.

    Args:
        policy: what predicts; see `ChunkPolicy`.
        num_envs: E; None takes it from the first observation after each `reset()`.
        batch_size: B, to which every policy call is padded (its last row repeated) or cut. Rows computed in
            batches of different size differ in the last digits; with one size, an episode is the same bit for bit
            whatever E is. None asks for as many rows as are needed: the fastest on a robot.
        seeds: as in `reset`, for the first episode.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        *,
        num_envs: int | None = None,
        batch_size: int | None = None,
        seeds: int | Sequence[int] | None = None,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, or None, but got {value}")
        self.policy = policy
        self.batch_size = batch_size
        self.path: Path | None = None
        self.latencies_ms: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self.last_chunk: ActionChunk[Array] | None = None
        self.last_chunk_slots: Array = np.zeros(0, dtype=np.int64)
        self._declared_envs = num_envs
        self._seeds: list[int] | None = None
        self._slots: EpisodeSlots | None = None
        self.reset(seeds=seeds)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: object = "cpu",
        precision: str | None = None,
        num_envs: int | None = None,
        batch_size: int | None = None,
        seeds: int | Sequence[int] | None = None,
    ) -> "RecedingHorizonController":
        """Returns a controller for the policy in a file, warmed up: its first action takes no longer than later ones.

        Args:
            path: e.g. "policy.pt"; the suffix says which engine runs it.
            device: where the engine computes, e.g. "cpu", "cuda" or "cuda:1", or the engine's own kind of device.
            precision: of the arithmetic, float32 or bfloat16; None for float32, or what an exported file was made for.
            num_envs: see the class.
            batch_size: see the class.
            seeds: see the class.

        Raises:
            MissingFileError: there is no such file.
            CheckpointError: no engine is known for this kind of file, or its content is damaged.
            ConfigError: there is no such device or precision, or the engine is not installed.
        """
        file = policy_file(path)
        module, function = ENGINES[file.suffix].split(":")
        try:
            engine = import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{file} needs {error.name}: pip install {error.name}") from error
        policy = cast("ChunkPolicy", getattr(engine, function)(file, device, precision))
        for _ in range(_WARM_UP_CALLS):
            rows = batch_size or num_envs or 1
            policy.predict(blank_windows(policy, rows), np.zeros((rows, *policy.noise_shape), np.float32))
        controller = cls(policy, num_envs=num_envs, batch_size=batch_size, seeds=seeds)
        controller.path = file
        return controller

    @property
    def obs_spec(self) -> ObsSpec:
        """The observations that `act` reads."""
        return self.policy.obs_spec

    @property
    def action_spec(self) -> ActionSpec:
        """Shape, bounds and units of the actions that `act` returns."""
        return self.policy.action_spec

    @property
    def num_envs(self) -> int | None:
        """E, or None while nothing has told it."""
        if self._slots is not None:
            return self._slots.num_envs
        return self._declared_envs if self._seeds is None else len(self._seeds)

    @property
    def queued(self) -> Array:
        """(E,) actions that each slot can still send without a new prediction; E is 0 while it is unknown."""
        return np.zeros(self.num_envs or 0, dtype=np.int64) if self._slots is None else self._slots.left.copy()

    def upcoming(self, slot: int = 0) -> FloatArray:
        """Returns the actions (N, *Da) that a slot will still send without a new prediction, in their order."""
        return np.zeros((0, *self.action_spec.shape), np.float32) if self._slots is None else self._slots.upcoming(slot)

    @property
    def window(self) -> dict[str, Array]:
        """{key: (E, To, *shape)}, what each slot sees and saw, the newest last; empty before the first observation."""
        return {} if self._slots is None else dict(self._slots.window)

    def reset(self, mask: Array | Sequence[bool] | None = None, seeds: int | Sequence[int] | None = None) -> None:
        """Begins a new episode: windows and queues are emptied, the noise generators are made anew.

        Args:
            mask: (E,) bool, the slots concerned; None means all, and the number of envs may change.
            seeds: one number a slot (E of them even with a mask), which fixes all the noise of its episode; None
                draws fresh entropy.

        Raises:
            ConfigError: mask or seeds do not fit the number of envs.
        """
        numbers = None if seeds is None else _seed_list(seeds)
        envs = self._declared_envs if mask is None else self.num_envs
        if numbers is not None and envs is not None and len(numbers) != envs:
            raise ConfigError(f"seeds must be one number for each of the {envs} envs, but got {len(numbers)}")
        if mask is None:
            self._seeds, self._slots = numbers, None
            return
        if self._slots is None:
            raise ConfigError("reset(mask) needs running episodes, but there are none; call reset() and act() first")
        chosen = _mask("mask", mask, self._slots.num_envs)
        for slot in np.flatnonzero(chosen):
            self._slots.begin(int(slot), None if numbers is None else numbers[slot])

    def act(self, obs: object, *, active: Array | Sequence[bool] | None = None) -> FloatArray:
        """Returns the action of now for every env, in lock-step.

        The first observation of an episode fills the whole window. Slots whose queue is empty are predicted
        together. A refused observation changes nothing: send a good one and go on.

        Args:
            obs: {key: (*shape)} of one env, or {key: (E, *shape)}.
            active: (E,) bool; the other slots keep their state, are not looked at, cost nothing and get zeros.

        Returns:
            (*Da) float32 when `obs` has no env axis, else (E, *Da).

        Raises:
            ObservationError: wrong key, shape, dtype or number of envs, or a number that is not finite.
            CheckpointError: the policy predicted something that is not finite.
        """
        arrays, single = check_observation(obs, self.obs_spec)
        envs = len(next(iter(arrays.values())))
        self._check_envs(envs, single)
        rows = np.ones(envs, dtype=bool) if active is None else _mask("active", active, envs)
        check_finite(arrays, rows)

        horizons = self.policy.horizons
        slots = self._slots or EpisodeSlots(envs, single, self._seeds, horizons, self.action_spec)
        window = slots.advanced(arrays, rows)
        needy = np.flatnonzero(rows & (slots.left == 0))  # (R,)
        if len(needy):
            chunk = self._predict(
                {key: array[needy] for key, array in window.items()}, slots.noise(needy, self.policy.noise_shape)
            )
            slots.queue[needy] = chunk.actions
            slots.left[needy] = horizons.action_horizon
            self.last_chunk, self.last_chunk_slots = chunk, needy
        self._slots = slots
        slots.window = window
        slots.fresh &= ~rows
        actions = slots.pop(rows)  # (E, *Da)
        return cast("FloatArray", actions[0] if single else actions)

    def _check_envs(self, envs: int, single: bool) -> None:
        expected = self.num_envs
        if expected is not None and envs != expected:
            raise ObservationError(
                f"expected observations of {expected} envs, but got {envs}; call reset() before their number changes"
            )
        if self._slots is not None and self._slots.single != single:
            had = "no leading env axis" if self._slots.single else "a leading env axis"
            raise ObservationError(f"observations of this episode had {had}, keep it so or call reset() first")

    def _predict(self, obs: dict[str, Array], noise: FloatArray) -> ActionChunk[Array]:
        """Returns the chunks of R rows, asked for in pieces of B, clipped to the action's bounds."""
        rows = len(noise)
        size = self.batch_size or rows
        pieces = [self._call(obs, noise, np.arange(first, first + size)) for first in range(0, rows, size)]
        actions = np.concatenate([piece.actions for piece in pieces])[:rows]
        prediction = np.concatenate([piece.prediction for piece in pieces])[:rows]
        if not (np.isfinite(actions).all() and np.isfinite(prediction).all()):
            raise CheckpointError(
                "the policy predicted actions that are not finite; its weights or normaliser are damaged, load an "
                "earlier checkpoint"
            )
        return ActionChunk(actions=clipped(actions, self.action_spec), prediction=clipped(prediction, self.action_spec))

    def _call(self, obs: dict[str, Array], noise: FloatArray, rows: Array) -> ActionChunk[Array]:
        """Returns the policy's answer for the given rows, the last one standing in for those beyond the end."""
        rows = np.minimum(rows, len(noise) - 1)  # (B,)
        padded = {key: array[rows] for key, array in obs.items()}
        begin = time.perf_counter()
        chunk = self.policy.predict(padded, noise[rows])
        self.latencies_ms.append(1000 * (time.perf_counter() - begin))
        return chunk


def _seed_list(seeds: int | Iterable[int]) -> list[int]:
    numbers = [seeds] if isinstance(seeds, (int, np.integer)) else list(seeds)
    if not numbers or any(not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 0 for n in numbers):
        raise ConfigError(f"seeds must be whole numbers >= 0, one for each env, but got {numbers}")
    return [int(n) for n in numbers]


def _mask(name: str, mask: Array | Sequence[bool], num_envs: int) -> Array:
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != (num_envs,):
        raise ConfigError(f"{name} must be {num_envs} bools, one for each env, but got {array.dtype} {array.shape}")
    return array
