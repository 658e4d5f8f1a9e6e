"""Idle starts and ends of episodes: nobody has begun yet, or everybody waits for the recording to stop.

An episode is idle at its start as long as all that usually moves stays within half an ordinary step of where it
began. Distance from the beginning, not the change of each step: slow motion leaves that place within a few steps,
whatever the rate, and the noise of an encoder does not. Letters: T steps of an episode, D numbers that move.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, Severity, Span, of_episodes
from diffusion_policy.data.doctor.streams import Episode, Usual, rows_of

NEAR = 0.5
"""Ordinary steps (see `Usual.step`) within which nothing has moved; ordinary motion takes one or two steps to leave."""
IDLE_STEPS = 10
"""Fewer are no idleness: the last steps of scripted Push-T demonstrations, whose expert slows down, take up to 9."""
MARGIN = 2
"""Idle steps that trimming keeps: what a policy with two observed steps sees before it moves."""
_MUCH = 0.01  # of all steps; below, idle ends do not weigh in training


class Idleness:
    """Finds idle ends by how a data set usually moves.

    Args:
        usual: of its keys of role action or state.
    """

    def __init__(self, usual: Mapping[str, Usual]) -> None:
        moving = {key: each.moving & ~each.clocks for key, each in usual.items()}  # time goes on while all is idle
        if not any(each.any() for each in moving.values()):
            moving = {key: each.moving for key, each in usual.items()}
        self._moving = {key: each for key, each in moving.items() if each.any()}
        self._steps = {key: usual[key].step[each] for key, each in self._moving.items()}

    def span(self, episode: Episode) -> tuple[int, int]:
        """Returns the steps [start, stop) that are not idle; (0, 0) where nothing ever moves.

        Args:
            episode: {key: (T, *shape)} with the keys of `usual`.
        """
        columns = [rows_of(episode[key])[:, self._moving[key]] / step for key, step in self._steps.items()]
        if not columns:
            return 0, len(next(iter(episode.values())))
        return idle_span(np.concatenate(columns, axis=1))


def idle_span(rows: NDArray[np.float64]) -> tuple[int, int]:
    """Returns the steps [start, stop) of an episode that are not idle; (0, 0) where nothing ever moves.

    Starts and ends of fewer than `IDLE_STEPS` count as not idle.

    Args:
        rows: (T, D) in ordinary steps.
    """
    count = len(rows)
    before = _while_near(rows)
    if before == count:
        return (0, 0) if count >= IDLE_STEPS else (0, count)
    after = _while_near(rows[::-1])
    return (before if before >= IDLE_STEPS else 0), (count - after if after >= IDLE_STEPS else count)


def trimmed(start: int, stop: int, count: int, margin: int = MARGIN) -> tuple[int, int]:
    """Returns the steps [start, stop) that trimming keeps: what is not idle, and `margin` steps on either side.

    Args:
        start: as `idle_span` returns it.
        stop: likewise.
        count: T.
        margin: idle steps to keep.
    """
    return max(0, start - margin), min(count, stop + margin)


def _while_near(rows: NDArray[np.float64]) -> int:
    """Returns how many of the first rows lie near the first one."""
    with np.errstate(invalid="ignore"):
        far = np.flatnonzero(~(np.abs(rows - rows[0]) <= NEAR).all(axis=1))
    return int(far[0]) if far.size else len(rows)


class IdleCheck:
    """Finds idle starts and ends.

    Args:
        usual: of the keys of role action or state.

    Attributes:
        spans: of each episode, the steps that are not idle.
    """

    def __init__(self, usual: Mapping[str, Usual]) -> None:
        self._idleness = Idleness(usual)
        self.spans: list[tuple[int, int]] = []
        self._lengths: list[int] = []

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        self._lengths.append(len(next(iter(episode.values()))))
        self.spans.append(self._idleness.span(episode))

    def findings(self) -> list[Finding]:
        """Returns idle starts, idle ends, and episodes that never move."""
        total = sum(self._lengths)
        spans = list(enumerate(zip(self.spans, self._lengths, strict=True)))
        never = [Span(i, 0, count) for i, ((_, stop), count) in spans if stop == 0 and count]
        starts = [Span(i, 0, start) for i, ((start, _), _) in spans if start]
        ends = [Span(i, stop, count) for i, ((_, stop), count) in spans if 0 < stop < count]
        return [
            *_finding(starts, "begin", "before anything moves", total),
            *_finding(ends, "end", "after the last motion", total),
            *_finding(never, "consist", "in which nothing ever moves", total),
        ]


def _finding(spans: Sequence[Span], verb: str, what: str, total: int) -> list[Finding]:
    if not spans:
        return []
    episodes = tuple(span.episode for span in spans)
    idle = [span.stop - span.start for span in spans]
    verb = verb + "s" if len(episodes) == 1 else verb
    said = f"{of_episodes(episodes)} {verb} {'of' if verb.startswith('consist') else 'with'} {min(idle)}"
    said += f" to {max(idle)}" if max(idle) > min(idle) else ""
    share = sum(idle) / total
    severity: Severity = "warning" if share >= _MUCH else "note"
    return [
        Finding(
            "idle", severity, f"{said} steps {what}; {share:.1%} of all steps", episodes=episodes, spans=tuple(spans)
        )
    ]
