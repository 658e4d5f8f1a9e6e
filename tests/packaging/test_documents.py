"""Documents say what benchmarks measured."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_tables", ROOT / "benchmarks" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_in_the_documents_are_those_of_the_stored_figures(readme: ModuleType) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.filled(text) == text, "make them anew: python benchmarks/readme.py"
    assert readme.scaling() == (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_another_figure_makes_another_table(readme: ModuleType, tmp_path: Path, monkeypatch) -> None:
    figures = readme.stored("latency")
    figures["sizes"]["small"]["engines"]["aoti float32"]["ms"] *= 2
    (tmp_path / "latency.json").write_text(json.dumps(figures))
    before = readme.latency()
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert readme.latency() != before


def test_every_stored_figure_says_on_what_it_was_measured() -> None:
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert {"versions", "hardware"} <= set(json.loads(file.read_text())), file.name
