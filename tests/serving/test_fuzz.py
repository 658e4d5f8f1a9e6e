"""The fuzzer of the server says what it did not check."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.control.clocks import Telling
from tests.serving.running import Running, offer

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_server.py"


@pytest.fixture
def fuzzer(monkeypatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_server", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "attack", lambda fuzz, port: 0)
    monkeypatch.setattr(module, "Robot", lambda port: SimpleNamespace(tick=int, close=int, ticks=0))
    return module


def test_too_few_clients_to_see_growth_are_a_finding(fuzzer, monkeypatch):
    with Running(offer(Telling())) as running:
        with pytest.raises(ValueError, match="only 0 clients came, so how the server grows was NOT checked; 400"):
            fuzzer.fuzz_for(0.0, 0, running.port, 0)
        monkeypatch.setattr(fuzzer, "SETTLED", 1)
        assert "memory grew by 0 MB" in fuzzer.fuzz_for(0.5, 0, running.port, 0)


def test_growth_after_the_first_clients_is_a_finding(fuzzer, monkeypatch):
    grown = iter([1e8, 4e8])
    monkeypatch.setattr(fuzzer, "SETTLED", 1)
    monkeypatch.setattr(fuzzer, "memory", lambda pid: next(grown))
    with Running(offer(Telling())) as running, pytest.raises(ValueError, match="the server grew by 300 MB"):
        fuzzer.fuzz_for(0.5, 0, running.port, 0)
