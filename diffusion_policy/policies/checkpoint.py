"""policy.pt: a checkpoint is data. Plain values and tensors, no pickle, no class paths, a format number.

contracts: top level `format, config, obs_spec, action_spec, state_dict, env, dataset, training, versions, eval` and
optionally `selector`. A format once released is read by every later version, through `MIGRATIONS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from diffusion_policy.config import ActionSpec, ObsSpec, action_spec_from, obs_spec_from
from diffusion_policy.errors import CheckpointError, ConfigError, UnknownNameError
from diffusion_policy.policies.data_file import read_sections, save_atomically
from diffusion_policy.policies.info import CheckpointInfo
from diffusion_policy.settings import plain, section
from diffusion_policy.versions import installed_versions

FORMAT = 4


def _add_encoder(content: dict[str, Any]) -> dict[str, Any]:
    """Format 2 knows an MLP behind the observations; before, there was none."""
    return {**content, "config": {**content["config"], "encoder": {"hidden_dims": []}}}


def _add_kind(content: dict[str, Any]) -> dict[str, Any]:
    """Format 3 knows several kinds of policies; before, all were diffusion policies."""
    return {**content, "config": {**content["config"], "policy": {"name": "diffusion"}}}


def _may_select(content: dict[str, Any]) -> dict[str, Any]:
    """Format 4 may hold a selector, which earlier versions would leave out without a word."""
    return content


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _add_encoder, 2: _add_kind, 3: _may_select}
"""From format n to n + 1, applied in turn; a fixture of each old format stays in the tests."""

_SECTIONS = ("config", "obs_spec", "action_spec", "state_dict", "env", "dataset", "training", "versions", "eval")


P = TypeVar("P", bound="_Policy")


class _Policy(Protocol):
    info: CheckpointInfo

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def attach_selector(self, content: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class PolicyFile:
    """The content of a policy.pt, checked."""

    path: Path
    config: dict[str, Any]
    obs_spec: ObsSpec
    action_spec: ActionSpec
    state_dict: dict[str, Tensor]
    selector: Mapping[str, Any] | None
    info: CheckpointInfo

    @property
    def kind(self) -> str:
        """The name of the kind of policy that it holds."""
        return str(section(self.config, "policy").get("name"))

    def build(self, make: Callable[[Mapping[str, Any], ObsSpec, ActionSpec], P]) -> P:
        """Returns the policy: what `make` makes of the configuration, with this file's weights.

        Raises:
            CheckpointError: its kind or backbone is not registered, or the weights do not fit.
        """
        try:
            settings = {name: value for name, value in self.config.items() if name != "backbone_module"}
            policy = make(settings, self.obs_spec, self.action_spec)
        except UnknownNameError as error:
            home = self.config.get("backbone_module", "the module that defines it")
            raise CheckpointError(
                f"{self.path}: {error}. It was registered by {home}: import that before loading "
                f"(commands: plugins=[{home}])"
            ) from error
        try:
            policy.load_state_dict(self.state_dict)
        except RuntimeError as error:
            first = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
            raise CheckpointError(
                f"{self.path}: weights do not fit the configuration in the same file: {first}"
            ) from error
        try:
            if self.selector is not None:
                policy.attach_selector(self.selector)
        except (RuntimeError, ConfigError, KeyError, TypeError, AttributeError, ValueError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{self.path}: its selector does not fit its policy: {first}") from error
        policy.info = self.info
        return policy


def write_policy_file(
    path: str | Path,
    *,
    config: dict[str, Any],
    obs_spec: dict[str, Any],
    action_spec: dict[str, Any],
    state_dict: Mapping[str, Tensor],
    backbone_module: str,
    info: CheckpointInfo,
    selector: dict[str, Any] | None = None,
) -> None:
    """Writes policy.pt whole or not at all."""
    content = {
        "format": FORMAT,
        "config": {**config, "backbone_module": backbone_module},
        "obs_spec": obs_spec,
        "action_spec": action_spec,
        "state_dict": {key: value.detach().cpu().clone() for key, value in state_dict.items()},
        **plain(info),
        **({} if selector is None else {"selector": selector}),
    }
    content["versions"] = content["versions"] or installed_versions()
    save_atomically(content, path)


def read_policy_file(path: str | Path) -> PolicyFile:
    """Returns the checked content of a policy.pt, migrated to the current format.

    Raises:
        MissingFileError: no such file.
        CheckpointError: damaged, unsafe, of a newer format, or not a policy.
    """
    content = read_sections(
        path,
        "policy checkpoint",
        expected="a policy.pt",
        newest=FORMAT,
        sections=_SECTIONS,
        mappings=_SECTIONS,
        migrations=MIGRATIONS,
    )
    names = ("env", "dataset", "training", "versions", "eval")
    return PolicyFile(
        path=Path(path),
        config=content["config"],
        obs_spec=obs_spec_from(content["obs_spec"]),
        action_spec=action_spec_from(content["action_spec"]),
        state_dict=content["state_dict"],
        selector=content.get("selector"),
        info=CheckpointInfo(**{name: content[name] for name in names}),
    )
