"""A collection on disk: begun anew, or gone on with if it was begun with the same settings."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError

_SAME = ("env_id", "kwargs", "actor", "seed", "renderer", "next_obs")
_PROGRESS = ("episodes", "steps", "first_seed", "last_seed", "cut", "mean_return", "success_rate")  # of a part


def opened(folder: Path, provenance: dict[str, Any], resume: bool, *, as_begun: Collection[str] = ()) -> ReplayBuffer:
    """Returns a new buffer, or the interrupted one after checking that its settings are the same.

    Args:
        folder: where it stands, or shall.
        provenance: of the settings now; `keep` and `each` of an interrupted one may follow them.
        resume: goes on with what is there.
        as_begun: settings that nobody insists on: those of an interrupted collection hold.

    Raises:
        ConfigError: what is there was begun otherwise, or not by collecting.
        OutputExistsError: somebody else is writing to it.
    """
    if not (resume and folder.exists()):
        # made elsewhere and moved here in one step: a kill before leaves nothing that could not be gone on with
        ReplayBuffer.create(attrs={"provenance": provenance}).save(folder)
        return ReplayBuffer.open(folder, mode="a")
    with ReplayBuffer.open(folder) as begun:
        before = begun.attrs.get("provenance")
    if not isinstance(before, Mapping) or not {"seeds", "parts", "each"} <= set(before):
        raise ConfigError(f"{folder} was not made by collecting, so it cannot be resumed; choose another out=")
    before = {"next_obs": False, **before}  # earlier versions kept none
    for name in (each for each in _SAME if each not in as_begun):
        _check(folder, name, before.get(name), provenance[name])
    _check(folder, "actors", _actors(before), _actors(provenance))
    if "auto" not in (before["keep"], provenance["keep"]):
        _check(folder, "keep", before["keep"], provenance["keep"])
    grows = len(provenance["parts"]) == 1 and set(before["each"]) == set(provenance["each"]) == {"episodes"}
    if not grows:  # more of one part would stand in the middle, and a cut episode cannot go on
        _check(folder, "an amount of", before["each"], provenance["each"])
    buffer = ReplayBuffer.open(folder, mode="a")
    keep = provenance["keep"] if before["keep"] == "auto" else before["keep"]
    buffer.update_attrs({"provenance": {**before, "keep": keep, "each": provenance["each"]}})
    return buffer


def _actors(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = provenance["parts"]
    return [{name: value for name, value in part.items() if name not in _PROGRESS} for part in parts]


def _check(folder: Path, name: str, before: Any, now: Any) -> None:
    if before != now:
        raise ConfigError(
            f"{folder} was begun with {name} {before!r}, but got {now!r}; resume with the same settings, or choose "
            f"another out="
        )
