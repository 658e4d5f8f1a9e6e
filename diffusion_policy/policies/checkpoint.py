"""policy.pt: a checkpoint is data. Plain values and tensors, no pickle, no class paths, a format number.

contracts: top level `format, config, obs_spec, action_spec, state_dict, env, dataset, training, versions, eval` and
optionally `selector`. A format once released is read by every later version, through `MIGRATIONS`.
"""

import os
import pickle
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from diffusion_policy.config import ActionSpec, ObsSpec, action_spec_from, obs_spec_from
from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError, StorageError, UnknownNameError
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


def save_atomically(content: Any, path: str | Path) -> None:
    """`torch.save` into a neighbour, flushed to disk, then renamed: a reader sees the old file or the new one.

    Raises:
        StorageError: the disk is full or the folder not writable; an older file at `path` is intact.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        Path(name).chmod(0o644)  # mkstemp's 0600 would keep a colleague from reading the result
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise StorageError(
            f"cannot write {target}: {error}; free some space and resume, what was saved before is intact"
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def read_tensors(path: str | Path, what: str) -> dict[str, Any]:
    """Returns a file of plain values and tensors; code in it is refused, not run.

    Args:
        path: the file.
        what: how to call it in messages.

    Raises:
        MissingFileError: no such file.
        CheckpointError: cut short, or holds something other than data.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise MissingFileError(f"{what} {file} is a folder; name the file in it, e.g. {file / 'policy.pt'}")
    if not file.is_file():
        raise MissingFileError(f"{what} {file} does not exist")
    if file.suffix in (".pt2", ".onnx"):
        raise CheckpointError(f"{file} is an exported policy; expected the {what} that it was made of")
    _check_sums(file, what)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():  # torch's word for "names a function or class"; else it is garbage
            raise CheckpointError(
                f"{file} is no {what}: it holds something other than plain data and tensors, and loading it would "
                f"execute code (refused)"
            ) from error
        raise CheckpointError(f"{file} is cut short or not a {what}; copy it again or use another one") from error
    except Exception as error:  # a damaged file can make the reader raise anything
        raise CheckpointError(f"{file} is cut short or not a {what}; copy it again or use another one") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is no {what}: expected a mapping, got {type(content).__name__}")
    return content


def _check_sums(file: Path, what: str) -> None:
    """Raises CheckpointError where a bit has flipped since the file was written; torch's reader would not notice."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, zlib.error):
        return  # cut short, or an older kind of file: the reader says so
    if broken is not None:
        raise CheckpointError(f"{file} is damaged: {broken} is not what was written; copy the {what} again")


def read_policy_file(path: str | Path) -> PolicyFile:
    """Returns the checked content of a policy.pt, migrated to the current format.

    Raises:
        MissingFileError: no such file.
        CheckpointError: damaged, unsafe, of a newer format, or not a policy.
    """
    content = read_tensors(path, "policy checkpoint")
    number = content.get("format")
    if not isinstance(number, int) or number < 1:
        raise CheckpointError(f"{path} is no policy checkpoint: it has no format number; expected a policy.pt")
    if number > FORMAT:
        raise CheckpointError(
            f"{path} has format {number}, this version reads up to {FORMAT}; upgrade diffusion-policy to load it"
        )
    missing = [name for name in _SECTIONS if name not in content]
    if missing:
        raise CheckpointError(f"{path} is no whole policy checkpoint: {', '.join(missing)} missing")
    odd = [name for name in _SECTIONS if not isinstance(content[name], dict)]
    if odd:
        raise CheckpointError(f"{path} is no whole policy checkpoint: {', '.join(odd)} should be mappings")
    while number < FORMAT:
        content = MIGRATIONS[number](content)
        number += 1
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
