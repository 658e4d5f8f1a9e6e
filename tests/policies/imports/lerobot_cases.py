"""Checkpoints as LeRobot writes them, with what it answers; shared by the default tests and the slow ones."""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from tests.policies.imports import seeded

ROWS, STEPS = 2, 5


@dataclass(frozen=True)
class Case:
    """One checkpoint of LeRobot and its answers; see lerobot_side.py."""

    folder: Path
    told: dict[str, Any]
    noise: np.ndarray  # (calls, 1 + N, B, Tp, Da)
    predictions: np.ndarray  # (calls, B, Tp, Da), normalised
    actions: np.ndarray  # (steps, B, Da)

    @classmethod
    def read(cls, folder: Path) -> "Case":
        """Returns what LeRobot's side has written."""
        with np.load(folder / "answers.npz") as stored:
            told = json.loads(str(stored["told"]))
            return cls(folder, told, stored["noise"], stored["predictions"], stored["actions"])

    def observations(self) -> dict[str, np.ndarray]:
        """Returns {key: (STEPS, B, *shape)} as our policies take them: pictures are bytes, channels last."""
        drawn = seeded.observations(self.told["features"], ROWS, STEPS, 5)
        return {key: np.moveaxis(value, 2, -1) if value.ndim == 5 else value for key, value in drawn.items()}

    def window(self, policy: DiffusionPolicy, call: int) -> dict[str, np.ndarray]:
        """Returns {key: (B, To, *shape)}, what a prediction sees; the first observation fills what was before it."""
        now = call * policy.horizons.action_horizon
        steps = [max(0, now - back) for back in reversed(range(policy.horizons.obs_horizon))]
        return {key: np.stack([value[step] for step in steps], 1) for key, value in self.observations().items()}

    def row_noise(self, policy: DiffusionPolicy, call: int) -> np.ndarray:
        """Returns the noise of a prediction as our policies take it, (B, *noise_shape)."""
        rows = np.moveaxis(self.noise[call], 1, 0)  # (B, 1 + N, Tp, Da)
        return rows[:, 0] if len(policy.noise_shape) == 2 else rows[:, : policy.noise_shape[0]]

    def largest_difference(self, policy: DiffusionPolicy) -> float:
        """Returns how far normalised predictions are from LeRobot's, at most."""
        found = []
        with torch.inference_mode():
            for call, expected in enumerate(self.predictions):
                obs = {key: torch.from_numpy(value.copy()) for key, value in self.window(policy, call).items()}
                noise = torch.from_numpy(self.row_noise(policy, call).copy())
                x0 = policy.sample(policy.condition(obs), noise)
                found.append(float((x0 - torch.from_numpy(expected)).abs().max()))
        return max(found)


def write_weights(case: Case) -> None:
    """Writes model.safetensors with the seeded weights."""
    write_safetensors(case.folder / "model.safetensors", seeded.weights(case.told["shapes"], 3))


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a .safetensors file."""
    names = {np.dtype(np.float32): "F32", np.dtype(np.int64): "I64"}
    header, at = {}, 0
    for name, value in arrays.items():
        size = value.dtype.itemsize * math.prod(value.shape)
        header[name] = {"dtype": names[value.dtype], "shape": list(value.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for value in arrays.values():
            file.write(np.ascontiguousarray(value).tobytes())
