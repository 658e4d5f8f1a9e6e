"""Demonstrations for people's eyes: a film of several side by side, and a picture of a few moments of each.

The environment, where one is known, may offer `action_pixels` (see `action_marks`) and `picture` (see `scenes`).
Letters: T steps of an episode, M episodes, Da numbers of an action.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.film.action_marks import ActionMarks, ActionPath, ActionStrip, Floats, NoMarks, draw_legend
from diffusion_policy.film.mosaic import LIGHT, framed, mosaic
from diffusion_policy.film.picture import Frame
from diffusion_policy.film.scenes import Scenes, find_scenes

FILM_WIDTH, PICTURE_WIDTH = 256, 344  # px of one episode in a film, of one moment in a picture

_HOLD_SECONDS = 1.5  # how long the end of all episodes stays
_ACTION = "action"
_FAR = 1e30  # no action reaches it


class DemonstrationFilm:
    """Some episodes of a data set with pictures and marks of the actions.

    Args:
        buffer: the data set, at least one episode.
        env: the environment it was recorded in, None if unknown.
        width: of one picture, px.

    Raises:
        DataError: there are no pictures; says what would help.
    """

    def __init__(self, buffer: ReplayBuffer, env: gym.Env[Any, Any] | None, width: int) -> None:
        self._buffer = buffer
        self._scenes: Scenes = find_scenes(buffer, env, width)
        first = self._scenes.picture(0, 0)  # what cannot be drawn is said now, not in the middle of a film
        self._marks = _find_marks(buffer, env, square=first.shape[0] == first.shape[1])

    def film(
        self, episodes: Sequence[int], fps: float, on_frame: Callable[[int], None] = lambda _: None
    ) -> Iterator[Frame]:
        """Yields frames (H, W, 3) of these episodes side by side, all from their first step; the last one is held.

        Args:
            episodes: each in [0, M).
            fps: at which the film will be shown.
            on_frame: called with 1 for each step drawn, for a progress bar.
        """
        films = [self._episode(i, on_frame) for i in episodes]
        yield from mosaic(films, hold=round(_HOLD_SECONDS * fps))

    def picture(self, episodes: Sequence[int], moments: int, on_frame: Callable[[int], None] = lambda _: None) -> Frame:
        """Returns a picture (H, W, 3): a row for each episode, with moments from its first to its last step.

        Args:
            episodes: each in [0, M).
            moments: pictures in a row.
            on_frame: as for `film`.
        """
        films = []
        for i in episodes:
            actions = _actions(self._buffer, i)
            for step in np.rint(np.linspace(0, len(actions) - 1, moments)).astype(int):
                marked = self._marks(self._scenes.picture(i, int(step)), actions, int(step))
                films.append([framed(marked, _caption(i, int(step), len(actions)), look=LIGHT)])
                on_frame(1)
        rows = next(mosaic(films, columns=moments, look=LIGHT))
        if not isinstance(self._marks, ActionPath):
            return rows
        return np.concatenate([rows, draw_legend(rows.shape[1], 0.07 * films[0][0].shape[1])])

    def _episode(self, i: int, on_frame: Callable[[int], None]) -> Iterator[Frame]:
        actions = _actions(self._buffer, i)
        for step, picture in enumerate(self._scenes.pictures(i)):
            yield framed(self._marks(picture, actions, step), _caption(i, step, len(actions)))
            on_frame(1)


def spread(buffer: ReplayBuffer, count: int) -> list[int]:
    """Returns `count` episodes (or all, if there are fewer) evenly spread over the data set.

    Raises:
        ConfigError: count < 1.
    """
    if count < 1:
        raise ConfigError(f"expected 1 or more episodes to show, but got {count}")
    count = min(count, buffer.num_episodes)
    return [int(i) for i in np.rint(np.linspace(0, buffer.num_episodes - 1, count))]


def _find_marks(buffer: ReplayBuffer, env: gym.Env[Any, Any] | None, square: bool) -> ActionMarks:
    if _ACTION not in buffer:
        return NoMarks()
    action_pixels: Any = None if env is None else getattr(env.unwrapped, "action_pixels", None)
    if callable(action_pixels) and square:
        return ActionPath(action_pixels)
    rows = buffer[_ACTION].reshape(buffer.num_steps, -1).astype(np.float64)
    finite = np.isfinite(rows)
    return ActionStrip(rows.min(axis=0, where=finite, initial=_FAR), rows.max(axis=0, where=finite, initial=-_FAR))


def _actions(buffer: ReplayBuffer, i: int) -> Floats:
    """Returns the actions (T, Da) of episode i; Da is 0 where there are none."""
    rows = buffer.episode_slice(i)
    if _ACTION not in buffer:
        return np.zeros((rows.stop - rows.start, 0))
    return buffer.read(_ACTION, rows.start, rows.stop).reshape(rows.stop - rows.start, -1).astype(np.float64)


def _caption(episode: int, step: int, steps: int) -> str:
    return f"episode {episode}   step {step}/{steps - 1}"
