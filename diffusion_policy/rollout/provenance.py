"""With what a number was made: the hardware, the policy's file."""

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def hardware() -> dict[str, Any]:
    """Returns processor, usable cores and, if torch runs on one, the GPU; nothing that names the machine."""
    torch = sys.modules.get("torch")  # never imported for this: another engine may be running
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_cores": usable_cores(),
        "torch_threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else None,
    }


def commit() -> str | None:
    """Returns the commit of this package's source, with "+" where files differ from it; None outside a checkout."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # not somebody's project around us
        return _git("describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    here = Path(__file__).parent
    done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def usable_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def policy_facts(policy: object, path: Path | None) -> dict[str, Any]:
    """Returns what a result tells of a policy: its file, what computed, and how it was asked to sample."""
    return {
        "path": str(path) if path else None,
        "sha256": file_sha256(path) if path else None,
        "engine": getattr(policy, "engine", "torch"),
        "sampling": dict(getattr(policy, "sampling", {})),
    }


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
