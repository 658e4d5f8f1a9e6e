"""How a gradient step and the memory grow: with batch, width, horizon, cameras, data; and what a second process brings.

    python benchmarks/scaling.py [--threads 2]

Random demonstrations, preset fast but for what is varied (batch 128, down_dims 48/96/192, pred_horizon 16, no camera).
One line each; the same as JSON under benchmarks/results/. `python benchmarks/readme.py` makes docs/scaling.md of it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from diffusion_policy import compose_config
from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.rollout.provenance import hardware
from diffusion_policy.training.assembly import assemble
from diffusion_policy.training.loop import TrainingLoop
from diffusion_policy.versions import installed_versions

CASES: dict[str, list[tuple[str, list[str]]]] = {
    "batch": [(str(size), [f"training.batch_size={size}"]) for size in (32, 64, 128, 256, 512)],
    "width": [
        ("/".join(map(str, dims)), [f"denoiser.down_dims={dims}".replace(" ", "")])
        for dims in ([32, 64, 128], [48, 96, 192], [64, 128, 256], [128, 256, 512], [256, 512, 1024])
    ],
    "pred_horizon": [
        (str(size), [f"horizons.pred_horizon={size}", "horizons.action_horizon=4"]) for size in (8, 16, 32, 64)
    ],
    "cameras": [(str(count), [f"cameras={count}"]) for count in (0, 1, 2, 3)],
}
_STEPS = 8  # timed, of each case


def write_demonstrations(path: Path, episodes: int, cameras: int) -> None:
    """Writes episodes of 100 steps: positions of an agent, nine keypoints, pictures of 96x96."""
    rng = np.random.default_rng(0)
    with ReplayBuffer.create(path) as buffer:
        for _ in range(episodes):
            place = np.cumsum(rng.normal(size=(100, 2)), axis=0).astype(np.float32) + 256
            steps = {"agent_pos": place, "action": place, "keypoints": np.repeat(place[:, None], 9, axis=1)}
            for camera in range(cameras):
                steps[f"camera{camera}"] = rng.integers(0, 256, (100, 96, 96, 3), dtype=np.uint8)
            buffer.add_episode(steps)


def settings(dataset: Path, changes: list[str]) -> dict[str, Any]:
    """Returns the configuration of a run."""
    cameras = next((int(each.partition("=")[2]) for each in changes if each.startswith("cameras=")), 0)
    rest = [each for each in changes if not each.startswith("cameras=")]
    config = compose_config(
        "train",
        "task=pusht",
        "preset=fast",
        f"dataset={dataset}",
        "out=unused",
        "device=cpu",
        "data.mirror=false",
        *rest,
    )
    for camera in range(cameras):
        config["obs"][f"camera{camera}"] = {"type": "rgb", "shape": [96, 96, 3]}
    config["obs"]["agent_pos"].pop("source", None)
    config["action"].pop("low", None)
    config["action"].pop("high", None)
    config["obs"]["keypoints"].pop("source", None)
    return config


def step_ms(loop: TrainingLoop) -> float:
    """Returns the median time of a gradient step, milliseconds."""
    for _ in range(3):
        loop.step()
    times = []
    for _ in range(_STEPS):
        begin = time.perf_counter()
        loop.step()
        times.append(time.perf_counter() - begin)
    return 1000 * median(times)


def memory() -> dict[str, dict[str, float]]:
    """Returns what 100,000 steps take: in the memory of a run, and what their windows would if they were copied."""
    steps, found = 2000, {}
    for name, field in {"numbers": ObsField("low_dim", (20,)), "one camera": ObsField("rgb", (96, 96, 3))}.items():
        with tempfile.TemporaryDirectory() as folder:
            dtype = np.uint8 if field.is_picture else np.float32
            with ReplayBuffer.create(Path(folder) / "a.zarr") as buffer:
                for _ in range(steps // 100):
                    seen = np.ones((100, *field.shape), dtype)
                    buffer.add_episode({"seen": seen, "action": np.ones((100, 2), np.float32)})
                windows = WindowDataset.from_buffer(buffer, {"seen": field}, ActionSpec((2,)), Horizons(2, 8, 16))
            held = sum(
                tensor.numel() * tensor.element_size()
                for tensor in (windows.all_actions(), windows._bounds, *(rows.values for rows in windows._obs.values()))
            )
            copied = len(windows) * (2 * field.size * np.dtype(dtype).itemsize + 16 * 2 * 4)
        found[name] = {"resident_mb": held / steps / 10, "as_copied_windows_mb": copied / steps / 10}
    return found


def processes(dataset: Path, folder: Path, threads: int) -> dict[str, float]:
    """Returns samples a second of one run on one process with all threads, and on as many processes of one thread."""
    common = ["task=pusht", "preset=fast", f"dataset={dataset}", "training.num_grad_steps=150", "training.log_every=50"]
    common += ["training.val_every=0", "training.checkpoint_every=0", "data.mirror=false", "logger.tensorboard=false"]
    command = [sys.executable, "-m", "diffusion_policy.cli.train", *common]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={threads}"]
    starts = {"1": command, str(threads): [*several, "-m", *command[2:]]}
    found = {}
    for name, words in starts.items():
        env = {**os.environ, "OMP_NUM_THREADS": str(threads if name == "1" else 1)}
        out = folder / f"processes{name}"
        subprocess.run([*words, f"out={out}"], env=env, check=True, capture_output=True)
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        found[name] = median(record["samples_per_s"] for record in records if record["kind"] == "train")
    return found


def main() -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scaling.json")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        datasets = {cameras: folder / f"cameras{cameras}.zarr" for cameras in (0, 3)}
        for cameras, path in datasets.items():
            write_demonstrations(path, 60 if cameras == 0 else 10, cameras)
        found: dict[str, Any] = {}
        for case, choices in CASES.items():
            found[case] = {}
            for label, changes in choices:
                loop = assemble(settings(datasets[3 if case == "cameras" else 0], changes)).loop
                ms = step_ms(loop)
                parameters = sum(each.numel() for each in loop.objective.model.parameters())
                figures = {"ms": ms, "samples_per_second": 1000 * loop.config.batch_size / ms, "parameters": parameters}
                found[case][label] = figures
                print(f"{case:13}{label:16} " + "  ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)
        found["processes"] = processes(datasets[0], folder, args.threads)
        found["memory_per_100000_steps"] = memory()
        print(found["processes"], found["memory_per_100000_steps"])
    result = {"threads": args.threads, "cases": found, "versions": installed_versions(), "hardware": hardware()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
