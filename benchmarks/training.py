"""Samples a second of training, from data set to updated weights: ours and lerobot, the same networks, in turn.

    python benchmarks/training.py [--threads 2] [--rounds 5]

small and full: Push-T from numbers; image: from one 96x96 camera, cropped to 84, ResNet-18, and the small U-Net.
lerobot reads its own format through its own loader; "data in memory" is lerobot without one: a single batch again and
again.
One line each; the same as JSON under benchmarks/results/, and a pie of where a step's time goes, docs/step_time.png.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "small": {"down_dims": [64, 128, 256], "batch_size": 256, "steps": 16},
    "full": {"down_dims": [256, 512, 1024], "batch_size": 64, "steps": 4},
    "image": {"down_dims": [64, 128, 256], "batch_size": 64, "steps": 6, "pictures": True},
}
OURS = {"ours float32": False, "ours bfloat16": True}
PEERS = {"lerobot": True, "lerobot, data in memory": False}
_PEER_EPISODES = 20  # lerobot's own format is written slowly


def make_loop(case: str, dataset: Path, bf16: bool) -> Any:
    """Returns the training loop that dp-train would run."""
    from diffusion_policy import compose_config
    from diffusion_policy.training.assembly import assemble

    settings = CASES[case]
    config = compose_config(
        "train",
        "task=pusht_image" if settings.get("pictures") else "task=pusht",
        "preset=fast",
        f"dataset={dataset}",
        "out=unused",
        f"training.batch_size={settings['batch_size']}",
        f"training.bf16={bf16}",
        "training.num_grad_steps=10000",
        "device=cpu",
        "data.mirror=false",
        "denoiser=unet1d",
        f"denoiser.down_dims={settings['down_dims']}",
        "denoiser.embed_dim=256",
        "diffusion.prediction_type=epsilon",
        "encoder.hidden_dims=[]",
        "encoder.types.rgb.name=resnet18",
        "encoder.types.rgb.crop=[84,84]",
    )
    return assemble(config).loop


def contest(case: str, dataset: Path, bf16: bool) -> None:
    """Answers lines from stdin; see `rounds.Contestant`."""
    loop = make_loop(case, dataset, bf16)
    for _ in range(3):
        loop.step()
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            loop.step()
            times.append(time.perf_counter() - begin)
        print(json.dumps(times), flush=True)


def shares(case: str, dataset: Path, bf16: bool, steps: int) -> dict[str, float]:
    """Returns what part of a step each of its stages takes."""
    import torch

    loop, spent = make_loop(case, dataset, bf16), dict[str, float]()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            result = function(*args, **kwargs)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - begin
            return result

        return call

    loop.step()
    loop.dataset.batch = timed("data", loop.dataset.batch)
    loop.objective.loss = timed("forward", loop.objective.loss)
    loop.optimizer.step = timed("AdamW", loop.optimizer.step)
    loop.ema.step = timed("EMA", loop.ema.step)
    before = torch.Tensor.backward, torch.nn.utils.clip_grad_norm_
    torch.Tensor.backward = timed("backward", before[0])
    torch.nn.utils.clip_grad_norm_ = timed("gradient norm", before[1])
    try:
        begin = time.perf_counter()
        for _ in range(steps):
            loop.step()
        total = time.perf_counter() - begin
    finally:
        torch.Tensor.backward, torch.nn.utils.clip_grad_norm_ = before
    return {name: seconds / total for name, seconds in spent.items()} | {"rest": 1 - sum(spent.values()) / total}


def draw(parts: dict[str, dict[str, float]], path: Path) -> None:
    """Draws one pie for each case."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = ["forward", "backward", "gradient norm", "AdamW", "EMA", "data", "rest"]
    colors = dict(zip(names, plt.get_cmap("tab10").colors, strict=False))
    figure, axes = plt.subplots(1, len(parts), figsize=(4 * len(parts), 2.8))
    for axis, (case, share) in zip(axes, parts.items(), strict=True):
        shown = [name for name in names if share.get(name, 0) > 0.005]
        wedges, _ = axis.pie(
            [share[name] for name in shown],
            colors=[colors[name] for name in shown],
            startangle=90,
            counterclock=False,
        )
        said = [f"{name} {share[name]:.0%}" for name in shown]
        axis.legend(wedges, said, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
        axis.set_title(case)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def prepare(folder: Path) -> dict[str, Path]:
    """Returns the data sets: {"numbers", "pictures"} as zarr, and "numbers.npz", "pictures.npz" for the peer."""
    import numpy as np

    from diffusion_policy.data.replay_buffer import ReplayBuffer
    from diffusion_policy.paths import resolve_dataset

    files = {"numbers": resolve_dataset("package://pusht"), "pictures": folder / "pictures.zarr"}
    few = folder / "few.zarr"
    with ReplayBuffer.open(files["numbers"]) as buffer, ReplayBuffer.create(few) as chosen:
        for index in range(4 * _PEER_EPISODES):
            chosen.add_episode(buffer.get_episode(index))
        ends = buffer.episode_ends[:_PEER_EPISODES]
        arrays = {key: buffer.read(key, 0, int(ends[-1])) for key in ("agent_pos", "keypoints", "action")}
    np.savez(folder / "numbers.npz", ends=ends, **arrays)
    command = [sys.executable, "-m", "diffusion_policy.cli.render", "task=pusht_image"]
    subprocess.run([*command, f"dataset={few}", f"out={files['pictures']}"], check=True, stdout=subprocess.DEVNULL)
    with ReplayBuffer.open(files["pictures"]) as buffer:
        arrays = {key: buffer.read(key, 0, int(ends[-1])) for key in ("agent_pos", "image", "action")}
    np.savez(folder / "pictures.npz", ends=ends, **arrays)
    return {**files, "numbers.npz": folder / "numbers.npz", "pictures.npz": folder / "pictures.npz"}


def measure(case: str, files: dict[str, Path], threads: int, rounds: int) -> dict[str, Any]:
    """Returns all figures of one case."""
    from benchmarks.rounds import Contestant, in_turn, peer, ratios

    settings, kind = CASES[case], "pictures" if CASES[case].get("pictures") else "numbers"
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for name, bf16 in OURS.items():
            command = [sys.executable, __file__, "--contest", case, "--dataset", files[kind], "--bf16", str(int(bf16))]
            contestants[name] = stack.enter_context(Contestant(command, threads))
        for name, loader in PEERS.items():
            against = peer("train", {**settings, "loader": loader, "episodes": str(files[f"{kind}.npz"])}, threads)
            if against is not None:
                contestants[name] = stack.enter_context(against)
        times = in_turn(contestants, rounds, settings["steps"], mean)
        versions = {key: said for each in contestants.values() for key, said in each.versions.items()}
    figures: dict[str, Any] = {}
    for name, seconds in times.items():
        figures[name] = {"samples_per_second": settings["batch_size"] / median(seconds), "rounds_s": seconds}
        for other in PEERS if name in OURS else ():
            if other in times:
                figures[name][f"times as fast as {other}"] = ratios(times[other], seconds)
        said = {key: value["median"] for key, value in figures[name].items() if isinstance(value, dict)}
        print(
            f"{case:6}{name:24} {figures[name]['samples_per_second']:7.1f} samples/s  "
            + "  ".join(f"{value:.2f} {key}" for key, value in said.items()),
            flush=True,
        )
    return {"batch_size": settings["batch_size"], "contestants": figures, "versions": versions}


def main() -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.json")
    parser.add_argument("--pie", type=Path, default=Path(__file__).parent.parent / "docs" / "step_time.png")
    parser.add_argument("--contest", help=argparse.SUPPRESS)
    parser.add_argument("--dataset", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bf16", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contest:
        contest(args.contest, args.dataset, bool(args.bf16))
        return

    import torch

    from diffusion_policy.rollout.provenance import hardware
    from diffusion_policy.versions import installed_versions

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        files = prepare(Path(name))
        cases = {case: measure(case, files, args.threads, args.rounds) for case in args.cases}
        for case in args.cases:
            kind = "pictures" if CASES[case].get("pictures") else "numbers"
            cases[case]["shares_of_a_step"] = shares(case, files[kind], True, 10)
    draw({case: figures["shares_of_a_step"] for case, figures in cases.items()}, args.pie)
    result = {"threads": args.threads, "cases": cases, "versions": installed_versions(), "hardware": hardware()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for benchmarks.rounds
    main()
