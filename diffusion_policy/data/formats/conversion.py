"""A conversion that is ready to be done, and how it is: written beside its place, moved there in one step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusion_policy.data import store
from diffusion_policy.data.formats.reading import Column, Episode
from diffusion_policy.data.formats.writing import TARGETS, Content
from diffusion_policy.paths import results_in


@dataclass(frozen=True)
class Conversion:
    """A conversion that is ready to be done: the source is open, nothing is written.

    Args:
        source: as the user named it.
        source_format: its name.
        out: the file or folder to make.
        target_format: its name.
        columns: of the source, and our keys.
        placed: our keys, and what the target calls them.
        content: what is written, once.
        options: of the target.
    """

    source: str
    source_format: str
    out: Path
    target_format: str
    columns: Sequence[Column]
    placed: Sequence[Column]
    content: Content
    options: Mapping[str, Any]

    def write(self, on_steps: Callable[[int], None] | None = None) -> "Written":
        """Writes it; after any failure nothing is left.

        Args:
            on_steps: called with the steps of each episode that was written, for a progress bar.

        Raises:
            OutputExistsError: `out` exists.
            DataError: the source turns out to be damaged, or to hold what a data set must not, such as NaN.
            StorageError: writing failed.
        """
        counted = _Counted(self.content.episodes, on_steps)
        content = replace(self.content, episodes=iter(counted))
        with (
            results_in(self.out.parent),
            store.storage_errors(str(self.out), anew=True),
            store.replaceable(self.out, overwrite=False),
            store.staging_folder(self.out) as staging,
        ):
            built = staging / self.out.name
            TARGETS.get(self.target_format).write(content, built, **self.options)
            store.replace(self.out, built)
        return Written(self.out, self.target_format, counted.episodes, counted.steps)


@dataclass(frozen=True)
class Written:
    """What came of a conversion.

    Args:
        path: that was made.
        format: its name.
        num_episodes: M.
        num_steps: N.
    """

    path: Path
    format: str
    num_episodes: int
    num_steps: int


class _Counted:
    """Episodes, counted when the next one is asked for: by then the one before is written.

    Args:
        episodes: to count.
        on_steps: called with the steps of each.
    """

    def __init__(self, episodes: Iterator[Episode], on_steps: Callable[[int], None] | None) -> None:
        self._source, self._on_steps = episodes, on_steps
        self.episodes = self.steps = 0

    def __iter__(self) -> Iterator[Episode]:
        for episode in self._source:
            steps = len(next(iter(episode.values())))
            yield episode
            self.episodes += 1
            self.steps += steps
            if self._on_steps is not None:
                self._on_steps(steps)
