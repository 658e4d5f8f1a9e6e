"""Frames of a LeRobot video, by their time stamps; what the codec lost is lost."""

import subprocess
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.formats.film import decoder, next_picture
from diffusion_policy.errors import DataError, MissingFileError


class Camera:
    """A camera's files, of which one is open at a time, read forwards.

    ffmpeg lays the frames on a grid of the data set's rate by their time stamps: frame n is the one shown at n / fps.

    Args:
        fps: of the data set.
        size: height and width.
    """

    def __init__(self, fps: float, size: tuple[int, int]) -> None:
        self._fps, self._size = fps, size
        self._path: Path | None = None
        self._next = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def read(self, path: Path, start: float, count: int) -> NDArray[np.uint8]:
        """Returns the frames (count, H, W, 3) from a second on.

        Raises:
            MissingFileError: there is no such file.
            DataError: it is damaged, too short, or of another size.
        """
        first = round(start * self._fps)
        if path != self._path or first < self._next:
            self._open(path)
        found = np.empty(0, np.uint8)
        for i in range(self._next - first, count):
            frame = self._frame(path)
            if i == 0:  # by now the size is more than something that was told
                found = np.empty((count, *frame.shape), np.uint8)
            if i >= 0:
                found[i] = frame
        return found

    def close(self) -> None:
        """Ends the decoder."""
        if self._process is not None:
            self._process.kill()
            self._process.__exit__(None, None, None)  # closes its pipe, and waits
        if self._said is not None:
            self._said.close()
        self._process, self._said, self._path = None, None, None

    def _open(self, path: Path) -> None:
        self.close()
        if not path.is_file():
            raise MissingFileError(f"{path} does not exist; the data set is incomplete, copy it again")
        words = decoder(path, ["-vf", f"fps={self._fps:.10g}:round=near"])
        self._said = TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self._said)
        self._path, self._next = path, 0

    def _frame(self, path: Path) -> NDArray[np.uint8]:
        """Returns the next frame."""
        assert self._process is not None  # opened by `read`
        assert self._process.stdout is not None  # a pipe was asked for
        frame = next_picture(self._process.stdout)
        if frame is None:
            raise DataError(f"{path}: expected frame {self._next}, but the video ends before{self._reason()}")
        if frame.shape[:2] != self._size:
            raise DataError(
                f"{path}: expected {self._size[0]} x {self._size[1]} pixels (height, width) as info.json says, but got "
                f"{frame.shape[0]} x {frame.shape[1]}; get the file again"
            )
        self._next += 1
        return frame

    def _reason(self) -> str:
        assert self._said is not None  # opened with the decoder
        self._said.seek(0)
        said = " ".join(self._said.read(500).decode(errors="replace").split())
        return f" ({said}); copy it again" if said else "; copy it again"
