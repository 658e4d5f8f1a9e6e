"""How fast pictures reach the network: windows a second from memory with crops, and training from a file.

    python benchmarks/pictures.py pusht_image.zarr

One line per figure; the same as JSON, with versions and hardware, in results/pictures.json. Windows are counted on one
thread. Each training is a process of its own, so that its memory (getrusage) is its own: all pictures in memory, all
in a file, and, for comparison, five episodes in memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_policy import ReplayBuffer
from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.models.view import View
from diffusion_policy.rollout.provenance import hardware
from diffusion_policy.versions import installed_versions

BATCH, CROP, SHAPE = 64, 0.9, (96, 96, 3)


def windows_per_second(dataset: Path, seconds: float) -> dict[str, float]:
    """Returns the rates of gathering, gathering and cropping, and of what the network gets (floats)."""
    torch.set_num_threads(1)
    field = ObsField("rgb", SHAPE, source="image")
    with ReplayBuffer.open(dataset) as buffer:
        episodes = np.arange(min(50, buffer.num_episodes))
        data = WindowDataset.from_buffer(
            buffer, {"image": field}, ActionSpec((2,)), Horizons(2, 8, 16), episodes=episodes
        )
    view, rng = View(SHAPE, crop=CROP).train(), np.random.default_rng(0)

    def rate(look: Any) -> float:
        done, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            look(data.batch(rng.integers(len(data), size=BATCH)).obs["image"].flatten(0, 1))
            done += BATCH
        return done / (time.perf_counter() - begin)

    return {"gathered": rate(lambda x: x), "gathered, cropped, as floats": rate(view)}


def training(dataset: Path, steps: int, *settings: str) -> dict[str, float]:
    """Returns samples a second of the second half of a short training, and the peak memory of its process in MB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "diffusion_policy.cli.train", "task=pusht_image", "preset=fast",
            f"dataset={dataset}", f"out={folder}/run", f"training.num_grad_steps={steps}", "optim.warmup_steps=1",
            "data.mirror=false", "training.val_every=0", f"training.log_every={steps // 2}",
            "training.checkpoint_every=0", *settings,
        ]  # fmt: skip
        environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache"}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(said)
        records = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
        rate = [record["samples_per_s"] for record in records if record["kind"] == "train"][-1]
        return {"samples_per_s": rate, "peak_mb": usage.ru_maxrss / 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="what dp-render task=pusht_image made of the human demonstrations")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    machine = hardware()  # before this process takes one thread for itself
    windows = windows_per_second(arguments.dataset, arguments.seconds)
    for name, rate in windows.items():
        print(f"{rate:8.0f} windows/s {name} (To 2, 96x96, one thread)")
    few = training(arguments.dataset, arguments.steps, "data.episodes=5")
    near = training(arguments.dataset, arguments.steps)
    far = training(arguments.dataset, arguments.steps, "data.memory_limit=50MB")
    ratio, added = far["samples_per_s"] / near["samples_per_s"], far["peak_mb"] - few["peak_mb"]
    print(f"training from a file: {ratio:.2f} of the rate from memory ({far['samples_per_s']:.0f} samples/s)")
    print(f"memory beside that of five episodes: {added:.0f} MB from a file, {near['peak_mb'] - few['peak_mb']:.0f} MB")
    result = {"windows_per_s": windows, "few": few, "memory": near, "file": far, "ratio": ratio, "added_mb": added}
    path = Path(__file__).parent / "results" / "pictures.json"
    path.write_text(json.dumps({**result, "versions": installed_versions(), "hardware": machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
