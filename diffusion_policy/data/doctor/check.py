"""What every check does: it takes in the episodes one after another, and tells at the end what it found."""

from typing import Protocol

from diffusion_policy.data.doctor.findings import Finding
from diffusion_policy.data.doctor.streams import Episode


class Check(Protocol):
    """A family of checks over one pass."""

    def add(self, i: int, episode: Episode) -> None:
        """Takes in episode i, {key: (T, *shape)}; keeps numbers about it, not the episode."""

    def findings(self) -> list[Finding]:
        """Returns what was found, after all episodes."""
