"""Documents say what benchmarks measured."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from diffusion_policy.data.doctor.kinds import KINDS

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
    for document in readme.documents():
        text = document.read_text(encoding="utf-8")
        assert readme.filled(text) == text, f"make {document.name} anew: python benchmarks/readme.py"
    assert readme.scaling() == (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_every_table_has_one_place_in_the_documents(readme: ModuleType) -> None:
    texts = [document.read_text(encoding="utf-8") for document in readme.documents()]
    for name in readme.parts():
        for marker in readme.markers(name):
            assert sum(text.count(marker) for text in texts) == 1, marker


def test_links_and_pictures_of_the_documents_lead_somewhere(readme: ModuleType) -> None:
    for document in readme.documents():
        text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            if "://" in link:
                continue
            target = (document.parent / path) if path else document
            assert target.exists(), f"{document.name}: {link}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
                known = [re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads]
                assert anchor in known, f"{document.name}: {link}"


def test_every_finding_of_inspect_stands_in_its_document() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    table = text[text.index("## What dp-inspect finds") : text.index("## Mending")]
    assert re.findall(r"^\| [^|]*\(`([a-z-]+)`\)", table, flags=re.MULTILINE) == list(KINDS)


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
