"""Films: a grid of episodes with seed, reward and outcome, as H.264 that browsers and players take.

Letters: H, W pixels of a frame.
"""

import math
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from diffusion_policy.errors import ConfigError, StorageError
from diffusion_policy.film.mosaic import framed, mosaic
from diffusion_policy.film.overlay import ChunkOverlay
from diffusion_policy.film.picture import Frame, Picture

_HOLD_SECONDS = 1.5  # how long the outcome of all episodes stays at the end
_SUCCESS, _FAILURE = (46, 170, 80), (214, 58, 52)


@dataclass
class _Tile:
    """One filmed episode; its frames are the data of pictures of one size."""

    seed: int
    frames: list[bytes] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)  # best so far, one a frame
    success: bool | None = None
    finished: bool = False


class VideoGrid:
    """Collects the first episodes of an evaluation and writes them side by side.

    The border is grey while an episode runs, green after success, red after failure, and stays grey where the
    environment does not say; the last frame of a finished episode stays. The caption's reward is the best so far.

    Args:
        episodes: how many to film; the grid is as square as it gets (16 -> 4 x 4).
        tile: width of one episode in pixels; its height follows the environment's frames.
        fps: frames per second; None takes the environment's own rate.
        overlay: draws what the policy might do next; None draws nothing.
    """

    def __init__(
        self, episodes: int = 16, tile: int = 192, fps: float | None = None, overlay: ChunkOverlay | None = None
    ) -> None:
        if episodes < 1 or tile < 16:
            raise ConfigError(f"a film needs episodes >= 1 and tile >= 16 pixels, but got {episodes} and {tile}")
        self.episodes, self.tile, self.fps, self.overlay = episodes, tile, fps, overlay
        self._tiles: dict[int, _Tile] = {}
        self._shape: tuple[int, int] | None = None  # (H, W) of a tile's picture

    def wants(self, episode: int) -> bool:
        """Returns whether this episode (0, 1, ...) is to be filmed: only such need rendering."""
        return 0 <= episode < self.episodes

    def restart(self, episode: int) -> None:
        """Forgets what was filmed of an episode, which begins again."""
        self._tiles.pop(episode, None)
        if self.overlay is not None:
            self.overlay.forget(episode)

    def add(self, episode: int, frame: object, *, seed: int, max_reward: float) -> None:
        """Appends a frame, a `Picture` or (H, W, 3) uint8, of an episode, and the best reward so far.

        Raises:
            RenderError: what the environment rendered is no such picture.
        """
        picture = frame if isinstance(frame, Picture) else Picture.of(frame, self.tile)
        if self.overlay is not None:
            picture = self.overlay.marked(episode, picture)
        if self._shape is None:
            self._shape = picture.height, picture.width
        tile = self._tiles.setdefault(episode, _Tile(seed))
        tile.frames.append(picture.scaled(*self._shape).data)
        tile.rewards.append(max_reward)

    def finish(self, episode: int, success: bool | None) -> None:
        """Tells that an episode is over, and how it ended."""
        self._tiles[episode].success, self._tiles[episode].finished = success, True

    @property
    def num_frames(self) -> int:
        """Frames of the longest episode."""
        return max((len(tile.frames) for tile in self._tiles.values()), default=0)

    def frames(self) -> Iterator[Frame]:
        """Yields the grid (H, W, 3), frame by frame, then holds the last one for a moment.

        Raises:
            ConfigError: nothing was filmed.
        """
        if self._shape is None:
            raise ConfigError("nothing was filmed: expected at least one frame, e.g. from evaluate(..., film=grid)")
        films = [self._film(self._tiles[episode], *self._shape) for episode in sorted(self._tiles)]
        yield from mosaic(films, hold=round(_HOLD_SECONDS * (self.fps or 10)))

    def save(self, path: str | Path) -> None:
        """Writes the film.

        Raises:
            ConfigError: nothing was filmed.
            StorageError: it could not be written.
        """
        save_video(self.frames(), path, self.fps or 10)

    def _film(self, tile: _Tile, height: int, width: int) -> Iterator[Frame]:
        """Yields one episode's frames, its pictures being height x width, with border and caption."""
        for time, (pixels, reward) in enumerate(zip(tile.frames, tile.rewards, strict=True)):
            over = tile.finished and time == len(tile.frames) - 1
            colour = None if not over or tile.success is None else _SUCCESS if tile.success else _FAILURE
            said = f"   {reward:z.2f}" if math.isfinite(reward) else ""  # none before a step
            yield framed(Picture(height, width, pixels).frame(), f"seed {tile.seed}{said}", colour)


def save_video(frames: Iterable[Frame], path: str | Path, fps: float) -> None:
    """Writes frames as H.264 (yuv420p); odd sizes lose their last row or column, which the format cannot hold.

    Args:
        frames: (H, W, 3) uint8 each, all of one size; consumed one by one.
        path: an .mp4 file; a half-written one never stands there.
        fps: frames per second.

    Raises:
        ConfigError: there are no frames.
        StorageError: the encoder could not write.
    """
    target = Path(path)
    partial = target.with_name(f".partial-{target.name}")
    writer, sent = None, 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for frame in frames:
            even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
            if writer is None:
                writer = _encoder(partial, (even.shape[1], even.shape[0]), fps)
            writer.send(np.ascontiguousarray(even))
            sent += 1
        if writer is None:
            raise ConfigError(f"no frames to write to {target}; film at least one")
        writer.close()
        _check_whole(partial, sent)
        os.replace(partial, target)  # noqa: PTH105  one step on every platform
    except OSError as error:
        raise StorageError(f"could not write {target}: {error}; free some space or choose another place") from error
    finally:
        if writer is not None:
            writer.close()
        with suppress(OSError):  # a second failure must not hide the first
            partial.unlink(missing_ok=True)


def _check_whole(path: Path, frames: int) -> None:
    """Raises OSError unless the file holds all frames: on a full disk the encoder ends early without a word."""
    try:
        written, _seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    except RuntimeError as error:  # too short to be read at all
        raise OSError("the encoder's file is broken; is the disk full?") from error
    if written != frames:
        raise OSError(f"the encoder wrote {written} of {frames} frames; is the disk full?")


def _encoder(path: Path, size: tuple[int, int], fps: float) -> Generator[None, object, None]:
    """Returns imageio-ffmpeg's generator that takes frames; quality 7 keeps flat colours clean."""
    writer: Generator[None, object, None] = imageio_ffmpeg.write_frames(
        str(path),
        size,
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        quality=7,
        macro_block_size=2,
        ffmpeg_log_level="error",
    )
    writer.send(None)
    return writer
