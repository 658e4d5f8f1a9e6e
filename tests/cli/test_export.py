"""dp-export writes what runs, compares it, and refuses what it cannot do."""

from pathlib import Path

import pytest

from diffusion_policy.cli.export import main
from tests.policies.test_engines import make_policy


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    make_policy().save(tmp_path / "policy.pt")
    return tmp_path / "policy.pt"


def test_export_says_how_far_and_how_fast_each_engine_is(checkpoint: Path, capsys) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    out = checkpoint.with_name("policy.onnx")
    assert main([str(checkpoint), str(out), "--steps", "2"]) == 0
    said = capsys.readouterr().out
    assert out.is_file()
    assert "policy.onnx, onnxruntime cpu float32" in said
    assert "policy.onnx, openvino float32" in said
    assert said.count("normalised actions differ by") == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["policy.tflite"], "must end in .pt2 or .onnx"),
        (["policy.onnx", "--threads", "2"], "--threads is a setting of .pt2"),
        (["policy.onnx", "--steps", "0"], "--steps must be at least 1"),
        (["policy.pt2", "--steps", "1000"], "num_inference_steps"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(checkpoint: Path, capsys, words, expected) -> None:
    out = checkpoint.with_name(words[0])
    assert main([str(checkpoint), str(out), *words[1:]]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert len(said.strip().splitlines()) == 1
    assert not out.exists()


def test_missing_checkpoint_and_existing_file_are_refused(checkpoint: Path, capsys) -> None:
    assert main([str(checkpoint.with_name("none.pt")), str(checkpoint.with_name("a.onnx"))]) == 2
    assert "does not exist" in capsys.readouterr().err
    taken = checkpoint.with_name("taken.pt2")
    taken.write_text("mine")
    assert main([str(checkpoint), str(taken)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert taken.read_text() == "mine"


def test_engine_that_answers_otherwise_is_removed_and_reported(checkpoint: Path, capsys, monkeypatch) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from diffusion_policy.policies.engines import parity

    monkeypatch.setattr(parity, "largest_difference", lambda policy, engine: float("nan"))
    out = checkpoint.with_name("policy.onnx")
    assert main([str(checkpoint), str(out), "--steps", "1"]) == 2
    assert "would answer otherwise" in capsys.readouterr().err
    assert not out.exists()
