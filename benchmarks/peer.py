"""Runs inside the peer's environment: lerobot's diffusion policy, at our benchmarks' command. Not for our environment.

    bash benchmarks/peer_env.sh && .peer/bin/python benchmarks/peer.py latency '{"down_dims": [64, 128, 256]}'

Reads lines from stdin, each a number of repetitions, and answers each with one line of JSON; the first line it writes
says that it is ready, and with which versions. Architecture as ours: horizons 2/8/16, kernel 5, 8 groups, DDIM.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

Measure = Callable[[int], list[float]]


def make(settings: dict[str, Any]) -> DiffusionPolicy:
    """Returns a policy with random weights that sees the agent's position and nine keypoints."""
    shapes = {"observation.state": (FeatureType.STATE, (2,)), "observation.environment_state": (FeatureType.ENV, (18,))}
    config = DiffusionConfig(
        n_obs_steps=2,
        horizon=16,
        n_action_steps=8,
        down_dims=tuple(settings["down_dims"]),
        diffusion_step_embed_dim=256,
        noise_scheduler_type="DDIM",
        num_inference_steps=10,
        input_features={name: PolicyFeature(kind, shape) for name, (kind, shape) in shapes.items()},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        device="cpu",
    )
    return DiffusionPolicy(config)


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
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    measure = {"latency": latency}[sys.argv[1]](json.loads(sys.argv[2]))
    measure(3)
    print(json.dumps({name: version(name) for name in ("lerobot", "torch")}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(int(line))), flush=True)


if __name__ == "__main__":
    main()
