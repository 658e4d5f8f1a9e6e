"""The environments of an evaluation, as the evaluator sees them: E slots that take commands and answer.

Letters: E slots.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from diffusion_policy.errors import DiffusionPolicyError, EnvironmentFailedError
from diffusion_policy.rollout.episode import Command, EnvFacts, EpisodeSlot, Moment, SlotSetup


class Slots(Protocol):
    """Where episodes run. Slots are numbered 0 .. E - 1; each answers every command with the `Moment`s that came of it.

    A slot may answer with one `Moment` of length 0 that nobody asked for: its episode had to begin again.
    """

    @property
    def facts(self) -> EnvFacts:
        """What all environments have in common."""

    @property
    def busy(self) -> frozenset[int]:
        """The slots that take no command now, because an answer is to come first."""

    def send(self, commands: Mapping[int, Command]) -> None:
        """Gives slots that are not busy something to do; does not wait for it."""

    def receive(self) -> Iterator[tuple[int, Sequence[Moment]]]:
        """Yields (slot, its moments) of some busy slots; waits until there are such."""

    def close(self) -> None:
        """Closes all environments."""


class LocalSlots:
    """Slots in this process, which work one after the other while answers are received.

    Args:
        setup: what the environments are made from.
        size: E.

    Raises:
        DiffusionPolicyError: see `EpisodeSlot`.
    """

    def __init__(self, setup: SlotSetup, size: int) -> None:
        self._slots: list[EpisodeSlot] = []
        self._commands: dict[int, Command] = {}
        try:
            for _ in range(size):
                self._slots.append(EpisodeSlot(setup))
            self.facts = self._slots[0].facts
        except BaseException:
            self.close()
            raise

    @property
    def busy(self) -> frozenset[int]:
        """See `Slots`."""
        return frozenset(self._commands)

    def send(self, commands: Mapping[int, Command]) -> None:
        """See `Slots`."""
        self._commands.update(commands)

    def receive(self) -> Iterator[tuple[int, Sequence[Moment]]]:
        """See `Slots`."""
        for place in list(self._commands):
            yield place, self._obeyed(place, self._commands.pop(place))

    def close(self) -> None:
        """See `Slots`."""
        for slot in self._slots:
            slot.close()

    def _obeyed(self, place: int, command: Command) -> list[Moment]:
        slot = self._slots[place]
        try:
            return list(slot.obey(command))
        except DiffusionPolicyError:
            raise
        except Exception as error:  # whatever somebody's environment raises
            raise EnvironmentFailedError(
                f"{slot.describe()} raised {type(error).__name__}: {error}; correct the environment, debug=true shows "
                f"where"
            ) from error
