"""SynthER: transitions by diffusion (Lu, Ball, Teh and Parker-Holder 2023, arXiv 2303.06614).

An EDM diffusion model (see `diffusion.edm`) over whitened rows (s, a, r, s', terminal), unconditioned, sampled by the
stochastic Heun sampler in 128 steps. Terminals are modelled as numbers and thresholded at 0.5, in online use too: their
online settings left that out, and fractions of a terminal entered the critics' targets.

Where this differs from their code, knowingly:
- The average of the weights follows at every step with the loop's law (up to `ema_max`; 0.9995 remembers as long as
  their 0.995 at every tenth step).
- The loss is computed in bfloat16 where the processor has it, and so are the network's blocks when sampling.
- Rates fall by a cosine to 0 over the run, as theirs; runs for CPUs are shorter.
- Actions are clipped to their bounds, declared columns rounded, and constant ones exact.
- A terminal is not one more number with sigma_data = 1; see `TERMINAL_SCALE`.

Letters: B rows, D columns.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from diffusion_policy.augment.augmenter import LearnedModel, Trainer
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.diffusion.edm import Churn, EdmConfig, denoised, edm_loss, heun
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.residual_net import ResidualNet, ResidualNetConfig
from diffusion_policy.policies.device import fast_products, has_fast_bf16
from diffusion_policy.settings import build, plain, section

TERMINAL_SCALE = 0.25
"""What a terminal of 1 is to the network, and it has the coefficients of its own deviation, 0.25 sqrt(p (1 - p)).

With 0, 1 and sigma_data = 1, as in their code, a rare terminal is badly learned, for two reasons. Its deviation is a
tenth of the other columns', so that its part of the loss is small where it could be told from the others: its output
is mostly its own noise. And two values that lie 1 apart are told apart by what is left of their own noise, at levels
around 0.25 to 1, long before s' is known as precisely as a fall needs (0.05 to 0.2): the sampler decides too early, and
then moves back what s' contradicts, so that many terminals end between 0 and 1. Coefficients of its own deviation
mend the first; a distance of a quarter lets s' be decided first, and the terminal follow from it. The exact denoiser is
the same with any scale. Whitening, a distance of 8 deviations at p = 0.015, decides even earlier, where training seldom
looks."""
_LEAST_DEVIATION = 0.05  # of a terminal, p = 0.0025: the network's target for rarer ones would reach beyond 20


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn.

    Args:
        steps: N of the sampler; 2 N - 1 evaluations of the network.
        churn: fresh noise before each step; an amount of 0 is the deterministic sampler.
        bf16: blocks of the network in bfloat16; "auto" where the processor has instructions for it.
    """

    steps: int = 128
    churn: Churn = field(default_factory=Churn)
    bf16: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"sampling.steps must be at least 1, but got {self.steps}")


@dataclass(frozen=True)
class SyntherConfig:
    """Settings of SynthER.

    Args:
        model: sizes of the network.
        edm: noise levels.
        sampling: the sampler.
    """

    model: ResidualNetConfig = field(default_factory=ResidualNetConfig)
    edm: EdmConfig = field(default_factory=EdmConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> "SyntherConfig":
        """Returns the configuration of sections `model`, `edm` and `sampling`.

        Raises:
            ConfigError: a setting is unknown or does not fit.
        """
        drawn = section(settings, "sampling")
        churn = build(Churn, section(drawn, "churn"), "sampling.churn")
        sections = {
            "model": build(ResidualNetConfig, section(settings, "model"), "model"),
            "edm": build(EdmConfig, section(settings, "edm"), "edm"),
            "sampling": build(SamplingConfig, {**drawn, "churn": churn}, "sampling"),
        }
        return build(cls, {**settings, **sections}, "augment")


class SyntherAugmenter(LearnedModel):
    """SynthER; see the module.

    Args:
        columns: of the table.
        bounds: of the action.
        config: sizes, noise levels, sampler.
        train_by: see `LearnedModel`.
    """

    kind: ClassVar[str] = "synther"
    network: ResidualNet
    unit: Tensor  # (D,) what a whitened number is to the network
    deviation: Tensor  # (D,) sigma_data of each, in these units, in parts of edm.sigma_data

    def __init__(
        self,
        columns: Columns,
        bounds: Bounds | None = None,
        config: SyntherConfig | None = None,
        train_by: Trainer | None = None,
    ) -> None:
        self.config = config = config or SyntherConfig()
        super().__init__(columns, bounds, ResidualNet(columns.size, config.model), train_by)
        self.register_buffer("unit", torch.ones(columns.size))
        self.register_buffer("deviation", torch.ones(columns.size))

    def learn(self, real: Transitions) -> None:
        """Measures the terminal, then trains the network."""
        self.unit.fill_(1.0)
        self.deviation.fill_(1.0)
        rate = float(real.terminated.mean())
        if 0 < rate < 1:
            spread = max(math.sqrt(rate * (1 - rate)), _LEAST_DEVIATION)
            self.unit[self.columns.terminal_at] = TERMINAL_SCALE
            self.deviation[self.columns.terminal_at] = TERMINAL_SCALE * spread
        super().learn(real)

    def encodes_like(self, other: LearnedModel) -> bool:
        """See `LearnedModel`."""
        if not isinstance(other, SyntherAugmenter):
            return False
        mine, theirs = (torch.stack([each.unit.cpu(), each.deviation.cpu()]) for each in (self, other))
        return torch.allclose(mine, theirs)

    def draw(self, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Returns noise (B, D) and what its levels are made of (B,)."""
        on: dict[str, Any] = {"generator": generator, "device": generator.device}
        return {"noise": torch.randn((rows, self.columns.size), **on), "level": torch.randn(rows, **on)}

    def losses(self, rows: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Returns EDM's loss (B,)."""
        edm = self.config.edm
        sigma = edm.training_sigma(draws["level"])
        data = edm.sigma_data * self.deviation
        return edm_loss(self.network, rows * self.unit, noise=draws["noise"], sigma=sigma, sigma_data=data)

    def draw_rows(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns whitened samples (count, D)."""
        edm, sampling = self.config.edm, self.config.sampling
        device = self.network.out.weight.device
        network = self._for_sampling(device)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            return denoised(network, x, sigma, edm.sigma_data * self.deviation)

        noise = torch.randn((count, self.columns.size), generator=generator).to(device)
        with fast_products(device):
            return heun(denoise, noise, edm.levels(sampling.steps), sampling.churn, generator) / self.unit

    def _for_sampling(self, device: torch.device) -> ResidualNet:
        bf16 = self.config.sampling.bf16
        if has_fast_bf16(device) if bf16 == "auto" else bf16:
            return self.network.with_blocks_in(torch.bfloat16)
        return self.network

    def draw_by(self, sampling: Mapping[str, Any]) -> None:
        """Changes how samples are drawn, which nothing has been trained for.

        Args:
            sampling: a section `sampling`, or a part of it; the rest stays.

        Raises:
            ConfigError: a setting is unknown or does not fit.
        """
        now = section(self.plain_config(), "sampling")
        churn = {**section(now, "churn"), **section(sampling, "churn")}
        self.config = SyntherConfig.from_plain({**self.plain_config(), "sampling": {**now, **sampling, "churn": churn}})

    def plain_config(self) -> dict[str, Any]:
        """Returns sections `model`, `edm` and `sampling`."""
        found: dict[str, Any] = plain(self.config)
        return found
