"""Commands, run in this process and in new ones."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str


def dp(name: str, *words: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Done:
    """Runs dp-<name> here, without the seconds a new process takes."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [f"dp-{name}", *words])
    try:
        code = import_module(f"diffusion_policy.cli.{name}").main()
    except SystemExit as stop:  # argparse and --help leave this way
        code = int(stop.code or 0)
    shown = capsys.readouterr()
    return Done(code, shown.out, shown.err)


def script(name: str, *words: str, folder: Path, before: str = "") -> Done:
    """Runs dp-<name> in a new process as a console script does: -P, because those have no current folder on the path.

    Args:
        name: of the command.
        words: its arguments.
        folder: where it runs.
        before: statements that the process begins with.
    """
    program = f"import sys\n{before}\nfrom diffusion_policy.cli.entry import {name}\nsys.exit({name}())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Done(done.returncode, done.stdout, done.stderr)
