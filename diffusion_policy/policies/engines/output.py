"""What exporters leave: files, whole or not at all and never over another; and no chatter."""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusion_policy.errors import OutputExistsError, StorageError


@contextmanager
def whole_or_nothing(target: Path) -> Iterator[str]:
    """Yields a path of the same suffix to write to; it becomes `target` when all went well.

    Raises:
        OutputExistsError: there is such a file.
        StorageError: it cannot be written.
    """
    if target.exists():
        raise OutputExistsError(f"{target} already exists; choose another file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            partial = Path(folder) / target.name
            yield str(partial)
            os.replace(partial, target)  # noqa: PTH105
    except OSError as error:
        said = error.strerror or error
        raise StorageError(f"cannot write {target}: {said}; free some space or choose another file") from error


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
