"""Draws how steadily methods train: loss, error of the actions and success over gradient steps, a row a method.

    dp-train task=pusht policy=ibc training.rollout_every=1000 out=runs/ibc
    dp-train task=pusht training.rollout_every=1000 out=runs/diffusion
    python benchmarks/stability.py docs/stability.png ibc=runs/ibc diffusion=runs/diffusion

The figure of Chi et al. 2023 (section IV-D): a loss that falls while actions get worse says nothing of a policy.
"""

import argparse
from pathlib import Path

from diffusion_policy.training.metrics import read_metrics

PANELS = (
    ("training loss", "train", "loss"),
    ("error of sampled actions, training episodes", "validation", "train_action_rmse"),
    ("success rate, validation seeds", "rollout", "success_rate"),
)


def draw(runs: dict[str, Path], picture: Path) -> None:
    """Draws the runs' metrics into a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(len(runs), len(PANELS), figsize=(4.2 * len(PANELS), 2.6 * len(runs)), squeeze=False)
    for row, (name, folder) in zip(rows, runs.items(), strict=True):
        records = read_metrics(folder / "metrics.jsonl")
        for axis, (title, kind, key) in zip(row, PANELS, strict=True):
            points = [(each["grad_step"], each[key]) for each in records if each["kind"] == kind and key in each]
            axis.plot(*zip(*points, strict=True) if points else ((), ()), marker="o", markersize=3)
            axis.set_title(f"{name}: {title}", fontsize=9)
            axis.grid(alpha=0.3)
            if kind == "rollout":
                axis.set_ylim(-0.03, 1.03)
        row[1].set_ylim(0)
    for axis in rows[-1]:
        axis.set_xlabel("gradient step")
    figure.tight_layout()
    figure.savefig(picture, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    args = parser.parse_args()
    draw({word.partition("=")[0]: Path(word.partition("=")[2]) for word in args.runs}, args.picture)


if __name__ == "__main__":
    main()
