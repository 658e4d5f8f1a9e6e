"""A window for tele-operation, by pygame: the picture, text beneath it, mouse and keys."""

import os
from collections.abc import Sequence
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import numpy as np

from diffusion_policy.errors import ConfigError
from diffusion_policy.film.mosaic import DARK
from diffusion_policy.film.picture import Frame
from diffusion_policy.rollout.teleop import Command, Hand

_FONT, _LINE, _PAD = 20, 26, 8  # px
_NO_DISPLAY = ("dummy", "offscreen")  # drivers that show nothing; fine if somebody asked for them


class PygameWindow:
    """A window that can be resized; the picture is scaled to fit, and the mouse is told in the picture's pixels.

    Args:
        title: of the window.

    Raises:
        ConfigError: pygame is not installed, or there is no display.
    """

    def __init__(self, title: str = "dp-collect") -> None:
        self._pygame = pygame = _imported()
        self._commands: dict[int, Command] = {
            pygame.K_r: "restart",
            pygame.K_n: "next",
            pygame.K_RETURN: "next",
            pygame.K_KP_ENTER: "next",
            pygame.K_q: "quit",
            pygame.K_ESCAPE: "quit",
        }
        try:
            pygame.display.init()
        except pygame.error as error:
            raise ConfigError(f"teleop=true needs a display to open a window on, but there is none: {error}") from error
        if pygame.display.get_driver() in _NO_DISPLAY and not os.environ.get("SDL_VIDEODRIVER"):
            pygame.display.quit()
            raise ConfigError("teleop=true needs a display to open a window on, but there is none; log in at one")
        pygame.font.init()
        pygame.display.set_caption(title)
        self._font = pygame.font.Font(None, _FONT + 4)
        self._mouse: tuple[int, int] | None = None  # px of the window
        self._corner, self._scale = (0, 0), 1.0  # of the picture in the window
        self._frame_size = (0, 0)  # width, height

    def show(self, frame: Frame, lines: Sequence[str]) -> None:
        """Draws a picture (H, W, 3) and lines of text; the first one opens the window."""
        pygame = self._pygame
        height, width = frame.shape[:2]
        self._frame_size = width, height
        text = len(lines) * _LINE + 2 * _PAD
        surface = pygame.display.get_surface()
        if surface is None:
            surface = pygame.display.set_mode((width, height + text), pygame.RESIZABLE)
        room = surface.get_width(), max(1, surface.get_height() - text)
        self._scale = min(room[0] / width, room[1] / height)
        size = max(1, round(width * self._scale)), max(1, round(height * self._scale))
        self._corner = (room[0] - size[0]) // 2, (room[1] - size[1]) // 2
        picture = pygame.surfarray.make_surface(np.ascontiguousarray(frame.swapaxes(0, 1)))  # (W, H, 3)
        surface.fill(DARK.background)
        surface.blit(picture if size == (width, height) else pygame.transform.smoothscale(picture, size), self._corner)
        for row, line in enumerate(lines):
            place = 2 * _PAD, surface.get_height() - text + _PAD + row * _LINE
            surface.blit(self._font.render(line, True, DARK.text), place)
        pygame.display.flip()

    def poll(self) -> Hand:
        """Returns what happened since the last call; the mouse outside the window stays where it left."""
        pygame = self._pygame
        commands: list[Command] = []
        clicked = False
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                commands.append("quit")
            elif event.type == pygame.KEYDOWN and event.key in self._commands:
                commands.append(self._commands[event.key])
            elif event.type == pygame.MOUSEMOTION:
                self._mouse = event.pos
            elif event.type == pygame.MOUSEBUTTONDOWN:
                self._mouse = event.pos
                place = self._in_frame(event.pos)
                clicked = clicked or all(0 <= at < end for at, end in zip(place, self._frame_size, strict=True))
        mouse = None if self._mouse is None else self._in_frame(self._mouse)
        return Hand(mouse, clicked, tuple(commands))

    def _in_frame(self, place: tuple[int, int]) -> tuple[float, float]:
        """Returns a place of the window in px of the frame."""
        return (place[0] - self._corner[0]) / self._scale, (place[1] - self._corner[1]) / self._scale

    def close(self) -> None:
        """Closes the window."""
        self._pygame.font.quit()
        self._pygame.display.quit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _imported() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        return import_module("pygame")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "teleop=true needs a window library, but pygame is not installed; "
            "pip install 'diffusion-policy[teleop]', or pip install pygame-ce"
        ) from error
