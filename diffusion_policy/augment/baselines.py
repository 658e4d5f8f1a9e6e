"""Simple augmenters, to compare with: what marginals, correlations or copies alone can do.

Letters: N rows, B rows of a batch, D columns, Z latent numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffusion_policy.augment.augmenter import LearnedModel, Trainer, TransitionModel
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.augment.whitening import Bounds
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.mlp import check_sizes, mlp
from diffusion_policy.settings import plain


class GaussianAugmenter(TransitionModel):
    """One Gaussian with the data's mean and covariance: right correlations, no dynamics."""

    kind: ClassVar[str] = "gaussian"

    def learn(self, real: Transitions) -> None:
        """Measures mean and covariance of the whitened rows."""
        rows = self.whitening.whiten(real.rows).double()
        self._mean = rows.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov(rows.T))
        self._root = vectors * values.clamp(min=0).sqrt()  # (D, D): a square root, where columns depend on others too

    def draw_rows(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns rows (count, D)."""
        normal = torch.randn((count, len(self._mean)), generator=generator, dtype=torch.float64)
        rows: Tensor = self._mean + normal @ self._root.T
        return rows.float()


@dataclass(frozen=True)
class NoiseConfig:
    """How much noise.

    Args:
        scale: standard deviation, in deviations of each column.
    """

    scale: float = 0.1


class NoiseAugmenter(TransitionModel):
    """Real rows with Gaussian noise on every column that changes, but on the terminal. It holds the rows.

    Args:
        columns: of the table.
        bounds: of the action.
        scale: standard deviation, in deviations of each column.
    """

    kind: ClassVar[str] = "noise"

    def __init__(self, columns: Columns, bounds: Bounds | None = None, scale: float = 0.1) -> None:
        super().__init__(columns, bounds)
        if scale < 0:
            raise ConfigError(f"scale must be 0 or more, but got {scale}")
        self.scale = scale

    def learn(self, real: Transitions) -> None:
        """Keeps the rows."""
        self._rows = self.whitening.whiten(real.rows)

    def draw_rows(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns rows (count, D)."""
        chosen = self._rows[torch.randint(0, len(self._rows), (count,), generator=generator)]
        noise = self.scale * torch.randn(chosen.shape, generator=generator)
        if self.columns.outcome:
            noise[:, self.columns.terminal_at] = 0.0
        return chosen + noise

    def plain_config(self) -> dict[str, Any]:
        """Returns its scale."""
        return {"noise": {"scale": self.scale}}


@dataclass(frozen=True)
class VaeConfig:
    """Sizes of the variational autoencoder.

    Args:
        width: of its layers, two on each side.
        latent: Z.
    """

    width: int = 256
    latent: int = 16

    def __post_init__(self) -> None:
        check_sizes("vae.width and latent", (self.width, self.latent))


class _VaeNetwork(nn.Module):
    def __init__(self, size: int, config: VaeConfig) -> None:
        super().__init__()
        w, z = config.width, config.latent
        self.encoder = mlp((size, w, w, 2 * z), activation=nn.ReLU)
        self.decoder = mlp((z, w, w, size), activation=nn.ReLU)
        self.log_std = nn.Parameter(torch.zeros(size))


class VaeAugmenter(LearnedModel):
    """A variational autoencoder (Kingma and Welling 2014) whose decoder has one deviation a column, learned.

    Samples are the decoder's means: its noise would only make the dynamics worse.
    """

    kind: ClassVar[str] = "vae"
    network: _VaeNetwork

    def __init__(
        self,
        columns: Columns,
        bounds: Bounds | None = None,
        config: VaeConfig | None = None,
        train_by: Trainer | None = None,
    ) -> None:
        self.config = config = config or VaeConfig()
        super().__init__(columns, bounds, _VaeNetwork(columns.size, config), train_by)

    def draw(self, rows: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Returns the noise of the latent numbers (B, Z)."""
        shape = (rows, self.config.latent)
        return {"noise": torch.randn(shape, generator=generator, device=generator.device)}

    def losses(self, rows: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Returns minus the evidence bound (B,), a mean over columns."""
        network = self.network
        mean, log_variance = network.encoder(rows).float().chunk(2, dim=1)  # each (B, Z)
        log_variance = log_variance.clamp(-12, 12)
        latent = mean + (0.5 * log_variance).exp() * draws["noise"]
        log_std = network.log_std.clamp(-6, 2)
        error = (network.decoder(latent).float() - rows) / log_std.exp()
        likelihood = (0.5 * error.square() + log_std).sum(1)
        apart = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        loss: Tensor = (likelihood + apart) / self.columns.size
        return loss

    def draw_rows(self, count: int, generator: torch.Generator) -> Tensor:
        """Returns rows (count, D)."""
        latent = torch.randn((count, self.config.latent), generator=generator)
        rows: Tensor = self.network.decoder(latent.to(self.network.log_std.device))
        return rows

    def plain_config(self) -> dict[str, Any]:
        """Returns its sizes."""
        found: dict[str, Any] = plain(self.config)
        return found
