"""Small problems whose answers are known: the bandit of Wang et al. 2022, and random transitions."""

from typing import Any

import numpy as np
import torch

from diffusion_policy.agents.library import make_objective
from diffusion_policy.agents.objective import Objective
from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.outcomes import Outcomes
from diffusion_policy.data.transitions import TransitionBatch, TransitionDataset
from diffusion_policy.data.windows import WindowIndex
from diffusion_policy.policies.library import make_policy
from diffusion_policy.policies.policy import Policy
from diffusion_policy.training.loop import LoopConfig, TrainingLoop
from diffusion_policy.training.optim import OptimConfig

CORNERS = np.array([[-0.8, 0.8], [0.8, 0.8], [-0.8, -0.8], [0.8, -0.8]], np.float32)
REWARDS = np.array([3.0, 0.0, 1.5, 5.0])
BEST = 3


def policy(kind: str = "diffusion", T: int = 5, size: int = 2, obs: int = 1, **own: Any) -> Policy:
    """Returns a policy of one action at a time on observations `pos` (obs,), actions within +-1."""
    torch.manual_seed(0)
    sections: dict[str, Any] = {
        "policy": {"name": kind, **own},
        "horizons": {"obs_horizon": 1, "action_horizon": 1, "pred_horizon": 1},
        "normalization": {"obs": "identity", "action": "identity"},
    }
    if kind == "diffusion":
        sections["denoiser"] = {"name": "mlp"}
        sections["diffusion"] = {"num_train_timesteps": T, "beta_schedule": "vp"}
        sections["sampler"] = {"name": "ddpm", "num_inference_steps": T}
    return make_policy(sections, {"pos": ObsField("low_dim", (obs,))}, ActionSpec((size,), low=-1.0, high=1.0))


def objective(name: str, trained: Policy, **own: Any) -> Any:
    torch.manual_seed(1)
    made = make_objective({"name": name, **own}, trained)
    made.use_average(trained)
    return made


def batch(rows: int = 32, size: int = 2, obs: int = 1, discount: float = 0.99) -> TransitionBatch:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return TransitionBatch(
        obs={"pos": draw(rows, 1, obs)},
        action=draw(rows, 1, size).clamp(-1, 1),
        reward=draw(rows),
        discount=torch.full((rows,), discount),
        next_obs={"pos": draw(rows, 1, obs)},
    )


def draws(made: Objective, rows: int = 32) -> Any:
    return made.draw(batch(rows), rows, torch.Generator().manual_seed(3))


def bandit(count: int = 10_000) -> tuple[WindowDataset, TransitionDataset]:
    """Returns (actions, transitions) at four corners, deviation 0.05, rewards 3, 0, 1.5, 5 with deviation 0.5."""
    rng = np.random.default_rng(0)
    which = rng.integers(0, 4, count)
    action = (CORNERS[which] + 0.05 * rng.standard_normal((count, 2))).astype(np.float32)
    reward = (REWARDS[which] + 0.5 * rng.standard_normal(count)).astype(np.float32)
    index = WindowIndex(np.arange(1, count + 1), policy().horizons)
    windows = WindowDataset({"pos": torch.zeros(count, 1)}, torch.from_numpy(action), index)
    return windows, TransitionDataset(windows, Outcomes(reward, np.ones(count, bool), {}), discount=0.99)


def trained_on_bandit(made: Objective, steps: int, lr: float = 1e-3) -> Policy:
    """Returns what is deployed after some steps; the averaged weights."""
    windows, transitions = bandit()
    data = transitions if hasattr(made, "critic") else windows
    optim = OptimConfig(lr=lr, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0, lr_schedule="constant")
    loop = TrainingLoop(made, data, LoopConfig(steps, batch_size=256, ema_max=0.995), optim, seed=0)
    for _ in range(steps):
        loop.step()
    return made.deployed(loop.ema.model)


def nearest(deployed: Policy, count: int = 2000) -> tuple[np.ndarray, float]:
    """Returns the share of samples nearest to each corner (4,), and the share within 0.15 of one."""
    torch.manual_seed(5)
    actions = deployed.predict({"pos": np.zeros((count, 1, 1), np.float32)}).actions[:, 0]
    far = np.linalg.norm(actions[:, None] - CORNERS, axis=2)
    return np.bincount(far.argmin(1), minlength=4) / count, float((far.min(1) < 0.15).mean())
