"""What runs in the process of a policy: it is loaded there, and answers through a pipe.

In: a `Job`, then (method, arguments). Out: an `Answer` each, the first with the policy's `Description`; or what was
raised.
"""

import gc
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from diffusion_policy.policies.chunk import ChunkPolicy
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.engines.description import Description
from diffusion_policy.processes import settle
from diffusion_policy.registry import import_plugins


@dataclass(frozen=True)
class Job:
    """What the process is for; see `PolicyProcess`."""

    path: Path
    device: str
    precision: str | None
    plugins: Sequence[str]


@dataclass(frozen=True)
class Answer:
    """What the policy answered, and how many seconds that took."""

    value: Any
    seconds: float


def work(conn: Connection) -> None:
    """Answers until the other side closes the pipe, or ends."""
    settle()
    with suppress(EOFError, OSError):  # nobody listens any more; those of a policy are answers
        job: Job = conn.recv()
        policy = _said(conn, _loaded, job)
        if policy is None:
            return
        conn.send(Answer(getattr(policy, "description", None) or Description.of(policy), 0.0))
        gc.collect()
        gc.freeze()  # what is there stays: later collections pass it over
        while True:
            name, arguments = conn.recv()
            begun = time.monotonic()
            found = _said(conn, getattr(policy, name), *arguments)
            if found is not None:
                conn.send(Answer(found.prediction, time.monotonic() - begun))


def _loaded(job: Job) -> ChunkPolicy:
    import_plugins(job.plugins)
    return RecedingHorizonController.load(job.path, device=job.device, precision=job.precision, batch_size=1).policy


def _said(conn: Connection, work: Any, *arguments: Any) -> Any:
    """Returns what `work` returns; None after it raised, which the other side is told."""
    try:
        return work(*arguments)
    except Exception as error:  # whatever a policy raises, whoever asked is to raise it
        error.add_note("".join(traceback.format_exception(error)))  # a pipe carries no traceback
        try:
            packed = ForkingPickler.dumps(error)
            ForkingPickler.loads(packed)
        except Exception:  # somebody's class of errors that cannot be sent
            packed = ForkingPickler.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        conn.send_bytes(packed)
        return None
