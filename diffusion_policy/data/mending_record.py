"""What a mended data set says of its origin. Letters: M episodes."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.episodes import lengths
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.versions import installed_versions


@dataclass
class Done:
    """What mending did, counted on the way.

    Args:
        kept: the source's episodes that are left.
        dropped: those that are not, by reason.
        trimmed: steps that were cut, by episode.
        hz: rows a second that it was brought to, None where its rate stays.
    """

    kept: list[int] = field(default_factory=list)
    dropped: dict[int, str] = field(default_factory=dict)
    trimmed: dict[int, int] = field(default_factory=dict)
    hz: float | None = None

    def said(self) -> list[str]:
        """Returns what was done, a sentence each."""
        counts = Counter(self.dropped.values())
        said = [f"{count} episode{'s' if count > 1 else ''} dropped: {why}" for why, count in counts.items()]
        if self.trimmed:
            said.append(f"{sum(self.trimmed.values())} idle steps trimmed from {len(self.trimmed)} episodes")
        if self.hz is not None:
            said.append(f"brought to {self.hz:g} steps a second")
        return said or ["no episode dropped or trimmed"]


def attrs_of(source: ReplayBuffer, buffer: ReplayBuffer, done: Done, steps: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a mended data set keeps: what the source kept, as far as it is still true, and what was done.

    Args:
        source: the data set that was mended.
        buffer: with the episodes that are left.
        done: what was done to episodes.
        steps: what was to be done, plain values.
    """
    attrs = source.attrs
    before = attrs.get("provenance")
    record = dict(before) if isinstance(before, Mapping) else {}
    if isinstance(record.get("seeds"), list) and len(record["seeds"]) == source.num_episodes:
        record["seeds"] = [record["seeds"][i] for i in done.kept]
    parts = record.get("parts")
    if isinstance(parts, list) and sum(int(part["episodes"]) for part in parts) == source.num_episodes:
        record["parts"] = _parts(parts, done.kept, lengths(buffer.episode_ends))
    if isinstance(record.get("filters"), Mapping):
        record["filters"] = _filters(record["filters"], done.kept)
    told = {"source": Path(source.location).name, "digest": source.digest(), **steps}
    if "trim_margin" in steps:
        told["trimmed"] = {"episodes": len(done.trimmed), "steps": sum(done.trimmed.values())}
    if done.dropped:
        told["dropped"] = {str(i): why for i, why in sorted(done.dropped.items())}
    if "resampled" in steps:
        record["control_hz"] = steps["resampled"]["hz"]
        if steps["resampled"]["action_kind"] == "delta":
            record.pop("action_bounds", None)  # of one old step; a new one adds up several, or a part of one
        if "step_s" in record:
            record["step_s"] = 1 / record["control_hz"]
    record["mended"] = [*record.get("mended", []), told]
    record["versions"] = installed_versions()
    record["command"] = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {**attrs, "provenance": record}


def _filters(filters: Mapping[str, Any], kept: Sequence[int]) -> dict[str, list[int]]:
    """Returns filter keys {name: episodes} with the numbers that their episodes have now; empty ones are left out."""
    now = {before: i for i, before in enumerate(kept)}
    left = {name: [now[int(i)] for i in chosen if int(i) in now] for name, chosen in filters.items()}
    return {name: chosen for name, chosen in left.items() if chosen}


def _parts(parts: Sequence[Mapping[str, Any]], kept: Sequence[int], steps: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Returns the parts of a collection with what is left of each; what their returns were is no longer true."""
    told, first = [], 0
    for part in parts:
        stop = first + int(part["episodes"])
        mine = [j for j, i in enumerate(kept) if first <= i < stop]
        stays = {key: value for key, value in part.items() if key not in ("mean_return", "success_rate")}
        whole = bool(mine) and kept[mine[-1]] == stop - 1  # its last episode, which may have been cut
        told.append(
            {
                **stays,
                "episodes": len(mine),
                "steps": int(sum(steps[j] for j in mine)),
                "cut": bool(part.get("cut")) and whole,
            }
        )
        first = stop
    return told
