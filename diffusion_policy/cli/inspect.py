"""dp-inspect: what a data set holds, and what is wrong with it."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.survey import Survey, survey
from diffusion_policy.errors import DataError, DiffusionPolicyError, OutputExistsError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.rollout.progress import ProgressBar

T = TypeVar("T")

_FILMED = 4  # episodes, unless others are asked for
_EXAMPLES = """\
examples:
  dp-inspect demos.zarr
  dp-inspect package://pusht --plot pusht.png
  dp-inspect pusht_cchi_v7_replay.zarr --keys action state keypoint
  dp-inspect demos.zarr --video demos.mp4 --episodes 0 1 2

exit codes: 0 no problem found, 1 problems found, 2 bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        return _inspect(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except DiffusionPolicyError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dp-inspect",
        description="Shows what a data set of demonstrations holds, checks it, plots it, films it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="a zarr folder, a .zip of one, or package://NAME")
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="read only these (images take longest)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw distributions and courses of the actions")
    parser.add_argument("--video", type=Path, metavar="MP4", help="film the recorded images")
    parser.add_argument("--episodes", nargs="+", type=int, metavar="I", help=f"film these (default: first {_FILMED})")
    parser.add_argument("--fps", type=float, default=10.0, help="frames per second of the video (default: 10)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _inspect(args: argparse.Namespace) -> int:
    with ReplayBuffer.open(resolve_dataset(args.dataset)) as buffer:
        if not buffer.num_episodes:
            raise DataError(f"{buffer.location}: expected episodes, but there are none; collect or convert some first")
        episodes = args.episodes or list(range(min(_FILMED, buffer.num_episodes)))
        _check_outputs(buffer, args, episodes)
        with ProgressBar("inspect", buffer.num_steps) as bar:
            found = survey(buffer, args.keys, on_episode=_counter(bar))
        _print(buffer, found)
        if args.plot:
            from diffusion_policy.data.pictures import plot_actions

            plot_actions(buffer, args.plot)
            print(f"plot     {args.plot}")
        if args.video:
            from diffusion_policy.data.pictures import frames
            from diffusion_policy.rollout.video import save_video

            steps = sum(buffer.episode_slice(i).stop - buffer.episode_slice(i).start for i in episodes)
            with ProgressBar("film", steps) as bar:
                save_video(_counted(frames(buffer, episodes), _counter(bar)), args.video, args.fps)
            print(f"video    {args.video}")
    return 1 if found.problems else 0


def _check_outputs(buffer: ReplayBuffer, args: argparse.Namespace, episodes: Sequence[int]) -> None:
    """Refuses what cannot be written before minutes of reading, not after them."""
    for path in filter(None, (args.plot, args.video)):
        if path.exists():
            raise OutputExistsError(f"{path} already exists; choose another file")
    if args.plot:
        buffer.shape("action")
    if args.video:
        from diffusion_policy.data.pictures import image_key

        image_key(buffer)
        for i in episodes:
            buffer.episode_slice(i)


def _print(buffer: ReplayBuffer, found: Survey) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    steps = found.lengths
    console.print(f"{buffer.location}: {buffer.num_episodes} episodes, {buffer.num_steps} steps")
    console.print(f"lengths  {steps.min()} shortest, {np.median(steps):g} median, {steps.max()} longest")
    console.print(f"digest   {found.digest}" + ("" if list(found.keys) == buffer.keys() else " (of these keys)"))
    for name, value in buffer.attrs.items():
        console.print(f"{name:<8} {value if isinstance(value, str) else json.dumps(value, default=str)}")
    table = Table("key", "dtype", "shape", "min", "mean", "max")
    for key, each in found.keys.items():
        numbers = (f"{value:.5g}" for value in (each.low.min(), each.mean, each.high.max()))
        table.add_row(key, str(each.dtype), "x".join(map(str, each.shape)) or "1", *numbers)
    console.print(table)
    for note in found.notes:
        console.print(f"note     {note}")
    for problem in found.problems:
        console.print(f"problem  {problem}", style="red")
    if not found.problems:
        console.print("checks   increasing ends, finite numbers, distinct episodes, digests: no problem found")


def _counter(bar: ProgressBar) -> Callable[[int], None]:
    """Returns a function that advances the bar by so many."""
    done = 0

    def advance(by: int) -> None:
        nonlocal done
        done += by
        bar.update(done)

    return advance


def _counted(items: Iterable[T], advance: Callable[[int], None]) -> Iterator[T]:
    for item in items:
        yield item
        advance(1)


if __name__ == "__main__":
    sys.exit(main())
