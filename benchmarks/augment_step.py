"""SynthER's training step and sampling: ours, and the same model written plainly, in float32 and op by op.

    OMP_NUM_THREADS=1 python benchmarks/augment_step.py [--width 1024] [--rounds 5]
    OMP_NUM_THREADS=1 python benchmarks/augment_step.py --dataset hopper.zarr --steps 4000    # diagnostics of both, too

The published sizes on Hopper's 27 columns: six blocks, batch 256, 128 steps of the stochastic sampler. "plain" is what
one writes down: float32, an optimiser and an average that go from tensor to tensor. Both in turn, so that what the
machine takes, it takes from both; the least of the rounds counts, in CPU time of one core (wall time where there is a
GPU: --device cuda). With a data set both are trained for as many steps, and their samples are compared with the real
rows and with the simulator; terminals are as published in the plain one. JSON under benchmarks/results/.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_policy.augment.augmenter import LearnedModel
from diffusion_policy.augment.reading import read_transitions
from diffusion_policy.augment.transitions import Columns, Transitions

BATCH, BLOCKS, SAMPLER_STEPS, TRAIN_STEPS, ROWS = 256, 6, 128, 20, 2048


class PlainBlock(nn.Module):
    """x + Linear(relu(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, H)."""
        return x + self.linear(torch.relu(x))  # type: ignore[no-any-return]


class PlainNet(nn.Module):
    """The network as the paper's appendix has it."""

    frequencies: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, 128)
        self.register_buffer("frequencies", torch.randn(8))
        self.time = nn.Sequential(nn.Linear(17, 128), nn.SiLU(), nn.Linear(128, 128))
        self.body = nn.Sequential(
            nn.Linear(128, width), *(PlainBlock(width) for _ in range(BLOCKS)), nn.ReLU(), nn.Linear(width, size)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Returns (B, D)."""
        phase = 2 * math.pi * t[:, None] * self.frequencies
        embedded = self.time(torch.cat([t[:, None], phase.sin(), phase.cos()], 1))
        return self.body(self.proj(x) + embedded)  # type: ignore[no-any-return]


class Plain:
    """Training and sampling, plainly.

    Args:
        table: what it learns from.
        width: of the network.
        device: where.
        steps: of the run, for the cosine.
    """

    def __init__(self, table: Transitions, width: int, device: torch.device, steps: int) -> None:
        torch.manual_seed(0)
        self.columns = table.columns
        self.net = PlainNet(table.columns.size, width).to(device)
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=3e-4, betas=(0.9, 0.99), weight_decay=0.0, foreach=False
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        rows = torch.from_numpy(table.rows)
        self.mean, self.std = rows.mean(0), rows.std(0) + 1e-5
        self.mean[-1], self.std[-1] = 0.0, 1.0
        self.rows, self.device = ((rows - self.mean) / self.std).to(device), device

    def step(self) -> None:
        """One gradient step."""
        x0 = self.rows[torch.randint(0, len(self.rows), (BATCH,), device=self.device)]
        sigma = torch.exp(-1.2 + 1.2 * torch.randn(BATCH, 1, device=self.device))
        x = x0 + sigma * torch.randn_like(x0)
        weight = (sigma**2 + 1) / sigma**2
        loss = (weight * (self.denoised(self.net, x, sigma) - x0) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0, foreach=False)
        self.optimizer.step()
        self.schedule.step()
        for mine, theirs in zip(self.average.parameters(), self.net.parameters(), strict=True):
            mine.data.mul_(0.9995).add_(theirs.data, alpha=0.0005)

    def denoised(self, net: nn.Module, x: Tensor, sigma: Tensor) -> Tensor:
        """Returns D(x; sigma)."""
        skip, out = 1 / (sigma**2 + 1), sigma / (sigma**2 + 1).sqrt()
        return skip * x + out * net(x / (sigma**2 + 1).sqrt(), sigma[:, 0].log() / 4)  # type: ignore[no-any-return]

    @torch.no_grad()
    def sample(self, count: int) -> Transitions:
        """Returns rows of the stochastic sampler."""
        steps = torch.linspace(0, 1, SAMPLER_STEPS, device=self.device)
        sigmas = (80 ** (1 / 7) + steps * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
        x = sigmas[0] * torch.randn(count, len(self.mean), device=self.device)
        for i in range(SAMPLER_STEPS):
            gamma = min(80 / SAMPLER_STEPS, math.sqrt(2) - 1) if 0.05 <= sigmas[i] <= 50 else 0.0
            hat = sigmas[i] * (1 + gamma)
            x = x + (hat**2 - sigmas[i] ** 2).sqrt() * 1.003 * torch.randn_like(x)
            slope = (x - self.denoised(self.average, x, hat.expand(count, 1))) / hat
            ahead = x + (sigmas[i + 1] - hat) * slope
            if sigmas[i + 1] > 0:
                second = (ahead - self.denoised(self.average, ahead, sigmas[i + 1].expand(count, 1))) / sigmas[i + 1]
                ahead = x + (sigmas[i + 1] - hat) * (slope + second) / 2
            x = ahead
        rows = (x.cpu() * self.std + self.mean).numpy()
        rows[:, self.columns.action_at] = rows[:, self.columns.action_at].clip(-1, 1)
        rows[:, -1] = rows[:, -1] > 0.5
        return Transitions(self.columns, rows.astype(np.float32))


class Ours:
    """Training and sampling as dp-augment does it; arguments as of `Plain`."""

    def __init__(self, table: Transitions, width: int, device: torch.device, steps: int) -> None:
        from diffusion_policy.augment.synther import SamplingConfig, SyntherAugmenter, SyntherConfig
        from diffusion_policy.models.residual_net import ResidualNetConfig
        from diffusion_policy.training.augmenting.fitting import FitConfig, model_loop
        from diffusion_policy.training.hooks import HookConfig
        from diffusion_policy.training.loop import LoopConfig
        from diffusion_policy.training.optim import OptimConfig

        torch.manual_seed(0)
        settings = SyntherConfig(ResidualNetConfig(width=width, blocks=BLOCKS), sampling=SamplingConfig(SAMPLER_STEPS))
        bounds = ((-1.0,) * table.columns.action_size, (1.0,) * table.columns.action_size)
        optim = OptimConfig(lr=3e-4, betas=(0.9, 0.99), weight_decay=0.0, warmup_steps=0, grad_clip=1.0)
        loop = LoopConfig(steps, batch_size=BATCH, ema_max=0.9995, bf16="auto")
        config = FitConfig(loop, optim, HookConfig(), 0, device)

        def begin(model: LearnedModel, real: Transitions) -> None:
            self.loop = model_loop(model, real, config)

        self.model = SyntherAugmenter(table.columns, bounds, settings, begin)
        self.model.fit(table)

    def step(self) -> None:
        """One gradient step."""
        self.loop.step()

    def sample(self, count: int) -> Transitions:
        """Returns rows of the stochastic sampler."""
        return self.model.holding(self.loop.ema.model).sample_batch(count, seed=0)


@dataclass
class Clock:
    """CPU time of this process, or wall time once the GPU is through."""

    device: torch.device

    def __call__(self) -> float:
        """Returns seconds."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def speeds(both: dict[str, Any], clock: Clock, rounds: int, rows: int) -> dict[str, dict[str, Any]]:
    """Returns {name: {step_ms, samples_per_s, rounds of each}}, in turn."""
    times: dict[str, dict[str, list[float]]] = {name: {"step": [], "sample": []} for name in both}

    def timed(action: Callable[[], object]) -> float:
        begin = clock()
        action()
        return clock() - begin

    for place in range(rounds + 1):
        for name, each in both.items():
            trained = timed(lambda each=each: [each.step() for _ in range(TRAIN_STEPS)])
            drawn = timed(lambda each=each: each.sample(rows))
            if place:  # the first round warms up
                times[name]["step"].append(1000 * trained / TRAIN_STEPS)
                times[name]["sample"].append(rows / drawn)
    return {
        name: {"step_ms": min(each["step"]), "samples_per_s": max(each["sample"]), "rounds": each}
        for name, each in times.items()
    }


def diagnostics(both: dict[str, Any], table: Transitions, steps: int, rows: int) -> dict[str, dict[str, float]]:
    """Returns how good samples of both are, after as many steps of training."""
    from diffusion_policy.augment.diagnostics import correlation_similarity, ks_complement
    from diffusion_policy.training.augmenting.dynamics import dynamics_errors, open_simulator, scales

    simulator, close = open_simulator({"env_id": "Hopper-v5"}, table.columns)
    found = {}
    for name, each in both.items():
        for _ in range(steps):
            each.step()
        drawn = each.sample(rows)
        errors = dynamics_errors(simulator, drawn, scales(table))
        found[name] = {
            "ks_mean": float(ks_complement(table.rows, drawn.rows).mean()),
            "correlation_mean": float(correlation_similarity(table.rows, drawn.rows).mean()),
            "terminal_rate": float(drawn.terminated.mean()),
            "terminal_precision": errors.terminals.precision,
            "terminal_recall": errors.terminals.recall,
            "dynamics_median": errors.median,
        }
        print(name, found[name], flush=True)
    close()
    return found


def main() -> None:
    """Measures, prints, writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=ROWS, help="drawn at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dataset", help="Hopper's, for diagnostics")
    parser.add_argument("--steps", type=int, default=4000, help="of training, for diagnostics")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "augment_step.json")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    kinds: dict[str, Callable[..., Any]] = {"plain": Plain, "ours": Ours}
    columns = Columns({"observation": (11,)}, (3,))
    rows = np.random.default_rng(0).standard_normal((50_000, columns.size)).astype(np.float32)
    rows[:, columns.terminal_at] = rows[:, columns.terminal_at] > 2
    noise = Transitions(columns, rows)
    figures = speeds(
        {name: make(noise, args.width, device, 10_000) for name, make in kinds.items()},
        Clock(device), args.rounds, args.rows,
    )  # fmt: skip
    if args.dataset:
        from diffusion_policy.data.replay_buffer import ReplayBuffer

        with ReplayBuffer.open(args.dataset) as buffer:
            table = read_transitions(buffer)
        trained = {name: make(table, args.width, device, args.steps) for name, make in kinds.items()}
        for name, found in diagnostics(trained, table, args.steps, args.rows).items():
            figures[name]["diagnostics"] = found
    from diffusion_policy.rollout.provenance import commit, hardware
    from diffusion_policy.versions import installed_versions

    said = {"commit": commit(), "hardware": hardware(), "versions": installed_versions(), "width": args.width}
    args.out.write_text(json.dumps({**said, "rows": args.rows, "device": args.device, **figures}, indent=1) + "\n")
    plain, ours = figures["plain"], figures["ours"]
    for name, each in figures.items():
        print(f"{name:6} {each['step_ms']:7.1f} ms a step, {each['samples_per_s']:8.1f} samples a second")
    print(
        f"ours is {plain['step_ms'] / ours['step_ms']:.2f} times as fast in training, "
        f"{ours['samples_per_s'] / plain['samples_per_s']:.2f} times in sampling"
    )


if __name__ == "__main__":
    main()
