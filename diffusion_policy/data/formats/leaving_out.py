"""Keys left out on the way of a conversion: `--without depth`, for what nobody will train on, or what holds NaN."""

from collections.abc import Mapping

from diffusion_policy.data.formats.reading import Episode
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import DataError

LEFT_OUT = "left out"


class LeavingOut:
    """Leaves a key out, and what followed each step of it (`next_<key>`).

    Args:
        key: as it would be called in the new data set.
    """

    keeps_units = True

    def __init__(self, key: str) -> None:
        self._key = key
        self._left: dict[str, str] = {key: LEFT_OUT}

    @property
    def notes(self) -> Mapping[str, str]:
        """{key: what is done to it}, complete after the first episode."""
        return self._left

    def __call__(self, episode: Episode, where: str) -> Episode:
        """Returns the episode without the key.

        Raises:
            DataError: there is no such key, or no other one.
        """
        if self._key not in episode:
            raise DataError(f"{where}: no '{self._key}' to leave out, it has: {', '.join(episode)}")
        rest = {key: values for key, values in episode.items() if key not in (self._key, NEXT + self._key)}
        if not rest:
            raise DataError(f"{where}: '{self._key}' is all that is left; leave out less")
        if NEXT + self._key in episode:
            self._left[NEXT + self._key] = LEFT_OUT
        return rest
