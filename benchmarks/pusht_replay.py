"""Push-T against the human demonstrations: replay error, coverage of open-loop replay, control steps per second.

    python benchmarks/pusht_replay.py path/to/pusht_cchi_v7_replay.zarr [--engine pymunk]

Of ours, or of the original, in which they were recorded: gym-pusht (extra pusht). One line per figure; the same as
JSON, with versions and hardware, under benchmarks/results/.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import zarr

from diffusion_policy_envs.adapters.pusht_pymunk import PymunkPhysics
from diffusion_policy_envs.pusht.physics import PushTBoard, PushTPhysics
from diffusion_policy_envs.pusht.replay import agent_velocities, max_coverage, replay

CHUNK = 8  # actions
ENGINES = {
    "mujoco": (PushTPhysics, "PushT-v0", ("mujoco", "gymnasium", "numpy", "shapely")),
    "pymunk": (PymunkPhysics, "PymunkPushT-v0", ("gym-pusht", "pymunk", "gymnasium", "numpy", "shapely")),
}


def read_episodes(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (states (N, 5), actions (N, 2)) of every episode, float64."""
    root = zarr.open(path, mode="r")
    ends = root["meta/episode_ends"][:]
    states, actions = (np.split(root[f"data/{key}"][:].astype(np.float64), ends[:-1]) for key in ("state", "action"))
    return list(zip(states, actions, strict=True))


def replay_error(
    physics: PushTBoard, episodes: list[tuple[np.ndarray, np.ndarray]], stride: int, *, at_rest: bool = False
) -> np.ndarray:
    """Returns how far the block ends from its recording after CHUNK actions, px, from every stride-th state."""
    errors = []
    for states, actions in episodes:
        velocities = agent_velocities(states[:, :2], actions) * (not at_rest)
        for i in range(0, len(states) - CHUNK, stride):
            end = replay(physics, states[i], velocities[i], actions[i : i + CHUNK])[-1]
            errors.append(np.linalg.norm(end[2:4] - states[i + CHUNK, 2:4]))
    return np.array(errors)


def steps_per_second(name: str, num_steps: int) -> float:
    """Returns control steps per second of one environment with the default observations, resets included."""
    env = gym.make(f"diffusion_policy_envs:{name}")
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(50, 450, (num_steps, 2)).astype(np.float32)
    start = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return num_steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="the human demonstrations, a zarr folder")
    parser.add_argument("--stride", type=int, default=1, help="start a replay from every stride-th state")
    parser.add_argument("--engine", choices=list(ENGINES), default="mujoco")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/pusht_replay.json, or ..._pymunk.json")
    args = parser.parse_args()
    make, env_name, packages = ENGINES[args.engine]
    suffix = "" if args.engine == "mujoco" else f"_{args.engine}"
    out = args.out or Path(__file__).parent / "results" / f"pusht_replay{suffix}.json"
    if not args.dataset.is_dir():
        parser.error(f"dataset must be a zarr folder, but there is none at {args.dataset}")

    episodes = read_episodes(args.dataset)
    physics: PushTBoard = make()
    moving, resting = (replay_error(physics, episodes, args.stride, at_rest=at_rest) for at_rest in (False, True))
    best = []
    for states, actions in episodes:
        best.append(max_coverage(replay(physics, states[0], np.zeros(2), actions)))
    figures = {
        "replay_error_median_px": float(np.median(moving)),
        "replay_error_p90_px": float(np.percentile(moving, 90)),
        "replay_error_agent_at_rest_median_px": float(np.median(resting)),
        "replay_error_agent_at_rest_p90_px": float(np.percentile(resting, 90)),
        "open_loop_mean_max_coverage": float(np.mean(best)),
        "open_loop_success_rate": float(np.mean(np.array(best) > 0.95)),
        "steps_per_second": steps_per_second(env_name, 20_000),
    }
    for name, value in figures.items():
        print(f"{name:40} {value:.4g}")
    versions = {name: importlib.metadata.version(name) for name in packages}
    hardware = {"machine": platform.machine(), "cpus": os.cpu_count(), "python": platform.python_version()}
    settings = {"episodes": len(episodes), "starts": len(moving), "actions": CHUNK}
    out.parent.mkdir(parents=True, exist_ok=True)
    result = {"figures": figures, "settings": settings, "versions": versions, "hardware": hardware}
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
