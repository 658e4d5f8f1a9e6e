"""What a denoiser is, and the names it is known by in configuration."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from diffusion_policy.errors import ConfigError
from diffusion_policy.registry import Registry


class Denoiser(Protocol):
    """A network that predicts epsilon, the sample or the velocity of a noisy action chunk.

    One that treats rows of a batch by their place, in training, says so by an attribute `row_group`: a batch is then
    cut into pieces at multiples of it only.

    Letters: B batch, Tp pred_horizon, Da action size, Dc condition size.
    """

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor) -> Tensor:
        """Returns (B, Tp, Da) for x (B, Tp, Da), t (B,) timesteps, cond (B, Dc)."""
        ...


class Prepared(nn.Module):
    """A denoiser for inference that knows its timesteps; see `models.preparation`.

    Letters: as above; S denoising steps, F size of a context.
    """

    def contexts(self, cond: Tensor) -> Tensor:
        """Returns what each denoising step needs besides x, (S, B, F), under cond (B, Dc)."""
        raise NotImplementedError

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Returns (B, Tp, Da) of the noisy chunk x (B, Tp, Da) at the denoising step of context (B, F)."""
        raise NotImplementedError


BackboneFactory = Callable[..., nn.Module]
BACKBONES: Registry[BackboneFactory] = Registry("backbone")
register_backbone = BACKBONES.register


def make_denoiser(settings: Mapping[str, Any], *, action_dim: int, cond_dim: int, pred_horizon: int) -> nn.Module:
    """Returns the backbone `settings["name"]`, built with the other settings.

    Args:
        settings: the `denoiser:` section, plain values.
        action_dim: Da.
        cond_dim: Dc.
        pred_horizon: Tp, so that a backbone can refuse horizons it cannot work with.

    Raises:
        UnknownNameError: the name is not registered.
        ConfigError: the backbone refuses a setting.
    """
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    name = options.pop("name", None)
    if name is None:
        raise ConfigError(f"denoiser: missing setting name, known backbones: {', '.join(BACKBONES.names())}")
    factory = BACKBONES.get(str(name))
    try:
        return factory(action_dim=action_dim, cond_dim=cond_dim, pred_horizon=pred_horizon, **options)
    except TypeError as error:  # an unknown keyword: Python's message names it
        raise ConfigError(f"denoiser {name}: {error}") from error
