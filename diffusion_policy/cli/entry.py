"""Where the console scripts begin: what can go wrong while a command is still being imported is one line, too."""

import os
import sys
from contextlib import suppress
from importlib import import_module

from diffusion_policy.installation import needs_full_install


def train() -> int:
    """Runs dp-train; returns the exit code."""
    return _run("train")


def evaluate() -> int:
    """Runs dp-eval; returns the exit code."""
    return _run("eval")


def collect() -> int:
    """Runs dp-collect; returns the exit code."""
    return _run("collect")


def augment() -> int:
    """Runs dp-augment; returns the exit code."""
    return _run("augment")


def online() -> int:
    """Runs dp-online; returns the exit code."""
    return _run("online")


def render() -> int:
    """Runs dp-render; returns the exit code."""
    return _run("render")


def inspect() -> int:
    """Runs dp-inspect; returns the exit code."""
    return _run("inspect")


def benchmark() -> int:
    """Runs dp-benchmark; returns the exit code."""
    return _run("benchmark")


def export() -> int:
    """Runs dp-export; returns the exit code."""
    return _run("export")


def convert() -> int:
    """Runs dp-convert; returns the exit code."""
    return _run("convert")


def import_() -> int:
    """Runs dp-import; returns the exit code."""
    return _run("imports", "dp-import")


def serve() -> int:
    """Runs dp-serve; returns the exit code."""
    return _run("serve")


def record_eval() -> int:
    """Runs dp-record-eval; returns the exit code."""
    return _run("record_eval")


def find_modules_here() -> None:
    """Lets `env.id=my_pkg:MyEnv-v0` and `plugins=[my_pkg]` find modules in the current folder, as `python -m` does.

    Last on the path, not first: a file of the user's called random.py or zarr.py must not stand in for the real one.
    """
    with suppress(OSError):  # the folder may have been removed
        here = os.getcwd()  # noqa: PTH109 (pathlib is one more import before the guard)
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)


def _run(name: str, command: str | None = None) -> int:
    try:
        find_modules_here()
        code: int = import_module(f"diffusion_policy.cli.{name}").main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        said = needs_full_install(error, command or f"dp-{name.replace('_', '-')}")
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return 2
    return code
