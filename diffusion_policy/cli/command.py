"""What the Hydra commands share: compose, run, and turn every failure into one line and an exit code.

Exit codes: 0 done, 1 a check found problems, 2 bad input, 130 Ctrl-C with state saved.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_policy.cli.entry import find_modules_here
from diffusion_policy.cli.messages import misplaced_group, one_line, unknown_option
from diffusion_policy.cli.settings_help import with_words
from diffusion_policy.errors import ConfigError, DiffusionPolicyError
from diffusion_policy.paths import config_dir
from diffusion_policy.registry import import_plugins
from diffusion_policy.rollout.gl import choose_gl

Action = Callable[[dict[str, Any], list[str]], int]
"""(composed configuration, overrides as typed) -> exit code."""


class _Stopped(KeyboardInterrupt):
    """A job was interrupted and has said so."""


def run_command(config_name: str, action: Action) -> int:
    """Composes conf/<config_name>.yaml with the command line and runs `action`; returns the exit code.

    Hydra's own options (--multirun, --config-dir, --help, --cfg ...) work as always. With `debug=true` on the
    command line errors come with their traceback.
    """
    debug = "debug=true" in (word.lower() for word in sys.argv[1:])
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("diffusion_policy").setLevel(logging.INFO)
    # Before torch is imported: how long an OpenMP thread spins for the others before it sleeps. With one other busy
    # process on two cores, the default made training 5 to 50 times slower; this costs nothing on idle ones.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: this wrapper reports them
    choose_gl()
    find_modules_here()
    codes: list[int] = []
    begun: list[bool] = []
    home = os.getpid()

    def job(composed: DictConfig) -> None:
        begun.append(True)
        try:
            codes.append(run(composed))
        except (DiffusionPolicyError, OmegaConfBaseException) as error:
            if debug or os.getpid() != home:  # in a launcher's process: only what is raised gets back to us
                raise
            # reported here, because Hydra announces errors that leave the job
            print(f"error: {one_line(error, config_name, sys.argv[1:])}", file=sys.stderr)
            codes.append(2)
        if codes[-1] == 130:
            raise _Stopped  # of several jobs, the next must not start

    def run(composed: DictConfig) -> int:
        config = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        assert isinstance(config, dict)
        settings = {str(key): value for key, value in config.items()}
        settings.pop("debug", None)
        misplaced = misplaced_group(settings, HydraConfig.get().runtime.choices)
        if misplaced:
            raise ConfigError(misplaced)
        import_plugins(settings.get("plugins") or [])
        return action(settings, list(HydraConfig.get().overrides.task))

    several = bool({"--multirun", "-m"} & set(sys.argv[1:]))
    elsewhere = several and any(word.startswith("hydra/launcher=submitit") for word in sys.argv[1:])
    if elsewhere:
        print("the jobs write what they say into .submitit/ under hydra.sweep.dir (runs/)", file=sys.stderr)
    if several and os.environ.get("WORLD_SIZE", "1") != "1":
        print("error: --multirun under torchrun: start each run by a torchrun of its own", file=sys.stderr)
        return 2
    unknown = unknown_option(sys.argv[1:])
    if unknown:
        print(f"error: {unknown}", file=sys.stderr)
        return 2
    try:
        with _help_in_words(config_name):
            hydra.main(config_path=str(config_dir()), config_name=config_name, version_base="1.3")(job)()
    except _Stopped:
        return 130
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        # Hydra refuses a command line with its own errors, and some plain ValueErrors; once a job runs, anything
        # that is not a user's error is a defect of ours and keeps its traceback.
        begun_somewhere = (begun or elsewhere) and not isinstance(error, DiffusionPolicyError)
        if debug or (begun_somewhere and not isinstance(error, (HydraException, OmegaConfBaseException))):
            raise
        print(f"error: {one_line(error, config_name, sys.argv[1:])}", file=sys.stderr)
        return 2
    return max(codes, default=0)


def accept_bare_policy() -> None:
    """Reads a policy's path alone, `dp-eval policy.pt`, as `checkpoint=policy.pt`."""
    sys.argv[1:] = [
        f"checkpoint={word}" if Path(word).suffix in (".pt", ".pt2", ".onnx") and "=" not in word else word
        for word in sys.argv[1:]
    ]


@contextmanager
def _help_in_words(config_name: str) -> Iterator[None]:
    """Adds to Hydra's --help what the settings mean."""
    if not {"--help", "-h"} & set(sys.argv[1:]):
        yield
        return
    said = StringIO()
    try:
        with redirect_stdout(said):
            yield
    finally:  # Hydra exits when it has shown its help
        print(with_words(said.getvalue(), config_name, config_dir()), end="")


def config_folder() -> str | None:
    """Returns the folder that --config-dir named on the command line, None without."""
    sources = HydraConfig.get().runtime.config_sources
    return next((str(source.path) for source in sources if source.provider == "command-line"), None)


def count(config: dict[str, Any], name: str, smallest: int = 1) -> int:
    """Returns a whole number of the configuration.

    Raises:
        ConfigError: it is none, or too small.
    """
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ConfigError(f"{name} must be a whole number, {smallest} or more, but got {value!r}")
    return value
