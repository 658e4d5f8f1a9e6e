"""One pass over a data set: statistics of each key, digests, and what is wrong or odd about the episodes.

First the numbers of actions and states are read, which are small, to learn how they usually lie and move. Then every
episode is read once, with its pictures, judged and thrown away, so a data set of any size is surveyed in a few
hundred megabytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.digest import GENESIS, chain
from diffusion_policy.data.doctor.check import Check
from diffusion_policy.data.doctor.ends import EndsCheck, altered, bounds_findings, interrupted, same_episodes
from diffusion_policy.data.doctor.findings import Finding, Severity, by_severity
from diffusion_policy.data.doctor.frames import BlankCheck, Thumbnails
from diffusion_policy.data.doctor.idle import IdleCheck
from diffusion_policy.data.doctor.lag import LagCheck
from diffusion_policy.data.doctor.numbers import DuplicatedCheck, OutlierCheck
from diffusion_policy.data.doctor.rotation_vectors import RotationVectorCheck
from diffusion_policy.data.doctor.similar import SimilarCheck, short_findings
from diffusion_policy.data.doctor.statistics import KeyStatistics, findings_of
from diffusion_policy.data.doctor.stillness import StillnessCheck
from diffusion_policy.data.doctor.streams import TIME_KEYS, Role, roles, rows_of, usual
from diffusion_policy.data.doctor.timing import TimingCheck
from diffusion_policy.data.doctor.units import PixelCheck, QuaternionCheck, UnitsCheck
from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer


@dataclass(frozen=True)
class Survey:
    """What a pass over the data set found.

    Args:
        keys: statistics by key.
        lengths: (M,) steps per episode.
        digest: of the surveyed keys, hex.
        findings: the worst first.
        checks: with what they noted on the way, for plots.
        groups: of episodes that are the same, or nearly.
    """

    keys: Mapping[str, KeyStatistics]
    lengths: NDArray[np.int64]
    digest: str
    findings: tuple[Finding, ...]
    checks: "Checks"
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What makes the data unfit to train from, one sentence each."""
        return self._of("problem")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is likely to cost success."""
        return self._of("warning")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd but harmless."""
        return self._of("note")

    def _of(self, severity: Severity) -> tuple[str, ...]:
        return tuple(each.what for each in self.findings if each.severity == severity)

    def episodes_of(self, name: str) -> tuple[int, ...]:
        """Returns the episodes that findings of one name concern; of `duplicates`, all but the first of each group."""
        if name == "duplicates":
            return tuple(sorted({i for group in self.groups for i in group[1:]}))
        return tuple(sorted({i for each in self.findings if each.name == name for i in each.episodes}))


class Checks:
    """All families of checks over one data set.

    Args:
        buffer: at least one episode.
        keys: that are read.
        thumbnails: episodes of which small pictures are kept.
    """

    def __init__(self, buffer: ReplayBuffer, keys: Sequence[str], thumbnails: set[int]) -> None:
        self.roles: dict[str, Role] = roles(buffer, keys)
        self.numeric = [key for key, role in self.roles.items() if role in ("action", "state")]
        self.usual = usual(buffer, self.numeric)
        self.idle, self.lag = IdleCheck(self.usual), LagCheck(self.usual, self.roles, buffer.num_episodes)
        self.similar = SimilarCheck(buffer, self.usual)
        stamps = next((key for key in TIME_KEYS if self.roles.get(key) == "time"), None)
        self.timing = None if stamps is None else TimingCheck(stamps)
        self.thumbnails = Thumbnails(self.roles, thumbnails)
        shapes = {key: buffer.shape(key) for key in self.numeric}
        self.families: list[Check] = [
            EndsCheck(keys, buffer.episode_ends),
            *([] if self.timing is None else [self.timing]),
            OutlierCheck(self.usual),
        ]
        if lengths(buffer.episode_ends).max() > 1:  # single transitions have no course in time, and come in millions
            self.families.append(DuplicatedCheck(self.roles))
            quaternions = QuaternionCheck(self.usual, shapes)
            self.families += [self.idle, StillnessCheck(self.usual, self.roles), UnitsCheck(self.usual), quaternions]
            self.families += [RotationVectorCheck(self.usual), self.lag]
        self.families += [PixelCheck(self.roles), BlankCheck(self.roles)]

    def add(self, i: int, episode: Mapping[str, NDArray[np.generic]]) -> None:
        """Takes in episode i."""
        ready = {key: rows_of(values) if key in self.usual else values for key, values in episode.items()}
        for check in self.families:
            check.add(i, ready)
        self.similar.add(i, ready)
        self.thumbnails.add(i, ready)


@dataclass
class _Digests:
    """Digests of the episodes read so far.

    Args:
        chained: each covers all before.
        alike: episodes by their own digest.
    """

    chained: list[bytes] = field(default_factory=list)
    alike: dict[bytes, list[int]] = field(default_factory=dict)

    def add(self, i: int, episode: Mapping[str, NDArray[np.generic]]) -> None:
        self.chained.append(chain(self.chained[-1] if self.chained else GENESIS, episode))
        self.alike.setdefault(chain(GENESIS, episode), []).append(i)


def survey(
    buffer: ReplayBuffer,
    keys: Sequence[str] | None = None,
    *,
    action_bounds: Sequence[Sequence[float]] | None = None,
    thumbnails: Sequence[int] = (),
    on_episode: Callable[[int], None] | None = None,
) -> Survey:
    """Returns statistics and findings of a data set.

    Args:
        buffer: at least one episode.
        keys: only these are read; None for all.
        action_bounds: [low, high] that the environment takes, Da numbers each; None where they are not known.
        thumbnails: episodes of which small pictures are kept, for reports.
        on_episode: called with the steps of each episode done, for a progress bar.

    Raises:
        DataError: no such key, or a chunk that cannot be decoded.
    """
    wanted = buffer.keys() if keys is None else sorted(set(keys))
    statistics = {key: KeyStatistics(buffer.shape(key), buffer.dtype(key)) for key in wanted}
    checks, digests = Checks(buffer, wanted, set(thumbnails)), _Digests()
    for i, episode in enumerate(buffer.episodes(wanted)):
        for key, values in episode.items():
            statistics[key].add(values, i)
        digests.add(i, episode)
        checks.add(i, episode)
        if on_episode is not None:
            on_episode(buffer.episode_slice(i).stop - buffer.episode_slice(i).start)
    same = [group for group in digests.alike.values() if len(group) > 1]
    similar = checks.similar.groups(same)
    found = [*interrupted(buffer), *findings_of(statistics), *same_episodes(same), *checks.similar.about(similar)]
    for check in checks.families:
        found += check.findings()
    found += short_findings(buffer.episode_ends)
    if action_bounds is not None and "action" in statistics:
        found += bounds_findings(statistics["action"].low, statistics["action"].high, action_bounds)
    if wanted == buffer.keys():
        found += altered(buffer, digests.chained)
    return Survey(
        keys=statistics,
        lengths=lengths(buffer.episode_ends),
        digest=digests.chained[-1].hex(),
        findings=by_severity(found),
        checks=checks,
        groups=tuple(tuple(group) for group in [*same, *similar]),
    )
