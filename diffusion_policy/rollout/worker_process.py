"""A worker process as its parent holds it: started quietly, told what to do, ended for certain."""

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler

from diffusion_policy.errors import ConfigError
from diffusion_policy.processes import inherited_calm
from diffusion_policy.rollout.episode import Command, Moment
from diffusion_policy.rollout.worker import Job, serve

END_S = 5.0
"""For closing environments; what takes longer is killed."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class WorkerProcess:
    """One process, the slots that run in it, and what it owes.

    Args:
        job: what it is for; sent to every process that takes this one's place.

    Attributes:
        places: its slots.
        conn: the pipe to it.
        ready: it has made its environments.
        owing: how many slots' answers are to come.
        due: slots that have not finished, in the order of work.
        moments: answers that came while others are to come.
        deadline: when it hangs, on the monotonic clock, if it owes something.
    """

    conn: Connection

    def __init__(self, job: Job) -> None:
        self.places, self._job = job.places, _packed(job)
        self.ready, self.deadline = False, 0.0
        self.owing = 0
        self.due: list[int] = []
        self.moments: dict[int, Sequence[Moment]] = {}
        self._process: SpawnProcess | None = None

    @property
    def busy(self) -> bool:
        """Whether it has something to do, or answers that nobody has taken."""
        return bool(self.owing or self.moments)

    @property
    def complete(self) -> bool:
        """Whether all answers have come, and none is taken."""
        return bool(self.moments) and not self.owing

    def start(self, limit_s: float) -> None:
        """Spawns the process and tells it what it is for."""
        self.ready, self.owing, self.due, self.moments = False, 0, [], {}
        self.deadline = time.monotonic() + limit_s
        context = multiprocessing.get_context("spawn")
        # W processes with as many threads as cores each would be in each other's way; with 0, software GL (llvmpipe)
        # draws in the thread that calls it
        calm = dict.fromkeys(_THREADS, "1") | {"LP_NUM_THREADS": os.environ.get("LP_NUM_THREADS", "0")}
        with inherited_calm(calm):
            self.conn, other = context.Pipe()
            try:
                # daemon: Python's own end must not wait for it
                self._process = context.Process(target=serve, args=(other,), name="evaluate", daemon=True)
                self._process.start()
            finally:
                other.close()
        with suppress(OSError):  # if it has died already, whoever listens to it will know
            self.conn.send_bytes(self._job)

    def send(self, commands: Mapping[int, Command], limit_s: float) -> bool:
        """Returns whether the process was there to take the commands."""
        self.owing, self.due = len(commands), list(commands)
        self.deadline = time.monotonic() + limit_s
        try:
            self.conn.send(list(commands.items()))
        except OSError:
            self.owing, self.due = 0, []
            return False
        return True

    def hang_up(self) -> None:
        """Closes the pipe: a process that works on will notice and end."""
        if self._process is not None:
            self.conn.close()

    def end(self, patience_s: float) -> int | None:
        """Returns the exit code of the process, which is killed unless it ends in time."""
        process, self._process = self._process, None
        if process is None or process.pid is None:
            return None
        process.join(patience_s)
        if process.exitcode is None:
            process.kill()
            process.join(END_S)
        code = process.exitcode
        if code is not None:
            process.close()
        return code


def _packed(job: Job) -> bytes:
    """Returns a job ready to be sent again and again."""
    try:
        return bytes(ForkingPickler.dumps(job))
    except Exception as error:  # pickle raises whatever the object raises
        raise ConfigError(
            f"env_kwargs must be values that can be sent to a worker process, but got {dict(job.setup.env_kwargs)!r} "
            f"({error}); use workers=0"
        ) from error
