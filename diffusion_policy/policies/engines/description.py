"""What an exported policy says of itself, as JSON inside its file. Standard library only."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from diffusion_policy.config import ActionSpec, Horizons, ObsSpec, action_spec_from, obs_spec_from
from diffusion_policy.errors import CheckpointError
from diffusion_policy.policies.info import CheckpointInfo
from diffusion_policy.settings import build, plain

FORMAT = 1
KEY = "diffusion_policy"
"""Under which exported files hold it."""
PREFIX = "obs."
"""Of the names of their inputs for observations."""


@dataclass(frozen=True)
class Description:
    """Everything that a controller has to know of a policy besides what it computes.

    Args:
        obs_spec: the observations it reads.
        action_spec: the actions it predicts.
        horizons: To, Ta and Tp.
        noise_shape: of one row's standard-normal noise.
        info: where it comes from.
        sampling: how it comes to an action, `Policy.sampling`; empty in files that were exported before this was told.
        trained_ranges: {key: (least, greatest)} of observations in training, where they are known; empty in such files.
    """

    obs_spec: ObsSpec
    action_spec: ActionSpec
    horizons: Horizons
    noise_shape: tuple[int, ...]
    info: CheckpointInfo
    sampling: Mapping[str, Any] = field(default_factory=dict)
    trained_ranges: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, policy: Any) -> Self:
        """Returns the description of a policy that has these attributes."""
        return cls(**{each.name: getattr(policy, each.name) for each in fields(cls)})

    def to_json(self) -> str:
        """Returns what `from_json` reads."""
        return json.dumps({"format": FORMAT, **plain(asdict(self))})

    @classmethod
    def from_json(cls, text: str | None, where: object) -> Self:
        """Returns the description in a file.

        Args:
            text: the file's; None if it has none.
            where: the file, for messages.

        Raises:
            CheckpointError: there is none, it is damaged, or of a newer format.
        """
        if text is None:
            raise CheckpointError(f"{where} is no policy of this package: it lacks a description; make it by dp-export")
        try:
            said = json.loads(text)
            number = said["format"]
            if number <= FORMAT:
                return cls(
                    obs_spec=obs_spec_from(said["obs_spec"]),
                    action_spec=action_spec_from(said["action_spec"]),
                    horizons=build(Horizons, said["horizons"], "horizons"),
                    noise_shape=tuple(map(int, said["noise_shape"])),
                    info=CheckpointInfo(**said["info"]),
                    sampling=dict(said.get("sampling", {})),
                    trained_ranges={key: (low, high) for key, (low, high) in said.get("trained_ranges", {}).items()},
                )
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{where}: its description is damaged ({error}); export the policy again") from error
        raise CheckpointError(
            f"{where} has format {number}, this version reads up to {FORMAT}; upgrade diffusion-policy to load it"
        )


class Described:
    """A policy that computes elsewhere, in an engine or a process, and tells what its description says.

    Attributes:
        description: what a controller has to know of it.
    """

    description: Description

    @property
    def obs_spec(self) -> ObsSpec:
        """The observations that `predict` reads."""
        return self.description.obs_spec

    @property
    def action_spec(self) -> ActionSpec:
        """Shape, bounds and units of one action."""
        return self.description.action_spec

    @property
    def horizons(self) -> Horizons:
        """To, Ta and Tp."""
        return self.description.horizons

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of one row's noise."""
        return self.description.noise_shape

    @property
    def info(self) -> CheckpointInfo:
        """Where the policy comes from."""
        return self.description.info

    @property
    def sampling(self) -> Mapping[str, Any]:
        """How it comes to an action, for results that must tell."""
        return self.description.sampling

    @property
    def trained_ranges(self) -> Mapping[str, tuple[Any, Any]]:
        """Of observations in training, where they are known."""
        return self.description.trained_ranges
