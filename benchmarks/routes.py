"""Draws the ways that policies take through Detour: one panel a policy, a line an episode, all from the same place.

    python benchmarks/routes.py docs/routes.png diffusion=runs/diffusion mlp=runs/mlp

Each name is followed by a training run's folder. Episodes have seeds from 100000 on; the first panel is the expert.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

ENV_ID = "diffusion_policy_envs:Detour-v0"
SEED = 100_000
SIZE = 512
Episode = tuple[np.ndarray, dict[str, Any]]  # positions (T, 2), m, and the last info


def expert_episodes(count: int) -> list[Episode]:
    """Returns what the scripted expert does."""
    env = gym.make(ENV_ID)
    return [_episode(env, SEED + i, env.unwrapped.make_expert(SEED + i)) for i in range(count)]  # type: ignore[attr-defined]


def policy_episodes(folder: Path, count: int) -> list[Episode]:
    """Returns what the policy of a run does, noise as in dp-eval."""
    from diffusion_policy.policies.controller import RecedingHorizonController

    controller = RecedingHorizonController.load(folder / "policy.pt", batch_size=1)
    env = gym.make(ENV_ID)
    episodes = []
    for seed in range(SEED, SEED + count):
        controller.reset(seeds=seed)
        episodes.append(_episode(env, seed, lambda obs, _: controller.act({k: obs[k] for k in controller.obs_spec})))
    return episodes


def _episode(env: gym.Env[Any, Any], seed: int, act: Any) -> Episode:
    obs, info = env.reset(seed=seed)
    places, ended = [obs["agent_pos"]], False
    while not ended:
        obs, _, terminated, truncated, info = env.step(act(obs, info))
        places.append(obs["agent_pos"])
        ended = terminated or truncated
    return np.array(places), info


def draw(panels: dict[str, list[Episode]], picture: Path) -> None:
    """Draws green lines to the finish and red ones to a collision."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    env = gym.make(ENV_ID).unwrapped
    table = env.picture({"agent_pos": np.array([0.0, 0.1])}, SIZE)  # type: ignore[attr-defined]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 4.4), squeeze=False)
    for axis, (name, episodes) in zip(axes[0], panels.items(), strict=True):
        axis.imshow(table, extent=(0, SIZE, SIZE, 0))
        for places, info in episodes:
            x, y = env.action_pixels(places, SIZE).T  # type: ignore[attr-defined]
            axis.plot(x, y, color="#009E73" if info["is_success"] else "#D55E00", alpha=0.35, linewidth=1.2)
            if not info["is_success"]:
                axis.plot(x[-1], y[-1], "x", color="#D55E00", markersize=5)
        reached = [info["behavior"] for _, info in episodes if info["is_success"]]
        axis.set_title(
            f"{name}\n{len(reached)} of {len(episodes)} arrive, {len(set(reached))} of 16 routes", fontsize=10
        )
        axis.set_xlim(SIZE * 0.08, SIZE * 0.92)
        axis.axis("off")
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(picture, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--episodes", type=int, default=100)
    args = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the commands do: on busy cores, waiting threads must sleep
    panels = {"demonstrations": expert_episodes(args.episodes)}
    for word in args.runs:
        name, _, folder = word.partition("=")
        panels[name] = policy_episodes(Path(folder), args.episodes)
    draw(panels, args.picture)


if __name__ == "__main__":
    main()
