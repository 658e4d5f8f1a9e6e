"""A small run that trains in a second: points that move towards a goal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "demos.zarr"
    rng = np.random.default_rng(0)
    with ReplayBuffer.create(path) as buffer:
        for _ in range(6):
            goal = rng.uniform(-1, 1, 2)
            pos = goal + rng.normal(size=(20, 2)).cumsum(0) * 0.1
            buffer.add_episode({"pos": pos.astype(np.float32), "action": (goal - pos).astype(np.float32)})
    return path


@pytest.fixture
def make_config(dataset: Path) -> Callable[..., dict[str, Any]]:
    def make(out: Path, **training: Any) -> dict[str, Any]:
        return {
            "env": {"id": "nowhere:None-v0", "kwargs": {}},
            "obs": {"pos": {"type": "low_dim", "shape": [2]}},
            "action": {"shape": [2]},
            "dataset": str(dataset),
            "data": {"val_ratio": 0.2},
            "horizons": {"obs_horizon": 2, "action_horizon": 2, "pred_horizon": 4},
            "denoiser": {"name": "unet1d", "down_dims": [8, 16], "n_groups": 4, "embed_dim": 8, "kernel_size": 3},
            "diffusion": {"num_train_timesteps": 20, "prediction_type": "sample"},
            "sampler": {"num_inference_steps": 4},
            "optim": {"lr": 1e-3, "warmup_steps": 5},
            "training": {
                "num_grad_steps": 40, "batch_size": 16, "log_every": 7, "val_every": 20, "checkpoint_every": 10,
                **training,
            },
            "seed": 1,
            "device": "cpu",
            "out": str(out),
        }  # fmt: skip

    return make
