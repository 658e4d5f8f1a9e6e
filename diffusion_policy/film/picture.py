"""One frame of a film as it is kept and sent between processes: small, and compressed without loss.

Letters: H, W pixels.
"""

import zlib
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffusion_policy.errors import RenderError

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An RGB frame, compressed, so that minutes of film fit in memory.

    Args:
        height: H.
        width: W.
        data: H * W * 3 bytes, by zlib.
    """

    height: int
    width: int
    data: bytes

    @classmethod
    def of(cls, frame: object, width: int) -> Self:
        """Returns the picture of what an environment rendered, scaled to a width.

        Args:
            frame: (H, W, 3) uint8.
            width: in pixels; the height keeps the frame's proportions.

        Raises:
            RenderError: the environment rendered no such frame.
        """
        array = np.asarray(frame)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise RenderError(
                f"a frame must be (height, width, 3) uint8, but the environment rendered {type(frame).__name__} "
                f"{array.dtype} {array.shape}; film an environment with render_mode='rgb_array'"
            )
        return cls._scaled(array, max(1, round(width * array.shape[0] / array.shape[1])), width)

    def scaled(self, height: int, width: int) -> "Picture":
        """Returns the picture in another size; itself when it has that size."""
        if (self.height, self.width) == (height, width):
            return self
        return self._scaled(self.frame(), height, width)

    def frame(self) -> Frame:
        """Returns (H, W, 3)."""
        return np.frombuffer(zlib.decompress(self.data), dtype=np.uint8).reshape(self.height, self.width, 3)

    @classmethod
    def _scaled(cls, array: Frame, height: int, width: int) -> Self:
        if array.shape[:2] != (height, width):
            array = np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.LANCZOS))
        return cls(height, width, zlib.compress(array.tobytes(), 1))
