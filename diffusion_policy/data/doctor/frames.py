"""Pictures: those that show nothing, and a few small ones for people.

Letters: T steps of an episode.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.findings import Finding, Places, counted, of_episodes
from diffusion_policy.data.doctor.streams import Episode, Role, channels_first

_FLAT = (
    1.0  # grey levels of 255 between the darkest and the brightest pixel: a covered lens has noise, a lost frame none
)
_STRIDE = 8  # every so manieth pixel of a row is looked at first
THUMBNAIL = 96
"""Width in px of small pictures."""


class BlankCheck:
    """Finds pictures of one colour, as lost frames and closed cameras give.

    Args:
        roles: of all keys that are read.
    """

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self._blank: dict[str, Places] = {key: Places() for key, role in roles.items() if role == "image"}
        self._black = dict.fromkeys(self._blank, 0)

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        for key, found in self._blank.items():
            where = blank(episode[key])
            found.extend(i, where)
            self._black[key] += sum(bool(frame.max() <= _FLAT) for frame in episode[key][where])

    def findings(self) -> list[Finding]:
        """Returns which keys have blank pictures."""
        found = []
        for key, places in self._blank.items():
            if places.count:
                episodes, spans = places.episodes, tuple(places.spans)
                what = f"{key}: {counted(places.count, 'picture')} of a single colour in {of_episodes(episodes)}, "
                what += f"{self._black[key]} of them black"
                found.append(Finding("blank", "warning", what, key=key, episodes=episodes, spans=spans))
        return found


def blank(frames: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Returns (T,): whether a picture has one colour.

    Args:
        frames: (T, H, W, C) or (T, C, H, W); 0-255, or 0-1 as floats.
    """
    few = _pixels(frames, _STRIDE)
    flat = _FLAT if frames.dtype.kind != "f" or few.max() > 1 else _FLAT / 255
    where = _contrast(few) <= flat
    for t in np.flatnonzero(where):
        where[t] = _contrast(_pixels(frames[t : t + 1], 1))[0] <= flat
    return np.asarray(where)


def _contrast(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Returns (T,) the largest difference of one channel; of integers it must not overflow."""
    return np.asarray((pixels.max(axis=1).astype(np.float64) - pixels.min(axis=1)).max(axis=1))


def _pixels(frames: NDArray[np.generic], stride: int) -> NDArray[np.generic]:
    """Returns every so manieth pixel (T, n, C), without a copy of all."""
    if channels_first(frames.shape[1:]):
        return np.moveaxis(frames.reshape(*frames.shape[:2], -1)[:, :, ::stride], 1, 2)
    return frames.reshape(len(frames), -1, frames.shape[-1])[:, ::stride]


class Thumbnails:
    """Keeps small pictures of the first, middle and last step of some episodes.

    Args:
        roles: of all keys that are read; without pictures there is nothing to keep.
        episodes: whose.

    Attributes:
        pictures: by key and episode, three (H, W, C) uint8 each.
    """

    def __init__(self, roles: Mapping[str, Role], episodes: set[int]) -> None:
        self._episodes = episodes
        self.pictures: dict[str, dict[int, list[NDArray[np.uint8]]]] = {
            key: {} for key, role in roles.items() if role == "image"
        }

    def add(self, i: int, episode: Episode) -> None:
        """Takes in an episode."""
        if i in self._episodes:
            for key, kept in self.pictures.items():
                frames = episode[key]
                kept[i] = [_small(frames[t]) for t in (0, len(frames) // 2, len(frames) - 1)]


def _small(frame: NDArray[np.generic]) -> NDArray[np.uint8]:
    upright = np.moveaxis(frame, 0, -1) if channels_first(frame.shape) else frame
    stride = max(1, upright.shape[1] // THUMBNAIL)
    few = upright[::stride, ::stride].astype(np.float64)
    few = few * 255 if frame.dtype.kind == "f" and few.max() <= 1 else few
    return np.nan_to_num(few).clip(0, 255).astype(np.uint8)
