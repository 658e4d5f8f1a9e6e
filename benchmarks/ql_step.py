"""CPU time of a gradient step of Diffusion-QL: ours, EDP's one-step form, and the same algorithm written plainly.

    OMP_NUM_THREADS=1 python benchmarks/ql_step.py [--rounds 7]

The published sizes: observations of 17 numbers, actions of 6, batch 256, T = 5, networks of three layers of 256.
"plain" is the paper's step as one would write it down: torch's Mish, two networks for the critics, an optimiser for
actor and critics, backward passes through both critics, averages one tensor after another. In turn, so that what the
machine takes, it takes from all; the least of the rounds counts, in milliseconds of CPU time of one core. JSON under
benchmarks/results/.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

OBS, ACTION, BATCH, T, STEPS = 17, 6, 256, 5, 20


def ours(**agent: Any) -> Callable[[], object]:
    """Returns a step of the loop that dp-train would run."""
    from diffusion_policy.agents.library import make_objective
    from diffusion_policy.config import ActionSpec, ObsField
    from diffusion_policy.data.dataset import WindowDataset
    from diffusion_policy.data.outcomes import Outcomes
    from diffusion_policy.data.transitions import TransitionDataset
    from diffusion_policy.data.windows import WindowIndex
    from diffusion_policy.policies.library import make_policy
    from diffusion_policy.training.loop import LoopConfig, TrainingLoop
    from diffusion_policy.training.optim import OptimConfig

    torch.manual_seed(0)
    sections = {
        "policy": {"name": "diffusion"},
        "horizons": {"obs_horizon": 1, "action_horizon": 1, "pred_horizon": 1},
        "denoiser": {"name": "mlp"},
        "diffusion": {"num_train_timesteps": T, "beta_schedule": "vp"},
        "sampler": {"name": "ddpm", "num_inference_steps": T},
        "normalization": {"obs": "identity", "action": "identity"},
    }
    fields = {"observation": ObsField("low_dim", (OBS,))}
    policy = make_policy(sections, fields, ActionSpec((ACTION,), low=-1.0, high=1.0))
    rows = 50_000
    index = WindowIndex(np.arange(1000, rows + 1, 1000), policy.horizons)
    windows = WindowDataset({"observation": torch.randn(rows, OBS)}, torch.rand(rows, ACTION) * 2 - 1, index)
    outcomes = Outcomes(np.random.default_rng(0).random(rows, np.float32), np.zeros(rows, bool), {})
    data = TransitionDataset(windows, outcomes, discount=0.99)
    optim = OptimConfig(lr=3e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0, grad_clip=4.0)
    objective = make_objective({"name": "diffusion_ql", **agent}, policy)
    return TrainingLoop(objective, data, LoopConfig(10_000, batch_size=BATCH), optim, seed=0).step


class PlainActor(nn.Module):
    """Noise of a chunk under an observation."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(16, 32), nn.Mish(), nn.Linear(32, 16))
        self.body = nn.Sequential(
            nn.Linear(OBS + ACTION + 16, 256), nn.Mish(), nn.Linear(256, 256), nn.Mish(), nn.Linear(256, 256),
            nn.Mish(), nn.Linear(256, ACTION),
        )  # fmt: skip
        betas = torch.tensor([0.196, 0.459, 0.636, 0.755, 0.835])
        self.alpha, self.bar, self.beta = 1 - betas, torch.cumprod(1 - betas, 0), betas

    def forward(self, x: Tensor, t: Tensor, obs: Tensor) -> Tensor:
        """Returns the noise (B, A) in x (B, A) at t (B,) under obs (B, O)."""
        phase = t[:, None] * torch.exp(torch.arange(8) * -(np.log(10_000) / 7))
        embedded = self.time(torch.cat([phase.sin(), phase.cos()], -1))
        return self.body(torch.cat([x, embedded, obs], 1))  # type: ignore[no-any-return]

    def sample(self, obs: Tensor) -> Tensor:
        """Returns actions (B, A) by the whole chain."""
        x = torch.randn(len(obs), ACTION)
        for i in reversed(range(T)):
            eps = self(x, torch.full((len(obs),), i), obs)
            x0 = ((x - (1 - self.bar[i]).sqrt() * eps) / self.bar[i].sqrt()).clamp(-1, 1)
            before = self.bar[i - 1] if i else torch.ones(())
            mean = (before.sqrt() * self.beta[i] * x0 + self.alpha[i].sqrt() * (1 - before) * x) / (1 - self.bar[i])
            spread = (self.beta[i] * (1 - before) / (1 - self.bar[i])).sqrt() if i else torch.zeros(())
            x = mean + spread * torch.randn_like(x)
        return x.clamp(-1, 1)


def _critic() -> nn.Module:
    return nn.Sequential(
        nn.Linear(OBS + ACTION, 256), nn.Mish(), nn.Linear(256, 256), nn.Mish(), nn.Linear(256, 256), nn.Mish(),
        nn.Linear(256, 1),
    )  # fmt: skip


def plain() -> Callable[[], object]:
    """Returns a step of the same algorithm, written plainly."""
    torch.manual_seed(0)
    actor, critics = PlainActor(), nn.ModuleList([_critic(), _critic()])
    average, slow = copy.deepcopy(actor), copy.deepcopy(critics)
    actor_optimizer = torch.optim.Adam(actor.parameters(), lr=3e-4)
    critic_optimizer = torch.optim.Adam(critics.parameters(), lr=3e-4)
    rows = 50_000
    data = [torch.randn(rows, OBS), torch.rand(rows, ACTION) * 2 - 1, torch.randn(rows, OBS), torch.rand(rows, 1)]

    def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
        for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
            mine.data.copy_(rate * theirs.data + (1 - rate) * mine.data)

    def step() -> None:
        ids = torch.randint(0, rows, (BATCH,))
        obs, action, following, reward = (column[ids] for column in data)
        with torch.no_grad():
            ahead = torch.cat([following, average.sample(following)], 1)
            target = reward + 0.99 * torch.minimum(slow[0](ahead), slow[1](ahead))
        known = torch.cat([obs, action], 1)
        critic_loss = sum(nn.functional.mse_loss(critic(known), target) for critic in critics)
        critic_optimizer.zero_grad()
        critic_loss.backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(critics.parameters(), 4.0)
        critic_optimizer.step()
        t, eps = torch.randint(0, T, (BATCH,)), torch.randn_like(action)
        bar = actor.bar[t][:, None]
        imitation = nn.functional.mse_loss(actor(bar.sqrt() * action + (1 - bar).sqrt() * eps, t, obs), eps)
        acted = torch.cat([obs, actor.sample(obs)], 1)
        q = [critic(acted) for critic in critics]
        i = int(np.random.default_rng().random() > 0.5)
        loss = imitation - q[i].mean() / q[1 - i].abs().mean().detach()
        actor_optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(actor.parameters(), 4.0)
        actor_optimizer.step()
        follow(average, actor, 0.005)
        follow(slow, critics, 0.005)

    return step


def main() -> None:
    """Measures in turn, prints, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = {"plain": plain(), "ours": ours(), "ours, one_step": ours(one_step=True)}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for place in range(args.rounds + 1):
        for name, step in steps.items():
            begin = time.process_time()
            for _ in range(STEPS):
                step()
            if place:  # the first round warms up
                times[name].append(1000 * (time.process_time() - begin) / STEPS)
    from diffusion_policy.rollout.provenance import commit, hardware
    from diffusion_policy.versions import installed_versions

    figures = {name: {"cpu_ms": min(each), "rounds": each} for name, each in times.items()}
    out = Path(__file__).parent / "results" / "ql_step.json"
    said = {"commit": commit(), "hardware": hardware(), "versions": installed_versions(), "threads": 1}
    out.write_text(json.dumps({**said, **figures}, indent=1) + "\n")
    for name, each in times.items():
        print(f"{name:16} {min(each):6.1f} CPU-ms a step, {min(times['plain']) / min(each):.2f} x plain's speed")


if __name__ == "__main__":
    main()
