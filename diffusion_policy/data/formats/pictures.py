"""Pictures in files of their own: a picture a step, or a film."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats.file_order import in_order
from diffusion_policy.data.formats.film import decoder, next_picture
from diffusion_policy.errors import DataError, MissingFileError

_FILMS = (".mp4", ".mkv", ".avi", ".mov", ".webm")
_DEEP = ("I", "I;16", "I;16B", "I;16L")  # 16 bit: depth in mm, say; "I" has room for 32
_DEEPEST = 65535


def read_pictures(folder: Path, pattern: str, steps: int, where: str) -> NDArray[Any]:
    """Returns the pictures of an episode, (T, H, W, C): uint8 of 1 or 3 channels, or uint16 or float32 of one.

    Args:
        folder: that the pattern is relative to.
        pattern: of the pictures, taken in the order of their numbers (`in_order`); or of a film, whose codec may have
            lost something.
        steps: T.
        where: the key, for messages.

    Raises:
        MissingFileError: there are none.
        DataError: they are not T, of different sizes, damaged, or in no order; or a film is not the only file.
    """
    files = sorted(folder.glob(pattern))
    if not files:
        raise MissingFileError(f"{where}: no file matches {pattern} in {folder}; correct the mapping")
    films = [file for file in files if file.suffix.lower() in _FILMS]
    if not films:
        return _files(in_order(files, folder, where), steps, where)
    if len(files) > 1:
        others = (file for file in files if file not in films)
        one, other = (file.relative_to(folder).as_posix() for file in (*films, *others)[:2])
        raise DataError(
            f"{where}: expected one film and nothing beside it, but {pattern} matches {one} and {other}; correct the "
            f"mapping, so that it matches one"
        )
    return _film(films[0], steps, where)


def _files(files: Sequence[Path], steps: int, where: str) -> NDArray[Any]:
    if len(files) != steps:
        raise DataError(f"{where}: expected a picture a step, but got {len(files)} pictures for {steps} steps")
    first = _picture(files[0], where)
    pictures = np.empty((steps, *first.shape), first.dtype)
    for i, file in enumerate(files):
        picture = first if i == 0 else _picture(file, where)
        if picture.shape != first.shape or picture.dtype != first.dtype:
            raise DataError(
                f"{where}: expected pictures of {first.dtype} {first.shape}, but {file.name} has {picture.dtype} "
                f"{picture.shape}; bring them to one size"
            )
        pictures[i] = picture
    return pictures


def _picture(file: Path, where: str) -> NDArray[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            single = image.mode in ("L", "F", *_DEEP)
            pixels = np.asarray(image if single else image.convert("RGB"))
            deep = image.mode in _DEEP
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:  # PIL says SyntaxError of broken PNGs
        raise DataError(f"{where}: {file.name} is damaged or no picture ({error}); copy it again") from error
    if deep and not (pixels.min() >= 0 and pixels.max() <= _DEEPEST):
        raise DataError(
            f"{where}: expected numbers in [0, {_DEEPEST}], but {file.name} has some in [{pixels.min()}, "
            f"{pixels.max()}]; write it in 16 bit (depth in mm, say), or as a TIFF of 32-bit floats"
        )
    pixels = pixels.astype(np.uint16) if deep else pixels
    return pixels[..., None] if single else pixels  # (H, W) -> (H, W, 1)


def _film(file: Path, steps: int, where: str) -> NDArray[Any]:
    """Returns the frames of a film, every one that it holds."""
    words = decoder(file, ["-fps_mode", "passthrough"])
    frames: list[NDArray[Any]] = []
    with TemporaryFile() as said, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said) as process:
        assert process.stdout is not None  # a pipe was asked for
        while len(frames) <= steps and (frame := next_picture(process.stdout)) is not None:
            frames.append(frame)
        process.kill()  # if there is more
        process.wait()
        said.seek(0)
        reason = " ".join(said.read().decode(errors="replace").split())
    if not frames or (reason and len(frames) < steps):
        raise DataError(f"{where}: {file.name} is damaged or no film ({reason or 'no frames'}); copy it again")
    if len(frames) != steps:
        more = "more than " if len(frames) > steps else ""
        got = f"{more}{min(len(frames), steps)}"
        raise DataError(f"{where}: expected a frame a step, but {file.name} has {got} for {steps} steps")
    return np.stack(frames)
