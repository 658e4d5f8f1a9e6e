"""The window for tele-operation, with a real pygame that draws nowhere."""

import importlib.util
import sys

import numpy as np
import pytest

from diffusion_policy.errors import ConfigError
from diffusion_policy.rollout.pygame_window import PygameWindow

needs_pygame = pytest.mark.skipif(importlib.util.find_spec("pygame") is None, reason="pygame is not installed")


@pytest.fixture
def window(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with PygameWindow() as opened:
        yield opened


def frame(size=100):
    picture = np.zeros((size, size, 3), np.uint8)
    picture[:10, :30] = 255, 128, 0  # wide, not high
    return picture


def pixels(pygame):
    return pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)  # (H, W, 3)


@needs_pygame
def test_window_shows_the_frame_and_text_beneath_it(window):
    import pygame

    window.show(frame(), ["one", "two"])
    shown = pixels(pygame)
    np.testing.assert_array_equal(shown[:100, :100], frame())
    bare = shown.copy()
    window.show(frame(), ["one", ""])
    np.testing.assert_array_equal(pixels(pygame)[:100], bare[:100])
    assert (pixels(pygame)[100:] != bare[100:]).any()


@needs_pygame
def test_window_tells_mouse_clicks_and_keys_once(window):
    import pygame

    window.show(frame(), ["one"])
    assert window.poll().mouse is None
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=(12, 34), rel=(0, 0), buttons=(0, 0, 0)))
    assert window.poll().mouse == (12, 34)
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=(50, 60), button=1))
    hand = window.poll()
    assert (hand.mouse, hand.clicked) == ((50, 60), True)
    assert window.poll().clicked is False
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=(50, 110), button=1))  # on the text
    hand = window.poll()
    assert (hand.mouse, hand.clicked) == ((50, 110), False)
    keys = [pygame.K_r, pygame.K_x, pygame.K_n, pygame.K_RETURN, pygame.K_q, pygame.K_ESCAPE]
    for each in keys:
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=each))
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    assert window.poll().commands == ("restart", "next", "next", "quit", "quit", "quit")
    assert window.poll().commands == ()


@needs_pygame
def test_window_of_another_size_scales_the_frame_and_the_mouse_back(window):
    import pygame

    window.show(frame(), ["one"])
    text = pygame.display.get_surface().get_height() - 100
    pygame.display.set_mode((260, 200 + text), pygame.RESIZABLE)  # as if it were dragged larger
    window.show(frame(), ["one"])
    shown = pixels(pygame)
    np.testing.assert_array_equal(shown[8, [34, 80]], [[255, 128, 0]] * 2)  # 30 px beside it
    assert (shown[8, [10, 250]] != [255, 128, 0]).all(axis=1).all()
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=(30 + 2 * 25, 2 * 75), rel=(0, 0), buttons=(0, 0, 0)))
    assert window.poll().mouse == (25, 75)


@needs_pygame
def test_no_display_is_said_before_anything_begins(monkeypatch):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pygame.display.get_driver", lambda: "offscreen")
    monkeypatch.setattr("pygame.display.init", lambda: None)
    with pytest.raises(ConfigError, match="needs a display"):
        PygameWindow()


def test_missing_pygame_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ConfigError, match=r"pygame is not installed; pip install 'diffusion-policy\[teleop\]'"):
        PygameWindow()
