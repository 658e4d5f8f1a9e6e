"""Keys left out on the way of a conversion: `--without depth`, for what nobody will train on, or what is damaged."""

from dataclasses import dataclass, field

from diffusion_policy.data.formats.reading import Episode
from diffusion_policy.errors import DataError

LEFT_OUT = "left out"


@dataclass(frozen=True)
class LeavingOut:
    """Leaves a key out.

    Args:
        key: as it would be called in the new data set.
    """

    key: str
    notes: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "notes", {self.key: LEFT_OUT})

    def __call__(self, episode: Episode, where: str) -> Episode:
        """Returns the episode without the key.

        Raises:
            DataError: there is no such key, or no other one.
        """
        if self.key not in episode:
            raise DataError(f"{where}: no '{self.key}' to leave out, it has: {', '.join(episode)}")
        if len(episode) == 1:
            raise DataError(f"{where}: '{self.key}' is all that is left; leave out less")
        return {key: values for key, values in episode.items() if key != self.key}
