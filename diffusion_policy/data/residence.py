"""What of a data set stays in memory while a policy trains on it, and what is read from a file of raw pictures."""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from diffusion_policy.errors import ConfigError

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_SHARE = 0.5  # of the memory that is free: networks, other people and the system's cache need the rest


def cache_folder() -> Path:
    """Returns where raw pictures are kept: $XDG_CACHE_HOME/diffusion_policy, ~/.cache/diffusion_policy as a rule."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion_policy"


def _ignore(steps: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Residence:
    """How much may stay in memory.

    Args:
        memory_limit: bytes, a size like "4GB", or "auto" for half of what is free now.
        cache: folder of the raw pictures that do not stay in memory.
        on_steps: called with the number of steps each time some have been read, for a progress bar.
        sharers: processes on this machine that read as much: each gets its part.

    Raises:
        ConfigError: the limit is no size.
    """

    memory_limit: str | int = "auto"
    cache: Path = field(default_factory=cache_folder)
    on_steps: Callable[[int], None] = _ignore
    sharers: int = 1

    def __post_init__(self) -> None:
        self.limit_bytes()

    def limit_bytes(self, free: int | None = None) -> int:
        """Returns the limit in bytes, of which `free` are free where the data will be; the host's when None."""
        if self.memory_limit == "auto":
            return int(_SHARE * (_free_bytes() if free is None else free)) // self.sharers
        text = str(self.memory_limit).strip().upper()
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)?", text)
        if match is None:
            raise ConfigError(
                f"data.memory_limit must be auto, a size like 4GB, or a number of bytes, but got {self.memory_limit!r}"
            )
        return int(float(match[1]) * _UNITS[match[2] or "B"]) // self.sharers

    def after(self, used: int) -> "Residence":
        """Returns what is left when `used` bytes of it are taken; "auto" looks by itself at what is free by then."""
        if self.memory_limit == "auto":
            return self
        return replace(self, memory_limit=max(0, self.limit_bytes() - used) * self.sharers)

    def to_file(self, sizes: Mapping[str, int], movable: set[str], limit: int | None = None) -> list[str]:
        """Returns the fields that go to a file: of the movable ones the largest, until the others fit.

        Args:
            sizes: bytes of each field in memory.
            movable: the pictures among them.
            limit: in bytes; `limit_bytes()` when None.
        """
        moved: list[str] = []
        limit = self.limit_bytes() if limit is None else limit
        for key in sorted(movable, key=lambda each: -sizes[each]):
            if sum(sizes[each] for each in sizes if each not in moved) <= limit:
                break
            moved.append(key)
        return moved


def readable(size: float) -> str:
    """Returns bytes as a person writes them: 709 MB."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _free_bytes() -> int:
    """Returns the memory that could be had without swapping: the machine's, or less where a control group has less."""
    return min([_machine_free_bytes(), *group_free_bytes(_GROUPS, _OWN_GROUPS)])


def group_free_bytes(groups: Path, own: Path) -> list[int]:
    """Returns what is left to this process's memory control groups, v1 and v2; nothing where there are none.

    Args:
        groups: where control groups are mounted, /sys/fs/cgroup; a container sees its own there.
        own: /proc/self/cgroup, lines of number:controllers:path, for processes that see the whole tree.
    """
    free = []
    for line in own.read_text().splitlines() if own.is_file() else [""]:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        inside = PurePosixPath(path.strip("/"))
        for group in (inside, *inside.parents):  # a limit above counts as well
            if not controllers:
                free.append(_left(groups / group, "memory.max", "memory.current", "inactive_file"))
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                free.append(_left(groups / "memory" / group, *names))
    return [left for left in free if left is not None]


def _left(group: Path, limit: str, used: str, cache: str) -> int | None:
    with suppress(OSError, ValueError):  # no such group here, or its limit is "max"
        left = int((group / limit).read_text()) - int((group / used).read_text())
        stat = group / "memory.stat"
        match = re.search(rf"^{cache} (\d+)$", stat.read_text(), re.MULTILINE) if stat.is_file() else None
        return max(0, left + (int(match[1]) if match else 0))  # the system's cache would give way
    return None


def _machine_free_bytes() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # counts the system's cache, which would give way, as free
        match = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
        if match:
            return int(match[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError, AttributeError):  # some systems tell neither
        return int(np.int64(8 << 30))
