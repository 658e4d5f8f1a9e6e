"""Runs inside the peer's environment: lerobot's diffusion policy, at our benchmarks' command. Not for our environment.

    bash benchmarks/peer_env.sh && .peer/bin/python benchmarks/peer.py latency '{"down_dims": [64, 128, 256]}'

Reads lines from stdin, each a number of repetitions, and answers each with one line of JSON; the first line it writes
says that it is ready, and with which versions. Architecture as ours: horizons 2/8/16, kernel 5, 8 groups, DDIM.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import numpy as np
import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.datasets.factory import resolve_delta_timestamps
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

Measure = Callable[[int], list[float]]


STATE, POINTS, IMAGE, ACTION = "observation.state", "observation.environment_state", "observation.image", "action"


def make(settings: dict[str, Any]) -> DiffusionPolicy:
    """Returns a policy with random weights that sees the agent's position, and nine keypoints or a picture."""
    inputs = {STATE: PolicyFeature(FeatureType.STATE, (2,))}
    if settings.get("pictures"):
        inputs[IMAGE] = PolicyFeature(FeatureType.VISUAL, (3, 96, 96))
    else:
        inputs[POINTS] = PolicyFeature(FeatureType.ENV, (18,))
    config = DiffusionConfig(
        n_obs_steps=2,
        horizon=16,
        n_action_steps=8,
        down_dims=tuple(settings["down_dims"]),
        diffusion_step_embed_dim=256,
        noise_scheduler_type="DDIM",
        num_inference_steps=10,
        crop_shape=(84, 84),
        input_features=inputs,
        output_features={ACTION: PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
    )
    return DiffusionPolicy(config)


def make_dataset(episodes: Path, policy: DiffusionPolicy, root: Path) -> LeRobotDataset:
    """Returns the episodes of an .npz (arrays by our names, and `ends`) in lerobot's own format, read from disk."""
    data = np.load(episodes)
    pictures = "image" in data
    features: dict[str, Any] = {
        STATE: {"dtype": "float32", "shape": (2,), "names": None},
        ACTION: {"dtype": "float32", "shape": (2,), "names": None},
    }
    if pictures:
        features[IMAGE] = {"dtype": "image", "shape": (96, 96, 3), "names": ["height", "width", "channels"]}
    else:
        features[POINTS] = {"dtype": "float32", "shape": (18,), "names": None}
    made = LeRobotDataset.create("benchmark/episodes", fps=10, features=features, root=root, use_videos=False)
    start = 0
    for end in data["ends"]:
        for step in range(start, end):
            frame = {STATE: data["agent_pos"][step], ACTION: data["action"][step], "task": "push"}
            frame |= {IMAGE: data["image"][step]} if pictures else {POINTS: data["keypoints"][step].reshape(18)}
            made.add_frame(frame)
        made.save_episode()
        start = end
    made.finalize()
    times = resolve_delta_timestamps(policy.config, made.meta)
    return LeRobotDataset("benchmark/episodes", root=root, delta_timestamps=times)


def train(settings: dict[str, Any]) -> Measure:
    """Returns what gives the seconds of each of so many gradient steps, as lerobot-train takes them.

    Its DataLoader with its default of four workers, unless settings["loader"] is false: then one batch, already
    normalised, is used again and again. No EMA: lerobot has none.
    """
    policy = make(settings).train()
    folder = tempfile.TemporaryDirectory()
    dataset = make_dataset(Path(settings["episodes"]), policy, Path(folder.name) / "data")
    preprocess, _ = make_diffusion_pre_post_processors(policy.config, dataset.meta.stats)
    loader = torch.utils.data.DataLoader(
        dataset, num_workers=4, batch_size=settings["batch_size"], shuffle=True, prefetch_factor=2, drop_last=True
    )
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    schedule = policy.config.get_scheduler_preset().build(optimizer, 10_000)

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield from loader

    batches = endless()
    kept = None if settings["loader"] else preprocess(next(batches))

    def step() -> None:
        batch = preprocess(next(batches)) if kept is None else dict(kept)
        loss, _ = policy.forward(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        loss.item()

    def measure(count: int) -> list[float]:
        if kept is None:  # what the loader has fetched while others were measured would come for nothing
            for _ in range(loader.num_workers * loader.prefetch_factor):
                next(batches)
        step()
        times = []
        for _ in range(count):
            begin = time.perf_counter()
            step()
            times.append(time.perf_counter() - begin)
        assert folder  # lives as long as the data set
        return times

    return measure


def latency(settings: dict[str, Any]) -> Measure:
    """Returns what gives the milliseconds of each of so many chunks, batch 1."""
    policy = make(settings).eval()
    batch = {"observation.state": torch.rand(1, 2, 2), "observation.environment_state": torch.rand(1, 2, 18)}

    def measure(count: int) -> list[float]:
        times = []
        with torch.inference_mode():
            for _ in range(count):
                begin = time.perf_counter()
                policy.diffusion.generate_actions(batch)
                times.append(1000 * (time.perf_counter() - begin))
        return times

    return measure


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    measure = {"latency": latency, "train": train}[sys.argv[1]](json.loads(sys.argv[2]))
    with contextlib.redirect_stdout(sys.stderr):
        measure(3)
    print(json.dumps({name: version(name) for name in ("lerobot", "torch")}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(int(line))), flush=True)


if __name__ == "__main__":
    main()
