"""dp-inspect: what a data set holds, and what is wrong with it."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from diffusion_policy.cli.outcome import outcome
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.store import storage_errors
from diffusion_policy.data.survey import Survey, survey
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.rollout.progress import ProgressBar

if TYPE_CHECKING:
    from diffusion_policy.film.demonstrations import DemonstrationFilm

_LONG = 8  # items of a list that are shown
_FILMED, _PICTURED, _MOMENTS = 9, 3, 5  # episodes in a film and in a picture unless asked for, pictures in a row
_EXAMPLES = """\
examples:
  dp-inspect demos.zarr
  dp-inspect package://pusht --plot pusht.png
  dp-inspect pusht_cchi_v7_replay.zarr --keys action state keypoint
  dp-inspect demos.zarr --video demos.mp4 --episodes 16
  dp-inspect demos.zarr --picture demos.png --only 0 7 12
  dp-inspect pusht_cchi_v7_replay.zarr --video human.mp4 --env diffusion_policy_envs:PushT-v0
  dp-inspect hopper.zarr --physics                    # does the simulator agree with what it says?
  dp-inspect imported.zarr --physics --env Hopper-v5

exit codes: 0 no problem found, 1 problems found, 2 bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return outcome(_inspect, _parser().parse_args(argv), "interrupted")


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
    parser.add_argument("--video", type=Path, metavar="MP4", help="film episodes side by side, with their actions")
    parser.add_argument("--picture", type=Path, metavar="PNG", help=f"draw {_MOMENTS} moments of episodes, likewise")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--episodes",
        type=int,
        metavar="N",
        help=f"show so many, spread over the data set (default: {_FILMED}, in the picture {_PICTURED})",
    )
    chosen.add_argument("--only", nargs="+", type=int, metavar="I", help="show these")
    parser.add_argument(
        "--physics", action="store_true", help="step the simulator from recorded states and compare what follows"
    )
    parser.add_argument(
        "--env", metavar="ID", help="environment that draws, steps and bounds actions, if the data name none"
    )
    parser.add_argument("--fps", type=float, help="frames per second of the video (default: the environment's, or 10)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _inspect(args: argparse.Namespace) -> int:
    with ReplayBuffer.open(resolve_dataset(args.dataset)) as buffer:
        if not buffer.num_episodes:
            raise DataError(f"{buffer.location}: expected episodes, but there are none; collect or convert some first")
        with _show(buffer, args) as show:
            with ProgressBar("inspect", buffer.num_steps) as bar:
                found = survey(buffer, args.keys, action_bounds=_bounds(buffer, args), on_episode=_counter(bar))
            _print(buffer, found)
            _print_returns(buffer, args.env)
            wrong = _physics(buffer, args.env) if args.physics else False
            if args.plot:
                from diffusion_policy.data.pictures import plot_actions

                plot_actions(buffer, args.plot)
                print(f"plot     {args.plot}")
            show()
    return 1 if found.problems or wrong else 0


def _bounds(buffer: ReplayBuffer, args: argparse.Namespace) -> list[list[float]] | None:
    if "action" not in (args.keys or buffer.keys()):
        return None
    from diffusion_policy.rollout.recorded_env import recorded_bounds

    return recorded_bounds(buffer, args.env)


def _print_returns(buffer: ReplayBuffer, env_id: str | None) -> None:
    from diffusion_policy.rollout.reference_scores import worth
    from diffusion_policy.rollout.worth import part_worths

    record = buffer.attrs.get("provenance")
    recorded = record.get("env_id") if isinstance(record, dict) else None
    for part in part_worths(buffer):
        said = worth(str(env_id or recorded or ""), part.mean_return, part.success_rate)
        print(f"return   {said}, mean of {part.name}")


def _physics(buffer: ReplayBuffer, env_id: str | None) -> bool:
    """Prints how far the simulator is from the data; returns whether that is too far."""
    from diffusion_policy.rollout.physics import CLOSE, EXACT, check_physics

    report = check_physics(buffer, env_id)
    table = Table("physics", "std", "median error / std", "99th percentile")
    middle, most = np.median(report.errors, axis=0), np.percentile(report.errors, 99, axis=0)
    for row in zip(report.names, report.scale, middle, most, strict=True):
        table.add_row(row[0], *(f"{number:.3g}" for number in row[1:]))
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    left_out = f"; {report.clipped} more left out, their velocities were clipped" if report.clipped else ""
    shares = f"{report.share_within(EXACT):.1%} exact (within {EXACT:g} std), {report.share_within(CLOSE):.1%} close"
    console.print(f"physics  {len(report.errors)} steps: {shares} ({CLOSE:g}){left_out}")
    record = buffer.attrs.get("provenance")
    if report.wrong and isinstance(record, dict) and "augmenter" in record:
        console.print(
            "note     synthetic transitions: these are the model's errors; dp-augment report=true compares them"
        )
        return False
    if report.wrong:
        console.print(
            "problem  the simulator does not do what the data say: noise, another environment or version, actions "
            "shifted or scaled",
            style="red",
        )
    return report.wrong


@contextmanager
def _show(buffer: ReplayBuffer, args: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """Yields what makes picture and film; refuses what cannot be made before minutes of reading, not after them."""
    for path in filter(None, (args.plot, args.picture, args.video)):
        if path.exists():
            raise OutputExistsError(f"{path} already exists; choose another file")
    if args.plot:
        buffer.shape("action")
    if not (args.picture or args.video):
        yield lambda: None
        return
    from diffusion_policy.film.demonstrations import FILM_WIDTH, PICTURE_WIDTH, DemonstrationFilm, spread
    from diffusion_policy.rollout.recorded_env import find_env

    if args.fps is not None and not args.fps > 0:
        raise ConfigError(f"--fps must be above 0, but got {args.fps:g}")
    if args.picture and args.picture.suffix.lower() != ".png":
        raise ConfigError(f"--picture must name a .png, but got {args.picture}; --video makes films")
    for i in args.only or ():
        buffer.episode_slice(i)
    with ExitStack() as held:
        env = find_env(buffer, args.env)
        if env is not None:
            held.callback(env.close)
        jobs: list[Callable[[], None]] = []
        if args.picture:
            episodes = args.only or spread(buffer, _PICTURED if args.episodes is None else args.episodes)
            jobs.append(partial(_picture, DemonstrationFilm(buffer, env, PICTURE_WIDTH), episodes, args.picture))
        if args.video:
            episodes = args.only or spread(buffer, _FILMED if args.episodes is None else args.episodes)
            fps = args.fps or (10.0 if env is None else float(env.metadata.get("render_fps") or 10.0))
            steps = sum(buffer.episode_slice(i).stop - buffer.episode_slice(i).start for i in episodes)
            jobs.append(partial(_film, DemonstrationFilm(buffer, env, FILM_WIDTH), episodes, args.video, fps, steps))

        def show() -> None:
            for job in jobs:
                job()

        yield show


def _picture(shown: "DemonstrationFilm", episodes: Sequence[int], path: Path) -> None:
    from PIL import Image

    with ProgressBar("picture", len(episodes) * _MOMENTS) as bar:
        image = Image.fromarray(shown.picture(episodes, _MOMENTS, _counter(bar)))
    with storage_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    print(f"picture  {path}")


def _film(shown: "DemonstrationFilm", episodes: Sequence[int], path: Path, fps: float, steps: int) -> None:
    from diffusion_policy.film.video import save_video

    with ProgressBar("film", steps) as bar:
        save_video(shown.film(episodes, fps, _counter(bar)), path, fps)
    print(f"video    {path}")


def _print(buffer: ReplayBuffer, found: Survey) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    steps = found.lengths
    console.print(f"{buffer.location}: {buffer.num_episodes} episodes, {buffer.num_steps} steps")
    console.print(f"lengths  {steps.min()} shortest, {np.median(steps):g} median, {steps.max()} longest")
    console.print(f"digest   {found.digest}" + ("" if list(found.keys) == buffer.keys() else " (of these keys)"))
    for name, value in buffer.attrs.items():
        console.print(f"{name:<8} {value if isinstance(value, str) else json.dumps(_abridged(value), default=str)}")
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


def _abridged(value: Any) -> Any:
    """Returns metadata with its long lists cut: [0, 1, ..., 199] is "0 to 199"."""
    if isinstance(value, dict):
        return {key: _abridged(each) for key, each in value.items()}
    if not isinstance(value, list) or len(value) <= _LONG:
        return value
    if all(isinstance(each, int) for each in value) and value == list(range(value[0], value[0] + len(value))):
        return f"{value[0]} to {value[-1]}"
    return [*map(_abridged, value[:_LONG]), f"... {len(value)} in all"]


def _counter(bar: ProgressBar) -> Callable[[int], None]:
    """Returns a function that advances the bar by so many."""
    done = 0

    def advance(by: int) -> None:
        nonlocal done
        done += by
        bar.update(done)

    return advance


if __name__ == "__main__":
    sys.exit(main())
