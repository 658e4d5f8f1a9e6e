"""docs/your_env_and_data.md, word for word: files are written as they stand there, commands run in their order."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer

PAGE = Path(__file__).parents[2] / "docs" / "your_env_and_data.md"
_BLOCK = re.compile(r"(?:^`([\w./]+)`:\n\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_page_leads_from_an_environment_and_npz_files_to_a_policy_and_a_video(tmp_path: Path) -> None:
    bin_dir = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"}
    said = ""

    def run(script: str) -> str:
        done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for name, kind, content in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "bash":
            said += run(content)
            if "convert.py" in content:
                _check_conversion_again(tmp_path, run, content)
        else:
            assert name, f"a block of {kind} without a file name: {content[:60]}"
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
    result = json.loads((tmp_path / "runs/reach/eval/eval.json").read_text())
    assert result["success_rate"]["mean"] > 0.8
    video = str(tmp_path / "runs/reach/eval/rollouts.mp4")
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", video, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pixels = np.frombuffer(subprocess.run(decode, capture_output=True, check=True).stdout, np.uint8)
    assert len(pixels) > 10 * 128 * 128 * 3
    assert pixels.std() > 5
    assert said.rstrip().endswith("\nreached")
    assert (tmp_path / "runs/reach/curves.png").is_file()
    assert "Lead of diffusion: success rate" in (tmp_path / "runs/compared/report.md").read_text()


def _check_conversion_again(folder: Path, run: Callable[[str], str], script: str) -> None:
    """Whoever corrects a file runs it again; and people record more than they use, not always."""
    run(script)
    before = ReplayBuffer.open(folder / "reach.zarr").digest()
    file = folder / "episodes" / "000.npz"
    with np.load(file) as episode:
        arrays = dict(episode)
    np.savez(file, **arrays, note=np.ones(3))
    run("python convert.py")
    assert ReplayBuffer.open(folder / "reach.zarr").digest() == before
