"""Where pictures of recorded steps come from: images in the data set, or an environment that draws what was observed.

An environment that can offers `env.unwrapped.picture(obs, size)` -> (size, size, 3) uint8, where `obs` is
{key: array} of one recorded step, whatever keys the data set has. Letters: H, W pixels of a picture.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from PIL import Image

from diffusion_policy.data.pictures import image_key, recorded_images
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import DataError, RenderError
from diffusion_policy.film.picture import Frame

Picture = Callable[[dict[str, Any], int], Any]


class Scenes(Protocol):
    """Gives the pictures of an episode, all of one size."""

    def pictures(self, episode: int) -> Iterator[Frame]:
        """Yields (H, W, 3) of each step in turn."""

    def picture(self, episode: int, step: int) -> Frame:
        """Returns (H, W, 3) of one step."""


class RecordedScenes:
    """The images of a data set, resized.

    Args:
        buffer: the data set.
        key: of images.
        width: of the pictures, px; the height follows the images.
    """

    def __init__(self, buffer: ReplayBuffer, key: str, width: int) -> None:
        self._buffer, self._key, self._width = buffer, key, width

    def pictures(self, episode: int) -> Iterator[Frame]:
        """Yields (H, width, 3) of each step in turn; see `recorded_images` for what it may raise."""
        return map(self._resized, recorded_images(self._buffer, self._key, self._buffer.episode_slice(episode)))

    def picture(self, episode: int, step: int) -> Frame:
        """Returns (H, width, 3) of one step."""
        at = self._buffer.episode_slice(episode).start + step
        return self._resized(next(recorded_images(self._buffer, self._key, slice(at, at + 1))))

    def _resized(self, image: Frame) -> Frame:
        size = self._width, max(1, round(self._width * image.shape[0] / image.shape[1]))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


class DrawnScenes:
    """Recorded observations as an environment draws them.

    Args:
        buffer: the data set; all of its keys are read.
        env: it offers `picture(obs, size)`.
        size: height and width of the pictures, px.
    """

    def __init__(self, buffer: ReplayBuffer, env: gym.Env[Any, Any], size: int) -> None:
        self._buffer, self._size = buffer, size
        self._name = type(env.unwrapped).__name__
        self._draw: Picture = env.unwrapped.picture  # type: ignore[attr-defined]

    def pictures(self, episode: int) -> Iterator[Frame]:
        """Yields (size, size, 3) of each step in turn; see `picture` for what it may raise."""
        recorded = self._buffer.get_episode(episode)
        for step in range(len(next(iter(recorded.values()), ()))):
            yield self._drawn({key: values[step] for key, values in recorded.items()})

    def picture(self, episode: int, step: int) -> Frame:
        """Returns (size, size, 3) of one step.

        Raises:
            DataError: the environment cannot draw what was recorded.
            RenderError: what it drew is no picture.
        """
        at = self._buffer.episode_slice(episode).start + step
        keys = self._buffer.keys()
        return self._drawn({key: self._buffer.read(key, at, at + 1)[0] for key in keys})

    def _drawn(self, obs: dict[str, Any]) -> Frame:
        try:
            picture = np.asarray(self._draw(obs, self._size))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self._buffer.location}: {self._name} cannot draw what was recorded ({', '.join(obs)}): {error}"
            ) from error
        if picture.dtype != np.uint8 or picture.shape != (self._size, self._size, 3):
            raise RenderError(
                f"{self._name}.picture(obs, {self._size}) must give ({self._size}, {self._size}, 3) uint8, but gave "
                f"{picture.shape} {picture.dtype}; correct the environment"
            )
        return picture


def find_scenes(buffer: ReplayBuffer, env: gym.Env[Any, Any] | None, width: int) -> Scenes:
    """Returns where pictures come from: the data set's images, else the environment.

    Args:
        buffer: at least one episode.
        env: None where none is known.
        width: of the pictures, px.

    Raises:
        DataError: neither has any; says what the data set holds and what would help.
    """
    key = image_key(buffer)
    if key is not None:
        return RecordedScenes(buffer, key, width)
    if env is not None and callable(getattr(env.unwrapped, "picture", None)):
        return DrawnScenes(buffer, env, width)
    keys = ", ".join(f"{key} {buffer.shape(key)}" for key in buffer.keys())  # noqa: SIM118
    who = "names no environment" if env is None else f"its {type(env.unwrapped).__name__} has no picture(obs, size)"
    raise DataError(
        f"{buffer.location}: no picture possible: expected a key of images, (height, width, 3) or (3, height, width), "
        f"but it has {keys}; and it {who}: name one that draws recorded steps, e.g. --env "
        f"diffusion_policy_envs:PushT-v0, or record images"
    )
