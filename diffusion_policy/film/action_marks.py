"""The actions of a demonstration, drawn on its pictures: as a path through the scene, or as curves beneath it.

Letters: T steps of an episode, Da numbers of an action, K actions drawn at once; H, W pixels of a picture.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffusion_policy.errors import ConfigError
from diffusion_policy.film.mosaic import DARK, LIGHT, Colour, font
from diffusion_policy.film.picture import Frame

Floats = NDArray[np.float64]

ActionPixels = Callable[[Floats, int], Floats]
"""An environment's `action_pixels(actions (K, Da), size)` -> (K, 2), x and y in px of a picture size x size."""

UPCOMING = 16  # actions drawn: as many as a policy predicts by default

_FINER = 4  # times finer than the picture while drawing, against jagged edges
_HALO = (255, 255, 255)
_DOT, _SMALLEST_DOT = 0.009, 1.7  # radius: of the picture's width, and px
_NOW, _LATER = 0.0, 0.82  # the part of the map used: beyond it, yellow is lost on white
_CURVES = ((94, 160, 255), (255, 150, 70), (110, 205, 110), (240, 105, 120), (190, 140, 240), (215, 190, 80))
_STRIP = 0.3  # of the picture's height


class ActionMarks(Protocol):
    """Draws the actions of one step onto its picture; all pictures that it returns have one size."""

    def __call__(self, picture: Frame, actions: Floats, step: int) -> Frame:
        """Returns the picture (H, W, 3) with marks, perhaps higher.

        Args:
            picture: of this step.
            actions: (T, Da) of the whole episode.
            step: in [0, T).
        """


class NoMarks:
    """For data sets without actions."""

    def __call__(self, picture: Frame, actions: Floats, step: int) -> Frame:
        """Returns the picture as it is."""
        return picture


class ActionPath:
    """Where the next actions lead, as dots along a line whose colour tells the time, on square pictures.

    Args:
        action_pixels: the environment's.
    """

    def __init__(self, action_pixels: ActionPixels) -> None:
        self._action_pixels = action_pixels

    def __call__(self, picture: Frame, actions: Floats, step: int) -> Frame:
        """Returns the picture with the actions from `step` on.

        Raises:
            ConfigError: `action_pixels` gives no finite pixel for each action.
        """
        upcoming = actions[step : step + UPCOMING]
        upcoming = upcoming[np.isfinite(upcoming).all(axis=1)]  # NaN is reported elsewhere
        points = np.asarray(self._action_pixels(upcoming, picture.shape[1]), np.float64)
        if points.shape != (len(upcoming), 2) or not np.isfinite(points).all():
            raise ConfigError(
                f"action_pixels must give ({len(upcoming)}, 2) finite pixels for actions {upcoming.shape}, but gave "
                f"{points.shape}; do data set and environment belong together?"
            )
        return draw_path(picture, points, max(_SMALLEST_DOT, _DOT * picture.shape[1]))


class ActionStrip:
    """Each number of the actions as a curve over the episode, beneath the picture, with a line where the step is.

    Args:
        low: (Da,) smallest values of the data set: the lower edge.
        high: (Da,) largest values: the upper edge.
    """

    def __init__(self, low: Floats, high: Floats) -> None:
        self._low, self._span = low, np.where(high > low, high - low, 1.0)

    def __call__(self, picture: Frame, actions: Floats, step: int) -> Frame:
        """Returns the picture with a strip beneath, which makes it higher by about a third."""
        size = picture.shape[1], math.ceil(_STRIP * picture.shape[0])
        width, height = size[0] * _FINER, size[1] * _FINER
        strip = Image.new("RGB", (width, height), DARK.background)
        draw = ImageDraw.Draw(strip)
        x = np.linspace(0.02, 0.98, len(actions)) * width  # (T,)
        last = min(step + UPCOMING, len(actions)) - 1
        draw.rectangle((x[step], 0, x[last], height), fill=(58, 58, 66))
        heights = height * (0.9 - 0.8 * (actions - self._low) / self._span)  # (T, Da)
        heights = np.clip(np.nan_to_num(heights, nan=height), 0, height)
        for curve, colour in zip(heights.T, _repeated(_CURVES, heights.shape[1]), strict=True):
            draw.line(list(zip(x, curve, strict=True)), fill=colour, width=round(1.3 * _FINER), joint="curve")
        draw.line((x[step], 0, x[step], height), fill=DARK.text, width=_FINER)
        beneath = np.asarray(strip.reduce(_FINER))
        return np.concatenate([picture, beneath])  # (H + strip, W, 3)


def draw_path(picture: Frame, points: Floats, radius: float) -> Frame:
    """Returns a picture with a path on it: colours and sizes fall off from now to later.

    Args:
        picture: (H, W, 3).
        points: (K, 2), x and y in px, (0, 0) being the outer corner of the first pixel; K may be 0.
        radius: of the dots, px.
    """
    points = points[np.all(np.abs(points - 0.5 * picture.shape[1]) < 2 * picture.shape[1], axis=1)]
    if not len(points):
        return picture
    margin = math.ceil(4 * radius)
    corner = np.floor(points.min(axis=0)).astype(int) - margin
    width, height = np.ceil(points.max(axis=0)).astype(int) + margin - corner
    # Transparent white, so that averaging mixes no black into the halo's edge.
    layer = Image.new("RGBA", (int(width) * _FINER, int(height) * _FINER), (*_HALO, 0))
    draw = ImageDraw.Draw(layer)
    places = (points - corner) * _FINER - 0.5  # Pillow counts pixels' centres as whole numbers
    _draw_dots(draw, places, radius * _FINER)
    canvas = Image.fromarray(picture).convert("RGBA")
    canvas.alpha_composite(*_within(layer.reduce(_FINER), (int(corner[0]), int(corner[1]))))
    return np.asarray(canvas.convert("RGB"))


def draw_legend(width: int, size: float) -> Frame:
    """Returns a line (H, width, 3) that says what the colours mean, in letters of `size` px, on a light ground."""
    height = round(2.2 * size)
    image = Image.new("RGB", (width, height), LIGHT.background)
    draw = ImageDraw.Draw(image)
    place = 0.6 * size
    words, path_width = f"the next {UPCOMING} actions:   now", 12 * size
    draw.text((place, height / 2), words, fill=LIGHT.text, font=font(size), anchor="lm")
    place += draw.textlength(words, font=font(size)) + 0.8 * size
    x = np.linspace(place, place + path_width, UPCOMING)
    draw.text((place + path_width + 0.8 * size, height / 2), "later", fill=LIGHT.text, font=font(size), anchor="lm")
    return draw_path(np.asarray(image), np.column_stack([x, np.full(UPCOMING, height / 2)]), size / 4)


def _draw_dots(draw: ImageDraw.ImageDraw, places: Floats, radius: float) -> None:
    """Draws later ones first, all halos before all colours, so that now lies on top and nothing is cut."""
    colours = _repeated(time_colours(), len(places))
    sizes = radius * np.linspace(1.25, 0.75, UPCOMING)[: len(places)]
    for grow, line in ((0.55 * radius, 1.6 * radius), (0.0, 0.7 * radius)):
        for i in reversed(range(len(places))):
            halo = _HALO if grow else None
            if i + 1 < len(places):
                draw.line([*places[i], *places[i + 1]], fill=halo or colours[i], width=round(line))
            low, high = places[i] - sizes[i] - grow, places[i] + sizes[i] + grow
            draw.ellipse([*low, *high], fill=halo or colours[i])


def _within(layer: Image.Image, corner: tuple[int, int]) -> tuple[Image.Image, tuple[int, int]]:
    """Returns a layer without what lies left of or above the picture, which Pillow refuses, and its new corner."""
    cut = max(0, -corner[0]), max(0, -corner[1])
    if any(cut):
        layer = layer.crop((min(cut[0], layer.width), min(cut[1], layer.height), layer.width, layer.height))
    return layer, (max(0, corner[0]), max(0, corner[1]))


def _repeated(colours: Sequence[Colour], count: int) -> list[Colour]:
    return [colours[i % len(colours)] for i in range(count)]


@cache
def time_colours() -> tuple[Colour, ...]:
    """Returns the colours of the next actions, from now to later: plasma, perceptually uniform, without its yellow."""
    rows = np.rint(255 * colormaps["plasma"](np.linspace(_NOW, _LATER, UPCOMING))[:, :3]).astype(int)
    return tuple((int(r), int(g), int(b)) for r, g, b in rows)
