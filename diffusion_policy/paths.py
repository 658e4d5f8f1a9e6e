"""Where the package keeps its own files, and where a command may put its results."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from diffusion_policy.errors import ConfigError, MissingFileError, OutputExistsError, StorageError

BUNDLED_PREFIX = "package://"
_ENVS_PACKAGE = "diffusion_policy_envs"


def config_dir() -> Path:
    """Returns the folder of Hydra configurations: inside an installed wheel, or beside a source checkout."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if candidate.is_dir():
            return candidate
    raise MissingFileError(f"no conf/ folder in or beside {package}; the installation is incomplete, reinstall it")


def bundled_datasets() -> dict[str, Path]:
    """Returns the demonstrations that are installed with the environments, by name."""
    if find_spec(_ENVS_PACKAGE) is None:
        return {}
    assets = Path(str(resources.files(_ENVS_PACKAGE))) / "assets"
    return {file.name.removesuffix(".zarr.zip"): file for file in sorted(assets.glob("*.zarr.zip"))}


def is_remote(dataset: str | Path) -> bool:
    """Returns whether this is an address that fsspec reads, http://HOST/PATH or s3://BUCKET/PATH, and no local path."""
    text = str(dataset)
    return re.match(r"[A-Za-z][\w+.-]*(://|::)", text) is not None and not text.startswith(BUNDLED_PREFIX)


def local_path(path: str | Path, what: str = "out") -> Path:
    """Returns the path of something that is written.

    Raises:
        ConfigError: it is an address.
    """
    if re.match(r"[A-Za-z][\w+.-]+(:/|::)", str(path)):  # as a Path, s3://x has become s3:/x
        raise ConfigError(f"{what}={path}: expected a local path to write to; data sets at addresses are only read")
    return Path(path).expanduser()


def resolve_dataset(dataset: str | Path) -> str | Path:
    """Returns the path a `dataset=` setting means; `package://NAME` names bundled demonstrations.

    An address (see `is_remote`) stays a string, and nobody asks yet whether something is there.

    Raises:
        MissingFileError: nothing is there.
    """
    text = str(dataset)
    if is_remote(text):
        return text
    if text.startswith(BUNDLED_PREFIX):
        known = bundled_datasets()
        name = text.removeprefix(BUNDLED_PREFIX)
        if name not in known:
            listed = ", ".join(BUNDLED_PREFIX + each for each in known) or "none"
            raise MissingFileError(f"no bundled demonstrations '{text}', known: {listed}")
        return known[name]
    path = Path(text).expanduser()
    if not path.exists():
        raise MissingFileError(
            f"dataset {path} does not exist; give a zarr folder or .zip, or {BUNDLED_PREFIX}pusht for the bundled "
            f"demonstrations"
        )
    return path


def one_dataset(setting: object) -> str:
    """Returns a `dataset=` setting that must name one data set.

    Raises:
        ConfigError: it names several, which dp-train alone takes.
    """
    if not isinstance(setting, (str, Path)):
        raise ConfigError(f"dataset: expected one path, but got {setting!r}; only dp-train takes several")
    return str(setting)


def absolute_dataset(dataset: str | Path) -> str:
    """Returns a `dataset=` path that means the same from any folder."""
    text = str(dataset)
    return text if text.startswith(BUNDLED_PREFIX) or is_remote(text) else str(Path(text).expanduser().absolute())


def new_folder(path: str | Path, otherwise: str = "") -> Path:
    """Returns a folder for results that holds nothing yet; does not make it.

    Args:
        path: the `out=` setting.
        otherwise: what else a person could do, for the message.

    Raises:
        OutputExistsError: it holds something already.
        ConfigError: it is an address.
    """
    folder = local_path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"out={folder} already holds something; choose another folder{otherwise}")
    return folder


@contextmanager
def results_in(folder: Path) -> Iterator[None]:
    """Makes the folder now, before hours of work, and removes what it made again if nothing came of them.

    Raises:
        StorageError: it cannot be made.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}; choose another out=") from error
    try:
        yield
    finally:
        for each in made:  # from the inside out
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()
