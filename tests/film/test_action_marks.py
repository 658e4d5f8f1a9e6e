import numpy as np
import pytest

from diffusion_policy.errors import ConfigError
from diffusion_policy.film.action_marks import UPCOMING, ActionPath, ActionStrip, NoMarks, time_colours

GREY = np.full((200, 200, 3), 128, np.uint8)
LINE = np.column_stack([np.linspace(10, 190, 40), np.linspace(150, 50, 40)])  # 5 px between two


def path(actions, step=0, picture=GREY):
    return ActionPath(lambda actions, size: actions * size / 200)(picture, np.asarray(actions, float), step)


def pixel(picture, place):
    x, y = np.floor(place).astype(int)
    return picture[y, x]


@pytest.mark.parametrize("step", [0, 20])
def test_path_shows_each_of_the_next_actions_in_the_colour_of_its_time(step):
    spaced = np.column_stack([np.tile(np.linspace(10, 190, 10), 4)[:40], np.repeat(np.linspace(20, 180, 4), 10)])
    marked = path(spaced, step)
    for action, colour in zip(spaced[step:], time_colours(), strict=False):
        np.testing.assert_allclose(pixel(marked, action), colour, atol=40)  # the smallest dots are half edge
    np.testing.assert_array_equal(pixel(marked, spaced[step + UPCOMING]), [128] * 3)
    if step:
        np.testing.assert_array_equal(pixel(marked, spaced[0]), [128] * 3)


def test_path_changes_nothing_away_from_it():
    changed = np.argwhere((path(LINE) != GREY).any(axis=-1))[:, ::-1] + 0.5  # (n, 2), x and y
    assert len(changed)
    distances = np.linalg.norm(changed[:, None] - LINE[None, :UPCOMING], axis=-1).min(axis=1)
    assert distances.max() < 9


def test_path_of_the_last_step_is_one_dot_and_of_no_actions_nothing():
    rows, columns = np.nonzero((path(LINE, 39) != GREY).any(axis=-1))
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], LINE[39], atol=0.6)
    np.testing.assert_array_equal(path(np.full((4, 2), np.nan)), GREY)


@pytest.mark.parametrize("shift", [(-15, 0), (0, -145), (185, 0), (0, 140), (-1000, 0), (1e9, 0)])
def test_path_may_leave_the_picture(shift):
    inside = np.all((LINE[:UPCOMING] + shift > 0) & (LINE[:UPCOMING] + shift < 200), axis=1)
    marked = path(LINE + shift)
    assert (marked != GREY).any() == inside.any()
    assert marked.shape == GREY.shape


def test_path_scales_with_the_picture():
    large = path(LINE, picture=np.full((400, 400, 3), 128, np.uint8))
    np.testing.assert_allclose(pixel(large, 2 * LINE[0]), time_colours()[0], atol=20)


@pytest.mark.parametrize("answer", [np.zeros(2), np.zeros((3, 2)), np.full((UPCOMING, 2), np.inf)])
def test_action_pixels_of_another_shape_are_refused(answer):
    with pytest.raises(ConfigError, match=r"action_pixels must give \(16, 2\) finite pixels"):
        ActionPath(lambda actions, size: answer)(GREY, LINE, 0)


def test_time_colours_brighten_evenly_from_now_to_later():
    rgb = np.array(time_colours()) / 255
    luminance = (((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]  # sRGB, but for its linear foot
    lightness = np.diff(np.cbrt(luminance))  # CIE L*, up to a scale
    assert lightness.min() > 0
    assert lightness.max() < 1.5 * lightness.min()


def test_strip_stands_beneath_and_its_line_follows_the_step():
    actions = np.column_stack([np.linspace(-1, 1, 50), np.zeros(50), np.full(50, np.nan)])
    strip = ActionStrip(np.array([-1.0, 0, 0]), np.array([1.0, 0, 0]))
    places = []
    for step in (0, 10, 30, 49):
        marked = strip(GREY, actions, step)
        assert marked.shape == (260, 200, 3)
        np.testing.assert_array_equal(marked[:200], GREY)
        places.append(marked[200:].min(axis=-1).astype(int).sum(axis=0).argmax())
    np.testing.assert_allclose(np.diff(places), 200 * 0.96 * np.array([10, 20, 19]) / 49, atol=2)


def test_strip_draws_what_rises_as_rising():
    rising = np.linspace(0, 1, 50)[:, None]
    shown = ActionStrip(np.zeros(1), np.ones(1))(GREY, rising, 0)[200:].astype(int)
    blue = shown[..., 2] - shown[..., 0] > 60  # the first curve's colour
    heights = [np.flatnonzero(blue[:, column]).mean() for column in range(20, 190, 20)]
    assert (np.diff(heights) < -2).all()  # rows count downwards


def test_no_marks_leave_the_picture():
    assert NoMarks()(GREY, LINE, 0) is GREY
