"""What all learned policies share: observations in, a condition, actions out, one file; each kind adds its own middle.

Letters: B batch, To/Ta/Tp obs/action/pred horizon, Da numbers in an action, Dc condition size.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import CheckpointError, ConfigError
from diffusion_policy.policies.checkpoint import read_policy_file, write_policy_file
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.policies.conditioned import ConditionedModule
from diffusion_policy.policies.device import pick_device
from diffusion_policy.policies.info import CheckpointInfo
from diffusion_policy.policies.inputs import Array, given_noise, observed
from diffusion_policy.policies.policy_config import PolicyConfig
from diffusion_policy.policies.selection import Selector
from diffusion_policy.settings import plain, section

Draws = Mapping[str, Tensor]
"""Random numbers of a gradient step, each with the batch as its first axis."""


class Policy(ConditionedModule):
    """Predicts chunks of actions from windows of observations. Holds no episode state; see the controller.

    A kind of policy says what it draws, how it learns and how it answers: `sample_noise_shape`, `draw`, `losses`,
    `sample`.

    Args:
        config: horizons, encoder, normalisation, and what its kind adds.
        obs_spec: the observation schema.
        action_spec: the action schema.

    Attributes:
        selector: judges several samples of each prediction, where there is one; see `selection`.
        kind: its name in configuration; set by `register_policy`.
        config_class: what configures it.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type[PolicyConfig]] = PolicyConfig

    def __init__(self, config: PolicyConfig, obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
        super().__init__(config, obs_spec, action_spec)
        self.selector: Selector | None = None
        self.info = CheckpointInfo()
        self._check_reach()

    def _check_reach(self) -> None:
        """A policy that answers within bounds must be given actions within them."""
        if self.reach is None:
            return
        mode = self.config.normalization.action
        says = f"policy '{self.kind}' cannot get beyond +-{self.reach:g}, but normalization.action={mode}"
        if mode in ("gaussian", "quantile"):
            raise ConfigError(f"{says} leaves actions outside; use normalization.action=limits")
        if mode == "identity" and self.action_spec.bounds() is None:
            raise ConfigError(
                f"{says} needs action.low and action.high; give them in the task, or use normalization.action=limits"
            )

    @property
    def sample_noise_shape(self) -> tuple[int, ...]:
        """Shape of the standard-normal noise of one sample, the source of all its chance; (0,) for none."""
        return (0,)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the noise of one prediction: of one sample, or (C, n + 1) where one of C samples is selected.

        A candidate's row is its sample's noise, flattened to n numbers, and one number for the draw.
        """
        if self.selector is None:
            return self.sample_noise_shape
        return (self.selector.config.num_candidates, math.prod(self.sample_noise_shape) + 1)

    @property
    def sampling(self) -> dict[str, Any]:
        """How it comes to an action, for results that must tell: plain settings, empty where there is no choice."""
        return {} if self.selector is None else {"selector": plain(self.selector.config)}

    @property
    def row_group(self) -> int:
        """A batch may be cut into pieces at multiples of this many rows; 1: anywhere."""
        return 1

    @property
    def home(self) -> str:
        """The module to import before a file of this policy can be loaded, if it is not one of this package."""
        return type(self).__module__

    @property
    def reach(self) -> float | None:
        """How far from 0 its normalised actions can get; None where nothing limits them."""
        return None

    def draw(self, rows: int, generator: torch.Generator) -> Draws:
        """Returns the random numbers of a gradient step on `rows` windows, on the generator's device."""
        return {}

    def losses(self, obs: Mapping[str, Tensor], action: Tensor, draws: Draws) -> Tensor:
        """Returns the loss of each window (B,).

        Args:
            obs: {key: (B, To, *shape)} in env units.
            action: (B, Tp, Da) in env units.
            draws: what `draw` returned for these windows.
        """
        raise NotImplementedError

    def sample(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Returns normalised chunks (B, Tp, Da).

        Args:
            cond: what `condition` returns.
            noise: (B, *sample_noise_shape).
        """
        raise NotImplementedError

    def executed(self, x0: Tensor) -> Tensor:
        """Returns the part of normalised chunks (B, Tp, Da) that is executed, flat: (B, Ta * Da)."""
        return x0[:, self.horizons.start : self.horizons.start + self.horizons.action_horizon].flatten(1)

    def predict(self, obs: Mapping[str, Array], noise: Array | None = None) -> ActionChunk[Any]:
        """Returns the actions to execute and the whole prediction, in env units.

        Args:
            obs: {key: (B, To, *shape)}, NumPy or torch; the result is of the same kind.
            noise: standard normal (B, *noise_shape); drawn from torch's global generator when None.

        Raises:
            ObservationError: a key, shape or dtype is not as in `obs_spec`.
        """
        wants_numpy = all(isinstance(value, np.ndarray) for value in obs.values())
        with torch.inference_mode():
            inputs = observed(obs, self.obs_spec, self.horizons.obs_horizon, self.device)
            rows = next(iter(inputs.values())).shape[0]
            z = given_noise(noise, rows, self.noise_shape, self.device)
            known = self.normalized(inputs)
            cond = self.encoded(known)
            x0 = self.sample(cond, z) if self.selector is None else self.selector.select(self, known, cond, z)
            flat = self.action_normalizer.unnormalize(x0)  # (B, Tp, Da)
        prediction = flat.reshape(*flat.shape[:2], *self.action_spec.shape)
        return ActionChunk.of(prediction.cpu().numpy() if wants_numpy else prediction, self.horizons)

    def with_sampler(self, **changes: Any) -> Self:
        """Returns this policy with another sampler, if its kind has one; weights are shared.

        Raises:
            ConfigError: it has none, or a setting does not fit.
        """
        raise ConfigError(f"policy '{self.kind}' has no sampler to change; leave sampler settings out")

    def plain_config(self) -> dict[str, Any]:
        """Returns the sections that make this policy again; see `from_sections`."""
        sections = self.config.to_plain()
        return {**sections, "policy": {"name": self.kind, **sections.get("policy", {})}}

    @classmethod
    def from_sections(cls, settings: Mapping[str, Any], obs_spec: ObsSpec, action_spec: ActionSpec) -> Self:
        """Returns a new policy of this kind.

        Args:
            settings: sections as plain values; `policy` holds this kind's own, and its name.
            obs_spec: the observation schema.
            action_spec: the action schema.

        Raises:
            ConfigError: a section or a setting is unknown to this kind, or does not fit.
        """
        own = {name: value for name, value in section(settings, "policy").items() if name != "name"}
        sections = {name: value for name, value in settings.items() if name != "policy" and value}
        if own or any(entry.name == "policy" for entry in fields(cls.config_class)):
            sections["policy"] = own
        try:
            config = cls.config_class.from_plain(sections)
        except ConfigError as error:
            raise ConfigError(f"policy '{cls.kind}': {error}") from error
        return cls(config, obs_spec, action_spec)

    def with_selector(self, selector: Selector | None) -> Self:
        """Returns this policy with a judge of its samples, or None for none; weights are shared."""
        other = copy(self)  # shallow, but for the table of modules, which is about to differ
        other._modules = OrderedDict(self._modules)
        other.selector = selector
        return other

    def with_candidates(self, count: int) -> Self:
        """Returns this policy with a selector that judges so many samples; weights are shared.

        Raises:
            ConfigError: it has no selector, or `count` is less than 1.
        """
        if self.selector is None:
            raise ConfigError(
                f"num_candidates={count}: this policy has no critic that selects among samples; leave it out"
            )
        return self.with_selector(self.selector.with_candidates(count))

    def attach_selector(self, content: Mapping[str, Any]) -> None:
        """Selects among samples from now on; `content` is policy.pt's section `selector`."""
        self.selector = Selector.from_plain(content, self.obs_spec, self.horizons, self.action_spec.size)

    def save(self, path: str | Path, info: CheckpointInfo | None = None) -> None:
        """Writes policy.pt: plain data and tensors, readable with `torch.load(weights_only=True)`."""
        weights = {name: value for name, value in self.state_dict().items() if not name.startswith("selector.")}
        write_policy_file(
            path,
            config=self.plain_config(),
            obs_spec=plain(self.obs_spec),
            action_spec=plain(self.action_spec),
            state_dict=weights,
            selector=None if self.selector is None else self.selector.to_plain(),
            backbone_module=self.home,
            info=info or self.info,
        )

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Returns the policy in a policy.pt, in evaluation mode; `load_policy` takes any kind.

        Nothing in the file is executed or imported.

        Args:
            path: the file.
            device: auto, cpu, cuda, cuda:1, mps or a torch.device.

        Raises:
            MissingFileError: no such file.
            ConfigError: no such device on this machine.
            CheckpointError: damaged, of a newer format, not a policy or of another kind, or needs a module to be
                imported first.
        """
        chosen = pick_device(device)
        saved = read_policy_file(path)
        if saved.kind != cls.kind:
            raise CheckpointError(
                f"{path} holds a policy of kind '{saved.kind}', expected '{cls.kind}'; diffusion_policy.load_policy "
                f"loads any"
            )
        return saved.build(cls.from_sections).to(chosen).eval()
