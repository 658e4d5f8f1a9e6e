"""Plans for many clients by one policy, in a thread of its own: the event loop goes on meanwhile."""

import asyncio
import queue
import threading
import time

from diffusion_policy.control.plan import PlanRequest, answers
from diffusion_policy.policies.chunk import ChunkPolicy, FloatArray
from diffusion_policy.policies.own_process import PolicyProcess

Question = tuple[PlanRequest, "asyncio.Future[FloatArray]", asyncio.AbstractEventLoop]


class Inference:
    """Answers questions one after another, in the order they came; a client asks again only when it was answered.

    So the queue is no longer than there are clients, and nobody waits for more than one plan of each of the others.
    Each question is computed by itself, as one row: an answer does not depend on who else asks.

    Args:
        policy: what plans.

    Attributes:
        answered: questions so far.
    """

    def __init__(self, policy: ChunkPolicy) -> None:
        self.answered, self._spent_s = 0, 0.0
        self._policy = policy
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._begun_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, patience_s: float) -> bool:
        """Ends the thread after the plan that is being made; returns whether it ended in time."""
        self._questions.put(None)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    @property
    def computed_s(self) -> float:
        """Seconds that the policy computed, all together."""
        return self._policy.computed_s if isinstance(self._policy, PolicyProcess) else self._spent_s

    @property
    def busy_s(self) -> float:
        """Seconds since the plan that is being made was begun; 0 while none is."""
        begun = self._begun_s
        return 0.0 if begun is None else time.monotonic() - begun

    async def answer(self, request: PlanRequest) -> FloatArray:
        """Returns what the policy predicts, (Tp, *Da); raises what it raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[FloatArray] = loop.create_future()
        self._questions.put((request, answer, loop))
        return await answer

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            request, answer, loop = question
            if answer.cancelled():  # the client is gone
                continue
            self._begun_s = begun = time.monotonic()
            found: FloatArray | Exception
            try:
                found = answers(self._policy, [request])[0]
            except Exception as error:  # whatever a policy raises is this client's trouble, not the others'
                found = error
            self._begun_s = None
            self._spent_s += time.monotonic() - begun
            self.answered += 1
            try:
                loop.call_soon_threadsafe(_settle, answer, found)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
                return


def _settle(answer: "asyncio.Future[FloatArray]", found: FloatArray | Exception) -> None:
    if answer.done():
        return
    if isinstance(found, Exception):
        answer.set_exception(found)
    else:
        answer.set_result(found)
