"""What stands before and behind a policy's networks: observations become a condition, actions are normalised.

Letters: B batch, To/Tp obs/pred horizon, Da numbers in an action, Dc condition size.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.denoiser import make_denoiser
from diffusion_policy.models.normalizer import LinearNormalizer, check_mode
from diffusion_policy.models.observation import ObservationEncoder
from diffusion_policy.policies.policy_config import PolicyConfig


class ConditionedModule(nn.Module):
    """Networks under a condition that is made of observations: their encoder, and the normalisers of both ends.

    Args:
        config: horizons, encoder, normalisation.
        obs_spec: the observation schema.
        action_spec: the action schema.

    Attributes:
        per_step: whether its condition is one vector for each observed step, (B, To, Dc), or one for all, (B, Dc).
    """

    per_step: ClassVar[bool] = False

    def __init__(self, config: PolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        super().__init__()
        self.config, self.obs_spec, self.action_spec = config, obs_spec, action_spec
        self.horizons = config.horizons
        self.encoder = ObservationEncoder(obs_spec, 1 if self.per_step else config.horizons.obs_horizon, config.encoder)
        raw = self.encoder.raw_keys
        # a list, not a dict: field names like "observation.state" or "items" are no names for modules
        self.obs_normalizers = nn.ModuleList(
            nn.Identity() if key in raw else LinearNormalizer(field.shape) for key, field in obs_spec.items()
        )
        self.action_normalizer = LinearNormalizer((action_spec.size,))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.action_normalizer.scale.device

    @property
    def normalized_keys(self) -> list[str]:
        """The observation fields that have a normaliser: all but those whose encoder takes them as recorded."""
        return [key for key in self.obs_spec if key not in self.encoder.raw_keys]

    @property
    def trained_ranges(self) -> dict[str, tuple[list[Any], list[Any]]]:
        """{key: (least, greatest)}, (*shape) each, of observations in training; those normalised by limits know them.

        A number that never changed in training is given a range of 1 to each side of it: it was moved, not scaled, and
        its normaliser looks like that of one with just this range.
        """
        if self.config.normalization.obs != "limits":
            return {}
        found = {}
        for key, normalizer in zip(self.obs_spec, self.obs_normalizers, strict=True):
            if isinstance(normalizer, LinearNormalizer):
                scale, offset = normalizer.scale.cpu().double(), normalizer.offset.cpu().double()
                found[key] = ((-1 - offset) / scale).tolist(), ((1 - offset) / scale).tolist()
        return found

    def fit_normalizers(self, obs: Mapping[str, Tensor], action: Tensor) -> None:
        """Sets all normalisers from data.

        Args:
            obs: {key: (N, *shape)} of `normalized_keys`, all steps of the training episodes.
            action: (N, Da).
        """
        modes = self.config.normalization
        for key, normalizer in zip(self.obs_spec, self.obs_normalizers, strict=True):
            if isinstance(normalizer, LinearNormalizer):
                normalizer.fit(obs[key], check_mode(modes.obs, "normalization.obs"))
        bounds = self.action_spec.bounds()
        limits = None if bounds is None else (torch.tensor(bounds[0]), torch.tensor(bounds[1]))
        self.action_normalizer.fit(action, check_mode(modes.action, "normalization.action"), limits)

    def normalized(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns observations {key: (B, To, *shape)} in env units as the encoder takes them."""
        return {key: normalizer(obs[key]) for key, normalizer in zip(self.obs_spec, self.obs_normalizers, strict=True)}

    def condition(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Returns the condition (B, Dc), or (B, To, Dc), of observations {key: (B, To, *shape)} in env units."""
        return self.encoded(self.normalized(obs))

    def encoded(self, known: dict[str, Tensor]) -> Tensor:
        """Returns the condition of normalised observations."""
        if not self.per_step:
            return self.encoder(known)  # type: ignore[no-any-return]
        rows = next(iter(known.values())).shape[:2]  # (B, To)
        steps = {key: value.flatten(0, 1).unsqueeze(1) for key, value in known.items()}  # (B * To, 1, *shape)
        return self.encoder(steps).unflatten(0, rows)  # type: ignore[no-any-return]

    def make_denoiser(self, settings: Mapping[str, Any]) -> nn.Module:
        """Returns a denoiser of this policy's chunks under its condition.

        Raises:
            ConfigError: it reads observed steps one by one, but the encoder has mixed them.
        """
        denoiser = make_denoiser(
            settings,
            action_dim=self.action_spec.size,
            cond_dim=self.encoder.cond_dim,
            pred_horizon=self.horizons.pred_horizon,
        )
        if getattr(denoiser, "obs_tokens", 1) > 1 and self.config.encoder.hidden_dims:
            raise ConfigError(
                f"denoiser {settings.get('name')} reads observed steps one by one, but encoder.hidden_dims="
                f"{list(self.config.encoder.hidden_dims)} mixes them; set encoder.hidden_dims=[]"
            )
        return denoiser
