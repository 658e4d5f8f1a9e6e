"""What exporters leave: files, whole or not at all and never over another; and no chatter."""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_policy.errors import ConfigError, DiffusionPolicyError, OutputExistsError, StorageError
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[Path]:
    """Yields a path of the same name, in a folder of its own, to write to; it becomes `target` when all went well.

    Raises:
        OutputExistsError: there is such a file.
        StorageError: it cannot be written.
    """
    _refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise _not_written(target, error) from error
    with folder:
        partial = Path(folder.name) / target.name
        yield partial
        _refuse_existing(target)  # somebody may have been faster
        try:
            os.replace(partial, target)  # noqa: PTH105
        except OSError as error:
            raise _not_written(target, error) from error


@contextmanager
def refusing(policy: DiffusionPolicy, kind: str) -> Iterator[None]:
    """Turns what an exporter raises, by many names and on many lines, into one line.

    Args:
        policy: what is exported.
        kind: of the file.

    Raises:
        ConfigError: instead.
    """
    try:
        yield
    except DiffusionPolicyError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
        if "InvalidCxxCompiler" in f"{error!r}":
            raise ConfigError(f"export to {kind} needs a C++ compiler here, not where it runs: install g++") from error
        raise ConfigError(
            f"torch cannot export this policy to {kind} (sampler {policy.config.sampler.name}, denoiser "
            f"{policy.config.denoiser.get('name')}): {type(error).__name__}: {first}; try the other kind of file or "
            f"another sampler, or run policy.pt itself"
        ) from error


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise OutputExistsError(f"{target} already exists; choose another file")


def _not_written(target: Path, error: OSError) -> StorageError:
    said = error.strerror or error
    return StorageError(f"cannot write {target}: {said}; free some space or choose another file")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps from users what torch's exporters say of their own insides and of packages they can do without."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
