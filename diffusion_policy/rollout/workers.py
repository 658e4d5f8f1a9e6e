"""Slots in worker processes, for environments whose time goes into drawing: they draw side by side.

Processes are spawned, never forked: a fork inherits GL contexts, CUDA and threads in states that nobody planned.
A worker that dies or hangs is replaced, and its episodes begin again from their seeds.

Letters: E slots, W workers.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait

from diffusion_policy.errors import WorkerError
from diffusion_policy.rollout.episode import Begin, Command, EnvFacts, Moment, SlotSetup
from diffusion_policy.rollout.gl import choose_gl
from diffusion_policy.rollout.worker import Beat, Failure, Job
from diffusion_policy.rollout.worker_process import END_S, WorkerProcess

logger = logging.getLogger(__name__)

_DEATHS = 3  # of a worker at one and the same episode: then it is no accident
_START_S = 240.0  # imports, environments and the first GL context, on a busy machine, beside the limit of a step


class WorkerSlots:
    """E slots spread over W processes, which work at the same time.

    Args:
        setup: what the environments are made from.
        size: E.
        workers: W.
        timeout_s: a worker that says nothing for so long, during one command, hangs; more is allowed at its start.
        plugins: modules that every worker imports first.

    Raises:
        DiffusionPolicyError: see `EpisodeSlot`; also a WorkerError from every method that sends or receives.
    """

    def __init__(
        self, setup: SlotSetup, size: int, *, workers: int, timeout_s: float, plugins: str | Sequence[str] = ()
    ) -> None:
        self._env_id, self._timeout_s = setup.env_id, timeout_s
        self._facts: EnvFacts | None = None
        self._running: dict[int, Begin] = {}  # slot -> the episode to begin again if its worker dies
        self._deaths: Counter[int | None] = Counter()  # by the episode's seed; None: at the start
        count = min(workers, size)
        choose_gl()  # before the first process inherits the choice
        jobs = [Job(setup, range(first, size, count), plugins) for first in range(count)]
        self._workers = [WorkerProcess(job) for job in jobs]
        try:
            for worker in self._workers:
                self._start(worker)
            while not all(worker.ready for worker in self._workers):
                self._listen()
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> EnvFacts:
        """See `Slots`."""
        assert self._facts is not None  # every worker has told them
        return self._facts

    @property
    def busy(self) -> frozenset[int]:
        """All slots of the workers that have something to do."""
        return frozenset(place for worker in self._workers if worker.busy for place in worker.places)

    def send(self, commands: Mapping[int, Command]) -> None:
        """See `Slots`."""
        self._running |= {place: command for place, command in commands.items() if isinstance(command, Begin)}
        for worker in self._workers:
            mine = {place: command for place, command in commands.items() if place in worker.places}
            if mine and not worker.send(mine, self._timeout_s):
                self._replace(worker)

    def receive(self) -> Iterator[tuple[int, Sequence[Moment]]]:
        """Yields what a worker's slots answer, as soon as all those that had a command have done so."""
        while not any(worker.complete for worker in self._workers) and any(worker.busy for worker in self._workers):
            self._listen()
        for worker in self._workers:
            if worker.complete:
                answers, worker.moments = worker.moments, {}
                for place, moments in answers.items():
                    if moments[-1].result is not None:
                        del self._running[place]
                    yield place, moments

    def close(self) -> None:
        """Ends all processes: those that close their environments in time, gently."""
        for worker in self._workers:
            worker.hang_up()
        deadline = time.monotonic() + END_S
        for worker in self._workers:
            worker.end(max(0.0, deadline - time.monotonic()))

    def _start(self, worker: WorkerProcess) -> None:
        worker.start(self._timeout_s + _START_S)
        again: dict[int, Command] = {place: self._running[place] for place in worker.places if place in self._running}
        if again:
            worker.send(again, self._timeout_s + _START_S)

    def _listen(self) -> None:
        """Waits for a word of any worker that has something to say, and hears it; replaces those that hang."""
        expected = [worker for worker in self._workers if worker.owing or not worker.ready]
        patience = min(worker.deadline for worker in expected) - time.monotonic()
        heard = wait([worker.conn for worker in expected], max(0.0, patience))
        for worker in expected:
            if worker.conn in heard:
                self._hear(worker)
            elif time.monotonic() > worker.deadline:
                self._replace(worker, hung=True)

    def _hear(self, worker: WorkerProcess) -> None:
        try:
            word = worker.conn.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        worker.deadline = time.monotonic() + self._timeout_s
        if isinstance(word, Failure):
            raise self._error(word)
        if isinstance(word, EnvFacts):
            worker.ready = True
            self._deaths.pop(None, None)
            self._facts = self._facts or word
            if word != self._facts:
                raise WorkerError(f"expected equal environments in all workers, but got {self._facts} and {word}")
            return
        if isinstance(word, Beat):
            if word.last:
                worker.due.remove(word.place)
            return
        place, moments = word
        worker.owing -= 1
        worker.moments[place] = moments

    def _error(self, failure: Failure) -> Exception:
        expected = failure.expected()
        if expected is not None:
            return expected
        begun = None if failure.place is None else self._running.get(failure.place)
        when = "while it was made" if begun is None else f"in the episode with seed {begun.seed}"
        return WorkerError(
            f"environment {self._env_id} raised {failure.kind} {when}: {failure.message}; correct it, or see more "
            f"with workers=0. The worker's traceback:\n{failure.trace}"
        )

    def _replace(self, worker: WorkerProcess, *, hung: bool = False) -> None:
        """Ends a worker, if it has not ended itself, and starts another with the same episodes.

        Blamed is the episode that it was at: slots work in the order of their commands. If it was at none, all of
        its episodes are, so that this ends in any case.
        """
        if not worker.ready:
            suspects: list[int | None] = [None]
        else:
            places = worker.due[:1] or [place for place in worker.places if place in self._running]
            suspects = [self._running[place].seed for place in places]
        worker.hang_up()
        code = worker.end(0.0 if hung else END_S)
        killed = code is not None and code < 0
        why = f"was killed by signal {-(code or 0)}" if killed else f"ended with code {code}"
        why = "said nothing for too long (worker_timeout_s)" if hung else why
        self._deaths.update(suspects)
        for seed in suspects:
            by_chance = seed is not None or (killed and not hung)
            if self._deaths[seed] >= _DEATHS or not by_chance:
                raise WorkerError(self._verdict(seed, why))
        seeds = sorted(self._running[place].seed for place in worker.places if place in self._running)
        logger.warning("an evaluation worker %s; it is replaced, and its episodes run again (seeds %s)", why, seeds)
        self._start(worker)

    def _verdict(self, seed: int | None, why: str) -> str:
        if seed is None:
            return (
                f"an evaluation worker {why} before it had made its environments ({self._env_id}); expected it to "
                f"start: if a script evaluates in workers, its own work must stand below `if __name__ == "
                f"'__main__':`, because workers import it; or use workers=0"
            )
        return (
            f"evaluation workers ended {self._deaths[seed]} times at the episode with seed {seed} of {self._env_id} "
            f"(the last one {why}); run that one alone (episodes=1 seed={seed} workers=0) to see what it does"
        )
