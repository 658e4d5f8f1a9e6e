"""Films by the ffmpeg that imageio-ffmpeg brings: its pictures come as PPM through a pipe, one after another."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray


def decoder(path: Path, options: Sequence[str]) -> list[str]:
    """Returns the command that writes a film's pictures to its output; it opens that file, and nothing that it names.

    Args:
        path: the film.
        options: of ffmpeg's output: which frames.
    """
    import imageio_ffmpeg

    quiet = ["-v", "error", "-nostdin", "-protocol_whitelist", "file,pipe"]
    pictures = ["-f", "image2pipe", "-c:v", "ppm", "-"]
    return [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, "-i", f"file:{path.resolve()}", *options, *pictures]


def next_picture(stream: IO[bytes]) -> NDArray[np.uint8] | None:
    """Returns the next picture, (H, W, 3); None where the stream ends, or ends before the picture is whole."""
    if stream.readline() != b"P6\n":
        return None
    width, height = (int(word) for word in stream.readline().split())
    stream.readline()  # the brightest value, 255
    content = stream.read(3 * width * height)
    whole = len(content) == 3 * width * height
    return np.frombuffer(content, np.uint8).reshape(height, width, 3) if whole else None
