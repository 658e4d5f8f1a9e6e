"""When rows were recorded: order, gaps, jitter, and episodes of different rates.

Letters: T steps of an episode, M episodes.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, Severity, Span, counted, of_episodes
from diffusion_policy.data.doctor.streams import Episode

_GAP = 1.5  # steps between two stamps; a lost row gives 2, and jitter that the next check tells gives less
_UNEVEN = 0.2  # of a step between the 5th and 95th percentile to either side; a robot's loop has a few percent
_RATES = 0.1  # of the usual step; below, two clocks tell the same rate
_SECONDS = (1e-4, 10.0)  # between two stamps: others are in other units, and no rate is told


@dataclass
class Stamps:
    """The time stamps of one episode.

    Args:
        step: median time between two, in their unit; NaN of fewer than 2.
        uneven: half the span of 90 % of the times between two, over the median.
        falls: steps whose stamp is not above the one before.
        gaps: steps before which something is missing.
    """

    step: float
    uneven: float
    falls: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)


def judged(stamps: NDArray[np.generic]) -> Stamps:
    """Returns what an episode's time stamps tell.

    Args:
        stamps: (T,) in any unit.
    """
    between = np.diff(stamps.astype(np.float64))
    if not len(between):
        return Stamps(float("nan"), 0.0)
    step = float(np.median(between))
    falls = [int(t) + 1 for t in np.flatnonzero(~(between > 0))]
    if not step > 0:
        return Stamps(float("nan"), 0.0, falls)
    low, high = np.percentile(between, (5, 95))
    gaps = [int(t) + 1 for t in np.flatnonzero(between > _GAP * step)]
    return Stamps(step, float(high - low) / 2 / step, falls, gaps)


class TimingCheck:
    """Judges the time stamps of a data set.

    Args:
        key: that holds them.

    Attributes:
        steps: (M,) median time between two stamps of each episode.
    """

    def __init__(self, key: str) -> None:
        self.key, self.steps = key, list[float]()
        self._found: list[tuple[int, Stamps]] = []

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        told = judged(episode[self.key].reshape(-1))
        self.steps.append(told.step)
        if told.falls or told.gaps or told.uneven > _UNEVEN:
            self._found.append((i, told))

    def findings(self) -> list[Finding]:
        """Returns what is wrong with the order, the gaps, the evenness and the rates."""
        falls = [Span(i, t - 1, t + 1) for i, told in self._found for t in told.falls]
        gaps = [Span(i, t - 1, t + 1) for i, told in self._found for t in told.gaps]
        uneven = [i for i, told in self._found if told.uneven > _UNEVEN]
        found = []
        if falls:
            what = f"{self.key} does not increase at {counted(len(falls), 'step')} of {{}}"
            found.append(self._finding("time-order", "problem", what, falls))
        if gaps:
            what = f"{self.key} has {counted(len(gaps), 'gap')} of more than {_GAP:g} steps in {{}}"
            found.append(self._finding("gaps", "warning", what, gaps))
        if uneven:
            most = max(told.uneven for _, told in self._found)
            what = f"{self.key}: steps differ by up to {most:.0%} from the usual one in {of_episodes(uneven)}"
            found.append(Finding("jitter", "warning", what, key=self.key, episodes=tuple(uneven)))
        return [*found, *self._rates()]

    def _finding(self, name: str, severity: Severity, what: str, spans: list[Span]) -> Finding:
        episodes = tuple(sorted({span.episode for span in spans}))
        said = what.format(of_episodes(episodes))
        return Finding(name, severity, said, key=self.key, episodes=episodes, spans=tuple(spans))

    def _rates(self) -> list[Finding]:
        steps = np.array(self.steps)
        known = steps[np.isfinite(steps)]
        if not len(known):
            return []
        middle = float(np.median(known))
        with np.errstate(invalid="ignore"):
            others = np.flatnonzero(np.abs(steps / middle - 1) > _RATES)
        if not len(others):
            return []
        told = f"{_rate(middle)} in the others" if len(known) > len(others) else "no two alike"
        what = f"{self.key}: {of_episodes(others.tolist())} at {_rate(float(steps[others[0]]))}, {told}"
        return [Finding("rates", "problem", what, key=self.key, episodes=tuple(others.tolist()))]


def _rate(step: float) -> str:
    return f"{1 / step:.4g} Hz" if _SECONDS[0] <= step <= _SECONDS[1] else f"{step:.4g} between two stamps"
