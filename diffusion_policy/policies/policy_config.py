"""How policies are configured: sections of plain values, one dataclass each."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, get_type_hints

from diffusion_policy.config import Horizons
from diffusion_policy.errors import ConfigError
from diffusion_policy.models.normalizer import check_mode
from diffusion_policy.models.observation import EncoderConfig
from diffusion_policy.settings import build, plain, section


@dataclass(frozen=True)
class NormalizationConfig:
    """How fields are normalised (see `LinearNormalizer.fit`).

    Args:
        obs: mode for every observation field.
        action: mode for actions; `clip_sample` needs one that puts actions into [-1, 1].
    """

    obs: str = "limits"
    action: str = "limits"

    def __post_init__(self) -> None:
        check_mode(self.obs, "normalization.obs")
        check_mode(self.action, "normalization.action")


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """Everything that defines a policy besides its schema and weights; each kind adds sections of its own, as fields.

    A field `policy` holds what a kind takes in the section of this name, beside `name`.
    """

    horizons: Horizons
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    normalization: NormalizationConfig = field(default_factory=NormalizationConfig)

    @classmethod
    def from_plain(cls, settings: Mapping[str, Any]) -> Self:
        """Returns the configuration written as nested plain values: sections of a YAML file or of policy.pt.

        Raises:
            ConfigError: a section or a setting is unknown or does not fit.
        """
        hints = get_type_hints(cls)
        names = [entry.name for entry in fields(cls)]
        unknown = sorted(set(settings) - set(names))
        if unknown:
            raise ConfigError(f"unknown section {', '.join(unknown)} of this kind of policy, known: {', '.join(names)}")
        return cls(**{name: _read(hints[name], section(settings, name), name) for name in names})

    def to_plain(self) -> dict[str, Any]:
        """Returns what `from_plain` reads."""
        return {entry.name: plain(getattr(self, entry.name)) for entry in fields(self)}


def _read(hint: Any, settings: Mapping[str, Any], name: str) -> Any:
    """Returns a section as its dataclass, or as it is where the reader is chosen by a name in it."""
    return build(hint, settings, name) if hasattr(hint, "__dataclass_fields__") else dict(settings)
