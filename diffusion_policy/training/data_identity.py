"""Which data a run learns from: it goes on with the same ones only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DataIdentity:
    """What tells data from others.

    Args:
        dataset: how they are called, for messages.
        digest: of all that a batch is made of, shares of several data sets included.
        sets: of several data sets, by name, what is known of each: "digest 0123, weight 0.7".
    """

    dataset: str
    digest: str
    sets: Mapping[str, str] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """Returns what a saved state remembers."""
        return {"digest": self.digest, **({"sets": dict(self.sets)} if self.sets else {})}

    def changed(self, saved: Mapping[str, Any], since: str) -> str | None:
        """Returns what is other than a saved state remembers, in a sentence; None where nothing is.

        Args:
            saved: what `state` returned.
            since: "RUN was trained on it".
        """
        if saved["digest"] == self.digest:
            return None
        before = saved.get("sets") or {}
        for name in [*before, *self.sets]:
            now, then = (each.get(name, "not there") for each in (self.sets, before))
            if before and self.sets and now != then:
                return f"data set {name} has changed since {since} ({now}, then {then})"
        return f"{self.dataset} has changed since {since} (digest {self.digest[:12]}, then {saved['digest'][:12]})"
