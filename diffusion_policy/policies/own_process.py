"""A policy in a process of its own: whoever asks it waits, and nobody else does.

In a thread, a policy holds Python's lock between its operations. Where all cores are busy the thread loses its core
while it holds the lock, and whatever else the process has to do, a robot's next action, waits until it gets one back.

Letters: B batch, To/Tp = obs_horizon/pred_horizon, Da the axes of one action.
"""

import logging
import multiprocessing
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from diffusion_policy.errors import CheckpointError, PolicyLostError
from diffusion_policy.policies.chunk import ActionChunk, Array, FloatArray, KnownActions
from diffusion_policy.policies.controller import policy_file
from diffusion_policy.policies.engines.description import Described, Description
from diffusion_policy.policies.own_process_words import answered, question
from diffusion_policy.policies.own_process_work import Job, work
from diffusion_policy.processes import inherited_calm

logger = logging.getLogger(__name__)

_END_S = 5.0  # for the process to end by itself
_KILLED = -9  # by a signal that Windows has no name for


class PolicyProcess(Described):
    """Obeys `GuidedChunkPolicy`; the policy computes in another process, which ends with this one.

    Where that process dies (out of memory, a defect of an engine), another takes its place, and is asked again, once;
    one that was told to end (SIGTERM, as a supervisor sends to all of a service) is replaced at the next question. One
    question at a time: threads wait for each other.

    A script that makes one needs `if __name__ == "__main__":`, since the process begins by importing it.

    Args:
        path: e.g. "policy.pt"; see `RecedingHorizonController.load`, by which it is loaded and warmed up.
        device: where the engine computes; auto for the best there is, of policy.pt.
        precision: float32 or bfloat16.
        plugins: modules to import first.

    Attributes:
        description: what a controller has to know of the policy.
        computed_s: seconds that its predictions took, without their way through the pipe.

    Raises:
        DiffusionPolicyError: what loading raises.
        PolicyLostError: the process ended while it loaded the policy.
    """

    def __init__(
        self, path: str | Path, *, device: str = "cpu", precision: str | None = None, plugins: Sequence[str] = ()
    ) -> None:
        self._job = Job(policy_file(path).absolute(), device, precision, tuple(plugins))  # a typo costs no process
        self._lock = threading.Lock()
        self._process: SpawnProcess | None = None
        self._closed = False
        self._code: int | None = None  # with which the last one ended
        self.computed_s = 0.0
        self._begin()
        self.description: Description = self._received()
        self._state = _state(self._job.path)

    def predict(self, obs: dict[str, Array], noise: FloatArray | None = None) -> ActionChunk[Array]:
        """Returns one chunk a row; see `ChunkPolicy`. Raises what the policy raises.

        Raises:
            PolicyLostError: the process ended, and the one in its place, too.
        """
        return self._answer(question(obs, noise))

    def predict_guided(
        self, obs: dict[str, Array], noise: FloatArray | None, known: KnownActions
    ) -> ActionChunk[Array]:
        """See `GuidedChunkPolicy`, and `predict`."""
        return self._answer(question(obs, noise, known))

    def close(self) -> None:
        """Ends the process, for good; a prediction that is being made is given up."""
        self._closed = True
        with suppress(AttributeError):  # it was never begun
            self._conn.close()
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, asks: bytes) -> ActionChunk[Array]:
        with self._lock:
            try:
                said = self._asked(asks)
            except PolicyLostError as error:
                if self._closed or self._code == -signal.SIGTERM:
                    raise
                logger.warning("%s; another is started", error)
                said = self._asked(asks)
            prediction, seconds = answered(said)
            self.computed_s += seconds
        return ActionChunk.of(prediction, self.horizons)

    def _asked(self, asks: bytes) -> Any:
        if self._closed:
            raise PolicyLostError(f"the process of {self._job.path} was closed; make another PolicyProcess")
        if self._process is None:
            if _state(self._job.path) != self._state:
                raise CheckpointError(
                    f"{self._job.path} is another file than the one that was loaded, and the process that had loaded "
                    f"it has ended; start again with the policy that you mean"
                )
            self._begin()
            self._received()
        with suppress(OSError):  # it has ended: receiving says how
            self._conn.send_bytes(asks)
        return self._received()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        with inherited_calm():
            self._conn, other = context.Pipe()
            try:
                # daemon: Python's own end must not wait for it
                self._process = context.Process(target=work, args=(other,), name="policy", daemon=True)
                self._process.start()
            finally:
                other.close()
        with suppress(OSError):
            self._conn.send(self._job)

    def _received(self) -> Any:
        try:
            said = self._conn.recv()
        except (EOFError, OSError) as error:
            raise PolicyLostError(
                f"the process of {self._job.path} ended with code {self._end()}"
                f"{' (killed, for memory perhaps)' if self._code == _KILLED else ''}"
            ) from error
        if isinstance(said, Exception):
            raise said
        return said

    def _end(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.join(_END_S)
        if process.exitcode is None:
            process.kill()
            process.join(_END_S)
        self._code = process.exitcode
        return self._code


def _state(path: Path) -> tuple[int, int] | None:
    """Returns what changes when a file is written anew."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
