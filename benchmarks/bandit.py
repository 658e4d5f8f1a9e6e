"""The bandit of Wang, Hunt and Zhou 2022 (section 5): four corners of actions, one of which pays best; who finds it?

    python benchmarks/bandit.py docs/bandit.png --out runs/bandit

Draws what each method samples, and writes the shares beside the picture (bandit.json): of samples nearest to the best
corner, and within 0.15 of any corner. Runs that stand in --out are not trained again; interrupted ones go on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_policy import ReplayBuffer, train
from diffusion_policy.policies.library import load_policy
from diffusion_policy.rollout.provenance import commit

CORNERS = np.array([[-0.8, 0.8], [0.8, 0.8], [-0.8, -0.8], [0.8, -0.8]], np.float32)
REWARDS = np.array([3.0, 0.0, 1.5, 5.0])
SHOWN = 1000
STEPS = (2, 5, 10, 50)
Run = tuple[str, dict[str, Any]]


def demonstrations(path: Path, count: int = 10_000) -> np.ndarray:
    """Writes one-step episodes at the corners (deviation 0.05, of rewards 0.5); returns their actions (N, 2)."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, 4, count)
    action = (CORNERS[which] + 0.05 * rng.standard_normal((count, 2))).clip(-1, 1).astype(np.float32)
    reward = (REWARDS[which] + 0.5 * rng.standard_normal(count)).astype(np.float32)
    if not path.exists():
        with ReplayBuffer.create(path) as buffer:
            once = {"pos": np.zeros((1, 1), np.float32), "terminated": np.ones(1, bool)}
            buffer.add_episodes(
                [{**once, "action": a[None], "reward": r[None]} for a, r in zip(action, reward, strict=True)]
            )
    return action


def runs() -> list[Run]:
    """Returns (title, the sections that are a method's own)."""
    critic = {"hidden_dims": [256, 256, 256]}
    listed: list[Run] = [
        ("Gaussian imitation", {"policy": {"name": "gaussian", "deterministic": False}}),
        (
            "TD3+BC",
            {
                "policy": {"name": "mlp", "hidden_dims": [256, 256], "activation": "relu", "squash": True},
                "agent": {"name": "td3_bc", "critic": {"hidden_dims": [256, 256], "activation": "relu"}},
            },
        ),
    ]
    climbing: dict[str, Any] = {"name": "diffusion_ql", "eta": 2.5, "num_candidates": 1, "critic": critic}
    for title, chosen in (("diffusion imitation", {}), ("Diffusion-QL", {"agent": climbing})):
        for steps in STEPS:
            own = {
                "denoiser": {"name": "mlp"},
                "diffusion": {"num_train_timesteps": steps, "beta_schedule": "vp"},
                "sampler": {"name": "ddpm", "num_inference_steps": steps},
                **chosen,
            }
            listed.append((f"{title}, T = {steps}", own))
    return listed


def settings(own: dict[str, Any], data: Path, folder: Path) -> dict[str, Any]:
    """Returns the configuration of a run."""
    return {
        "env": {"id": "none"},
        "obs": {"pos": {"type": "low_dim", "shape": [1]}},
        "action": {"shape": [2], "low": -1.0, "high": 1.0},
        "dataset": str(data),
        "data": {"val_ratio": 0.0, **({"ends": "terminated"} if "agent" in own else {})},
        "horizons": {"obs_horizon": 1, "action_horizon": 1, "pred_horizon": 1},
        "normalization": {"obs": "identity", "action": "identity"},
        "optim": {"lr": 1e-3, "betas": [0.9, 0.999], "warmup_steps": 0, "lr_schedule": "constant"},
        "training": {"num_grad_steps": 3000, "batch_size": 256, "ema_max": 0.995, "val_every": 0},
        "device": "cpu",
        "out": str(folder),
        **own,
    }


def samples(title: str, own: dict[str, Any], data: Path, out: Path) -> np.ndarray:
    """Trains, or goes on with what was interrupted, and returns actions (n, 2)."""
    folder = out / title.lower().replace(" = ", "").replace(", ", "-").replace(" ", "_").replace("+", "_")
    train({"resume": str(folder)} if (folder / "config.yaml").is_file() else settings(own, data, folder))
    policy = load_policy(folder / "policy.pt")
    noise = np.random.default_rng(1).standard_normal((SHOWN, *policy.noise_shape), np.float32)
    actions: np.ndarray = policy.predict({"pos": np.zeros((SHOWN, 1, 1), np.float32)}, noise).actions[:, 0]
    return actions


def shares(actions: np.ndarray) -> dict[str, float]:
    """Returns the share of samples nearest to the best corner, and of those near any."""
    far = np.linalg.norm(actions[:, None] - CORNERS, axis=2)
    return {"best": float((far.argmin(1) == REWARDS.argmax()).mean()), "on_data": float((far.min(1) < 0.15).mean())}


def draw(panels: list[tuple[str, np.ndarray]], picture: Path) -> None:
    """Draws samples, coloured by the nearest corner; what each corner pays stands at it in the first panel."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colours = np.array(["#0072B2", "#999999", "#E69F00", "#009E73"])
    columns = len(STEPS)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.75 * rows), layout="constrained")
    grid = [*axes[0, :-1], *axes[1:].flat]
    axes[0, -1].axis("off")
    for place, (title, actions) in zip(grid, panels, strict=True):
        nearest = np.linalg.norm(actions[:, None] - CORNERS, axis=2).argmin(1)
        place.scatter(*actions.T, s=3, c=colours[nearest], alpha=0.5, linewidths=0)
        place.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=(-0.8, 0.8), yticks=(-0.8, 0.8), aspect="equal")
        best = f"{shares(actions)['best']:.0%} nearest to the best" if title != "data" else "and what corners pay"
        place.set_title(f"{title}\n{best}", fontsize=9)
    for corner, reward, colour in zip(CORNERS, REWARDS, colours, strict=True):
        grid[0].annotate(f"{reward:g}", corner * 0.6, color=colour, ha="center", va="center", weight="bold")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)


def main() -> None:
    """Trains what is missing, draws, writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/bandit"), help="folder of the runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.out / "bandit.zarr"
    panels = [("data", demonstrations(data)[:SHOWN])]
    panels += [(title, samples(title, own, data, args.out)) for title, own in runs()]
    draw(panels, args.picture)
    figures = {"commit": commit(), "seed": 0, "samples": SHOWN, "runs": {title: shares(a) for title, a in panels}}
    args.picture.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")
    for title, each in figures["runs"].items():
        print(f"{title:28} best {each['best']:.3f}  near any corner {each['on_data']:.3f}")


if __name__ == "__main__":
    main()
