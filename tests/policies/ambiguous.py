"""Demonstrations that answer one observation in two ways, and what a policy makes of them."""

from functools import cache
from typing import Any

import numpy as np
import torch

from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.policies.library import make_policy
from diffusion_policy.policies.policy import Policy

UPPER, SHARE, STD = 0.5, 0.7, 0.02
_CHUNK = {"obs_horizon": 1, "action_horizon": 1, "pred_horizon": 4}
_STEPWISE = {"obs_horizon": 2, "action_horizon": 1, "pred_horizon": 2}
_UNET = {"name": "unet1d", "down_dims": [16, 32], "n_groups": 4, "embed_dim": 16}
_SETTINGS: dict[str, tuple[int, dict[str, Any]]] = {
    "diffusion": (500, {"horizons": _CHUNK, "denoiser": _UNET}),
    "flow": (700, {"horizons": _CHUNK, "denoiser": _UNET}),
    "mlp": (200, {"horizons": _CHUNK, "policy": {"hidden_dims": [64]}}),
    "lstm_gmm": (300, {"horizons": _STEPWISE, "policy": {"hidden_dim": 32, "layers": 1}}),
    "bet": (300, {"horizons": _STEPWISE, "policy": {"clusters": 8, "embed_dim": 32, "layers": 1, "heads": 2}}),
    "act": (200, {"horizons": _CHUNK, "policy": {"embed_dim": 32, "feedforward_dim": 64, "encoder_layers": 1}}),
    "ibc": (
        500,
        {
            "horizons": {"obs_horizon": 1, "action_horizon": 1, "pred_horizon": 1},
            "policy": {"hidden_dims": [64, 64], "dropout": 0.0, "negatives": 64, "candidates": 256, "iterations": 3},
        },
    ),
}


def demonstrations(rows: int, steps: int, generator: torch.Generator, std: float = STD) -> torch.Tensor:
    """Returns chunks (rows, steps, 1), each near one of the two ways."""
    upper = torch.rand(rows, generator=generator) < SHARE
    centre = torch.where(upper, UPPER, -UPPER)[:, None, None]
    return centre + std * torch.randn(rows, steps, 1, generator=generator)


@cache
def trained_policy(kind: str, std: float = STD) -> Policy:
    """Returns a policy that has seen demonstrations of this spread."""
    steps, settings = _SETTINGS[kind]
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    own = {"name": kind, **settings.get("policy", {})}
    plain = {**settings, "policy": own, "normalization": {"action": "identity"}}
    policy = make_policy(plain, {"pos": ObsField("low_dim", (1,))}, ActionSpec((1,), low=-1.0, high=1.0))
    To, Tp = policy.horizons.obs_horizon, policy.horizons.pred_horizon
    policy.fit_normalizers({"pos": torch.zeros(1, 1)}, demonstrations(2000, 1, generator, std).flatten(0, 1))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        action = demonstrations(128, Tp, generator, std)
        loss = policy.losses({"pos": torch.zeros(128, To, 1)}, action, policy.draw(128, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return policy.eval()


@cache
def trained(kind: str) -> tuple[float, float, np.ndarray]:
    """Returns the share of answers near one of the ways, the upper one's share of them, and the answers (N,)."""
    policy = trained_policy(kind)
    To = policy.horizons.obs_horizon
    noise = np.random.default_rng(0).standard_normal((400, *policy.noise_shape), np.float32)
    answers = policy.predict({"pos": np.zeros((400, To, 1), np.float32)}, noise).actions[:, 0, 0]
    near = np.abs(np.abs(answers) - UPPER) < 0.15
    return float(near.mean()), float((answers[near] > 0).mean()) if near.any() else float("nan"), answers
