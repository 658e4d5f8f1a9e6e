"""Turns observations into one condition vector: one sub-encoder per field, chosen by its type, then a common MLP.

Letters: B batch, To obs_horizon, F features of one field at one step, Dc condition size.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_policy.config import ObsField, ObsSpec
from diffusion_policy.errors import ConfigError
from diffusion_policy.models import timm_encoder as _registers_timm  # noqa: F401
from diffusion_policy.models import vision as _registers_picture_encoders  # noqa: F401
from diffusion_policy.models.field_encoder import FIELD_ENCODERS, FieldEncoder, make_field_encoder
from diffusion_policy.models.mlp import mlp

logger = logging.getLogger(__name__)

_FEW = 0.5  # share of a field: an encoder that looks at less is said


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder a field gets, and how features become the condition.

    Args:
        hidden_dims: sizes of the layers of an MLP over the features of all fields and steps, with Mish between them;
            the last is Dc. None of them is the published network, in which FiLM reads the features themselves: each
            scale and shift is then all but linear in the observation, and contact is not.
        types: {type: settings} of the encoders of all fields of a type: `name` and its own settings, and
            `share: true` for one set of weights for all these fields. A type that is not named has the encoder that
            is registered under its own name.
        fields: {key: settings}, over those of the type, for single fields.
    """

    hidden_dims: tuple[int, ...] = ()
    types: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.hidden_dims):
            raise ConfigError(f"encoder.hidden_dims must be positive, but got {list(self.hidden_dims)}")
        for name in ("types", "fields"):
            for key, settings in getattr(self, name).items():
                if not isinstance(settings, Mapping):
                    raise ConfigError(f"encoder.{name}.{key}: expected a mapping of settings, but got {settings!r}")

    def settings(self, key: str, spec: ObsField) -> dict[str, Any]:
        """Returns the settings of one field's encoder."""
        return {**self.types.get(spec.type, {}), **self.fields.get(key, {})}


class ObservationEncoder(nn.Module):
    """{key: (B, To, *shape)} -> (B, Dc), Dc = To * sum of F, or the MLP's last size.

    Features of all fields are concatenated per step, in the order of the schema, then steps are concatenated:
    the layout of the published networks.

    Args:
        obs_spec: the schema; its order is the order of the features.
        obs_horizon: To.
        config: the encoders and the MLP after them.

    Raises:
        UnknownNameError: no such encoder.
        ConfigError: an encoder refuses its settings or its field, or settings are given for a field that is not there.
    """

    def __init__(self, obs_spec: ObsSpec, obs_horizon: int, config: EncoderConfig | None = None) -> None:
        super().__init__()
        config = config or EncoderConfig()
        if unknown := sorted(set(config.fields) - set(obs_spec)):
            raise ConfigError(f"encoder.fields: no observation is called {', '.join(unknown)}: {', '.join(obs_spec)}")
        known = {field.type for field in obs_spec.values()} | set(FIELD_ENCODERS)
        if unknown := sorted(set(config.types) - known):
            raise ConfigError(
                f"encoder.types: no type is called {', '.join(unknown)}, known: {', '.join(sorted(known))}"
            )
        self.keys = list(obs_spec)
        encoders = _field_encoders(obs_spec, config)
        self.encoders = nn.ModuleList(encoders)
        sizes = (obs_horizon * sum(encoder.feature_dim for encoder in encoders), *config.hidden_dims)
        self.mlp = mlp(sizes)
        self.cond_dim = sizes[-1]

    @property
    def raw_keys(self) -> frozenset[str]:
        """The fields that go to their encoders as recorded, without normalisation."""
        return frozenset(key for key, encoder in self._items() if encoder.raw)

    def load_pretrained(self) -> None:
        """Reads the published weights that the settings name; see `FieldEncoder.load_pretrained`."""
        for _, encoder in self._items():
            encoder.load_pretrained()

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """Returns the condition (B, Dc)."""
        features = []
        for key, encoder in self._items():
            x = obs[key]  # (B, To, *shape)
            features.append(encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2]))  # (B, To, F)
        cond: Tensor = self.mlp(torch.cat(features, dim=-1).flatten(1))
        return cond

    def _items(self) -> list[tuple[str, FieldEncoder]]:
        return list(zip(self.keys, self.encoders, strict=True))  # type: ignore[arg-type]


def _field_encoders(obs_spec: ObsSpec, config: EncoderConfig) -> list[FieldEncoder]:
    """Returns the fields' encoders; those of a type with `share` have the first one's weights."""
    encoders: list[FieldEncoder] = []
    sharing: dict[str, FieldEncoder] = {}
    for key, spec in obs_spec.items():
        settings = config.settings(key, spec)
        share = settings.pop("share", False)
        if not isinstance(share, bool):
            raise ConfigError(f"encoder of obs.{key}: share must be true or false, but got {share!r}")
        encoder = make_field_encoder(key, spec, settings)
        if spec.is_picture and not encoder.raw:
            raise ConfigError(
                f"obs.{key}: pictures are not normalised number by number, but {type(encoder).__name__} expects that; "
                f"set `raw = True` in the class and scale the bytes 0-255 there"
            )
        if share and sharing.setdefault(spec.type, encoder) is not encoder:
            _share(key, encoder, sharing[spec.type])
        if encoder.kept < _FEW:
            logger.warning(
                "obs.%s: its crop keeps %.0f %% of the frame; the policy will not see the rest", key, 100 * encoder.kept
            )
        encoders.append(encoder)
    return encoders


def _share(key: str, encoder: FieldEncoder, first: FieldEncoder) -> None:
    try:
        encoder.share_weights(first)
    except ConfigError as error:
        raise ConfigError(f"obs.{key}: {error}") from error
