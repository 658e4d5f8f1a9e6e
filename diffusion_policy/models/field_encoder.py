"""What encodes one field of an observation, and the names it is known by in configuration.

Letters: B steps of a batch, F features.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

from torch import Tensor, nn

from diffusion_policy.config import ObsField
from diffusion_policy.errors import ConfigError
from diffusion_policy.registry import Registry

FieldEncoderFactory = Callable[..., "FieldEncoder"]
FIELD_ENCODERS: Registry[FieldEncoderFactory] = Registry("observation encoder")
register_field_encoder = FIELD_ENCODERS.register


class FieldEncoder(nn.Module):
    """Encodes one step of one field: (B, *shape) -> (B, F).

    Attributes:
        feature_dim: F; subclasses set it.
        raw: it takes the field as recorded (uint8 pixels); otherwise the policy normalises every number first.
        kept: share of the field that it looks at, e.g. inside a crop.
    """

    feature_dim: int
    raw = False
    kept = 1.0

    def load_pretrained(self) -> None:
        """Reads published weights where the settings name some; called once, when a training begins.

        A policy that is loaded brings its own: the files need not be there then.
        """

    def share_weights(self, other: Self) -> None:
        """Makes the networks of `other` this one's, too.

        Raises:
            ConfigError: this kind of encoder, or its shape, does not allow it.
        """
        raise ConfigError(f"{type(self).__name__} has no weights to share; drop share")


@register_field_encoder("low_dim")
class FlattenEncoder(FieldEncoder):
    """A number, a vector or an array of any shape, as it is, flattened."""

    def __init__(self, field: ObsField) -> None:
        super().__init__()
        self.feature_dim = field.size

    def forward(self, x: Tensor) -> Tensor:
        """Returns (B, F) of x (B, *shape)."""
        return x.reshape(x.shape[0], -1)  # flatten(1) refuses single numbers, which have no axis but B


def make_field_encoder(key: str, field: ObsField, settings: Mapping[str, Any]) -> FieldEncoder:
    """Returns the encoder `settings["name"]`, or the one that is called like the field's type, built with the others.

    Args:
        key: the field's name, for messages.
        field: its type and shape.
        settings: plain values.

    Raises:
        UnknownNameError: the name is not registered.
        ConfigError: the encoder refuses a setting or the field.
    """
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    name = str(options.pop("name", field.type))
    factory = FIELD_ENCODERS.get(name)
    try:
        return factory(field, **options)
    except TypeError as error:  # an unknown keyword: Python's message names it
        raise ConfigError(f"encoder {name} of obs.{key}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"obs.{key}: {error}") from error
