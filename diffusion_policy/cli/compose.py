"""The configuration of a command, composed in Python: for notebooks, without a command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from diffusion_policy.cli.messages import misplaced_group, one_line
from diffusion_policy.errors import ConfigError
from diffusion_policy.paths import config_dir

_OF_THE_COMMAND = {
    "train": ("choice", "collect", "published", "resume", "debug"),
    "collect": ("resume", "debug"),
    "augment": ("debug",),
    "online": ("debug",),
}
"""Command -> settings that its shell takes, and its function in Python does not."""


def compose_config(command: str, *overrides: str, conf: str | Path | None = None) -> dict[str, Any]:
    """Returns plain nested settings as a command would compose them, e.g. for `train`.

    `train(compose_config("train", "task=pusht", "preset=fast", "dataset=demos.zarr", "out=runs/a"))`

    Args:
        command: "train", "collect", "augment" or "online".
        overrides: as on the command line, GROUP=NAME or KEY=VALUE.
        conf: a folder with tasks and presets of your own, as with --config-dir.

    Raises:
        ConfigError: no such command, group, option or setting, or one without the value that it needs.
    """
    if command not in _OF_THE_COMMAND:
        raise ConfigError(f"expected a command that Python composes for, {', '.join(_OF_THE_COMMAND)}; got '{command}'")
    if command != "augment" and any(word.lstrip("+").startswith("resume=") for word in overrides):
        raise ConfigError('resume: a run brings its own settings; call train({"resume": "runs/a"})')
    folder = None if conf is None else Path(conf).expanduser().absolute()
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"conf: expected a folder with task/*.yaml, but {folder} is none")
    words = list(overrides) + ([f"hydra.searchpath=[{_quoted(f'file://{folder}')}]"] if folder else [])
    try:
        with _aside(), initialize_config_dir(str(config_dir()), version_base="1.3"):
            composed = compose(command, words, return_hydra_config=True)
            return _settings(composed, command)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(one_line(error, command, overrides)) from error


@contextmanager
def _aside() -> Iterator[None]:
    """Lays aside the configuration that a running command was composed from; Hydra holds one at a time."""
    state = Singleton.get_state()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        Singleton.set_state(state)


def _quoted(text: str) -> str:
    """Returns a string as Hydra's command line takes it."""
    return "'" + text.replace("'", "\\'") + "'"


def _settings(composed: DictConfig, command: str) -> dict[str, Any]:
    choices = composed.hydra.runtime.choices
    OmegaConf.set_struct(composed, False)
    for name in ("hydra", "choice"):  # before resolving: they need a running command
        composed.pop(name, None)
    settings = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    assert isinstance(settings, dict)
    plain = {str(key): value for key, value in settings.items() if key not in _OF_THE_COMMAND[command]}
    misplaced = misplaced_group(plain, choices)
    if misplaced:
        raise ConfigError(misplaced)
    return plain
