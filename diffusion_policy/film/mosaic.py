"""Films side by side: each with a coloured border and a caption, in a grid as square as it gets.

Letters: H, W pixels of a picture.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffusion_policy.film.picture import Frame

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Look:
    """Colours of what surrounds pictures.

    Args:
        background: behind captions, and where the grid has no picture.
        text: of captions.
        border: round a picture of which nothing else is to be said.
    """

    background: Colour
    text: Colour
    border: Colour


DARK = Look(background=(24, 24, 27), text=(235, 235, 235), border=(110, 110, 118))
LIGHT = Look(background=(255, 255, 255), text=(55, 60, 70), border=(205, 209, 217))

_CAPTION, _BORDER, _FONT = 18, 4, 12  # pixels beside pictures of up to _USUAL_WIDTH; larger ones get larger captions
_USUAL_WIDTH = 192


def framed(picture: Frame, caption: str, colour: Colour | None = None, look: Look = DARK) -> Frame:
    """Returns a picture (H, W, 3) with a line of text above it and a border round both, of this colour if given."""
    height, width = picture.shape[:2]
    scale = max(1.0, width / _USUAL_WIDTH)
    border, line = round(_BORDER * scale), round(_CAPTION * scale)
    image = Image.new("RGB", (width + 2 * border, height + 2 * border + line), colour or look.border)
    image.paste(Image.fromarray(picture), (border, border + line))
    draw = ImageDraw.Draw(image)
    draw.rectangle((border, border, width + border - 1, line + border - 1), fill=look.background)
    draw.text((border + 4 * scale, border + line / 2), caption, fill=look.text, font=font(_FONT * scale), anchor="lm")
    return np.asarray(image)


def mosaic(
    films: Sequence[Iterable[Frame]], *, hold: int = 0, columns: int | None = None, look: Look = DARK
) -> Iterator[Frame]:
    """Yields films side by side, frame by frame; one that is over keeps its last frame.

    Args:
        films: (H, W, 3) frames, all of one size; consumed in step, so that generators need little memory.
        hold: how often the last frame is repeated.
        columns: pictures in a row; None makes the grid as square as it gets (16 -> 4 x 4).
        look: its background fills places without a film.
    """
    running = [iter(film) for film in films]
    shown: list[Frame | None] = [next(film, None) for film in running]
    first = next((frame for frame in shown if frame is not None), None)
    if first is None:
        return
    height, width = first.shape[:2]
    columns = columns or math.ceil(math.sqrt(len(films)))
    canvas = np.empty((math.ceil(len(films) / columns) * height, columns * width, 3), dtype=np.uint8)
    canvas[:] = look.background
    while any(frame is not None for frame in shown):
        for place, frame in enumerate(shown):
            if frame is not None:
                y, x = place // columns * height, place % columns * width
                canvas[y : y + height, x : x + width] = frame
        yield canvas.copy()
        shown = [next(film, None) for film in running]
    for _ in range(hold):
        yield canvas.copy()


@cache
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns Pillow's own font, of this size in pixels."""
    return ImageFont.load_default(size)
