"""What runs in the process of a policy: it is loaded there, and answers through a pipe.

In: a `Job`, then questions. Out: the policy's `Description`, then answers; or what was raised. See `own_process_words`.
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

from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import ActionChunk, Array, ChunkPolicy, FloatArray, GuidedChunkPolicy, KnownActions
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.engines.description import Description
from diffusion_policy.policies.own_process_words import answer, asked
from diffusion_policy.processes import settle
from diffusion_policy.registry import import_plugins


@dataclass(frozen=True)
class Job:
    """What the process is for; see `PolicyProcess`."""

    path: Path
    device: str
    precision: str | None
    plugins: Sequence[str]


def work(conn: Connection) -> None:
    """Answers until the other side closes the pipe, or ends."""
    settle()
    with suppress(EOFError, OSError):  # nobody listens any more; those of a policy are answers
        job: Job = conn.recv()
        policy = _said(conn, _loaded, job)
        if policy is None:
            return
        conn.send(getattr(policy, "description", None) or Description.of(policy))
        gc.collect()
        gc.freeze()  # what is there stays: later collections pass it over
        while True:
            found = _said(conn, _answered, policy, conn.recv_bytes())
            if found is not None:
                conn.send_bytes(found)


def _loaded(job: Job) -> ChunkPolicy:
    import_plugins(job.plugins)
    return RecedingHorizonController.load(job.path, device=job.device, precision=job.precision, batch_size=1).policy


def _answered(policy: ChunkPolicy, question: bytes) -> bytes:
    obs, noise, known = asked(question)
    begun = time.monotonic()
    found = _predicted(policy, obs, noise, known)
    return answer(found.prediction, time.monotonic() - begun)


def _predicted(
    policy: ChunkPolicy, obs: dict[str, Array], noise: FloatArray | None, known: KnownActions | None
) -> ActionChunk[Array]:
    if known is None:
        return policy.predict(obs, noise)
    if not isinstance(policy, GuidedChunkPolicy):
        raise ConfigError(f"{type(policy).__name__} cannot be guided by known actions; choose another strategy")
    return policy.predict_guided(obs, noise, known)


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
