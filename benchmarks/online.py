"""SynthER online on Pendulum: soft actor-critic with 1 and 20 gradient steps an environment step, and SynthER with 20.

    python benchmarks/online.py docs/online.png --out runs/online
    python benchmarks/online.py quick.png --json quick.json --out runs/quick --seeds 1 steps=600 sac.learning_starts=100

One run of dp-online a cell (method and seed), in a process of its own with one thread; a finished one is kept as
OUT/METHOD-seedN.json, so that an interrupted benchmark goes on with the cells that lack. With --methods, other methods
can run in another shell. Further words are settings of dp-online, for all cells. Draws the mean of the cells'
evaluations over environment steps with its 95 % bootstrap interval over seeds. JSON under benchmarks/results/, or where
--json says.

Sizes are those of preset `fast`: 10,000 environment steps, networks of 64 x 64, batch 128, a model of width 256 that is
refitted every 1,000 steps. `online=paper` has the published ones.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from diffusion_policy.rollout.statistics import bootstrap_mean

METHODS = {
    "sac1": ("SAC, 1 update a step", ("synthetic_ratio=0", "update_ratio=1"), "#999999"),
    "sac20": ("SAC, 20 updates a step", ("synthetic_ratio=0", "update_ratio=20"), "#0072B2"),
    "synther20": ("SynthER, 20 updates a step, half synthetic", ("synthetic_ratio=0.5", "update_ratio=20"), "#D55E00"),
}
Cell = dict[str, Any]


def cell(method: str, seed: int, words: list[str], out: Path) -> Cell:
    """Runs a cell, unless it is there; returns its results."""
    file = out / f"{method}-seed{seed}.json"
    asked = ["env=Pendulum-v1", *METHODS[method][1], f"seed={seed}", "device=cpu", *words]
    if file.is_file():
        found: Cell = json.loads(file.read_text())
        if found["asked"] != asked:
            raise SystemExit(f"{file} was made with {' '.join(found['asked'])}; choose another --out")
        return found
    folder = out / f"{method}-seed{seed}"
    if folder.exists():  # of an interrupted benchmark; runs are not gone on with
        shutil.rmtree(folder)
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_policy.cli.online", *asked, f"out={folder}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{method}, seed {seed}: dp-online ended with code {done.returncode}; start again to go on")
    results = {"asked": asked, **json.loads((folder / "results.json").read_text())}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(file)
    return results


def summary(cells: list[Cell]) -> dict[str, Any]:
    """Returns a method's curve: means over seeds and their intervals."""
    steps = [each["env_step"] for each in cells[0]["evaluations"]]
    returns = [[each["return"]["mean"] for each in one["evaluations"]] for one in cells]
    estimates = [bootstrap_mean(values) for values in zip(*returns, strict=True)]
    refreshes = [each for one in cells for each in one["refreshes"]]
    like = {name: [each[name] for each in refreshes] for name in ("ks_mean", "correlation_mean", "copies")}
    return {
        "seeds": [one["seeds"]["agent"] for one in cells],
        "env_steps": steps,
        "mean": [each.mean for each in estimates],
        "ci95": [list(each.ci95) for each in estimates],
        "by_seed": returns,
        "refreshes": sorted({each["env_step"] for each in refreshes}),
        "synthetic": {name: sum(values) / len(values) for name, values in like.items() if values},
        "cpu_minutes": [one["cpu_seconds"] / 60 for one in cells],
    }


def draw(curves: dict[str, dict[str, Any]], picture: Path) -> None:
    """Draws the methods' curves into a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for at in sorted({at for each in curves.values() for at in each["refreshes"]}):
        axes.axvline(at, color=METHODS["synther20"][2], linewidth=0.8, linestyle=":")
    for method, each in curves.items():
        title, _, colour = METHODS[method]
        low, high = zip(*each["ci95"], strict=True)
        axes.fill_between(each["env_steps"], low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(each["env_steps"], each["mean"], color=colour, label=title)
    axes.set(xlabel="environment step (dotted: refits)", ylabel="return of evaluation episodes")
    seeds = max(len(each["seeds"]) for each in curves.values())
    axes.set_title(f"Pendulum-v1, mean and 95 % interval over {seeds} seeds", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.3)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Runs what is missing, draws, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="settings of dp-online, for all cells")
    parser.add_argument("--out", type=Path, default=Path("runs/online"), help="folder of the cells")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "online.json")
    parser.add_argument("--seeds", type=int, default=5, help="0 .. SEEDS - 1")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args = parser.parse_intermixed_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wanted = [(method, seed) for seed in range(args.seeds) for method in args.methods]
    found = [cell(method, seed, args.words, args.out) for method, seed in wanted]
    by_method = {name: [one for (each, _), one in zip(wanted, found, strict=True) if each == name] for name in METHODS}
    curves = {name: summary(cells) for name, cells in by_method.items() if cells}
    draw(curves, args.picture)
    about = {name: found[0][name] for name in ("commit", "versions", "hardware")}
    commits = sorted({str(one["commit"]) for one in found})
    figures = {**about, "commits": commits, "settings": args.words, "methods": curves}
    args.json.write_text(json.dumps(figures, indent=1) + "\n")
    for name, each in curves.items():
        low, high = each["ci95"][-1]
        minutes = sum(each["cpu_minutes"])
        print(f"{METHODS[name][0]:44} {each['mean'][-1]:8.1f} [{low:.1f}, {high:.1f}]  {minutes:.1f} min of CPU")


if __name__ == "__main__":
    main()
