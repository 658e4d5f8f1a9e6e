"""Packages that are not there."""

import sys

import pytest


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a package look as if it were not installed, whether it is or not."""
    for name in [each for each in sys.modules if each == package or each.startswith(package + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]  # what import takes for missing
