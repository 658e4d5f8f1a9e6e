"""dp-inspect: what a data set holds, and what is wrong with it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.cli.inspect_pictures import FILMED, MOMENTS, PICTURED, counter, drawing, drawn_moments
from diffusion_policy.cli.inspect_shown import (
    attribute_lines,
    print_contents,
    print_findings,
    print_physics,
    print_returns,
)
from diffusion_policy.cli.outcome import Parser, outcome
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.survey import survey
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.rollout.progress import ProgressBar

_EXAMPLES = """\
examples:
  dp-inspect demos.zarr
  dp-inspect demos.zarr --report report.html          # findings, plots, thumbnails in one file; report.json beside it
  dp-inspect package://pusht --plot pusht.png
  dp-inspect pusht_cchi_v7_replay.zarr --keys action state keypoint
  dp-inspect demos.zarr --video demos.mp4 --episodes 16
  dp-inspect demos.zarr --picture demos.png --only 0 7 12
  dp-inspect pusht_cchi_v7_replay.zarr --video human.mp4 --env diffusion_policy_envs:PushT-v0
  dp-inspect hopper.zarr --physics                    # does the simulator agree with what it says?
  dp-inspect imported.zarr --physics --env Hopper-v5

What it finds is a problem (a fact that makes data unfit), a warning (likely to cost success: look at it) or a note;
dp-convert mends much of it into a new data set.

exit codes: 0 no problem found (there may be warnings and notes), 1 problems found, 2 bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return outcome(_inspect, _parser().parse_args(argv), "interrupted")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dp-inspect",
        description="Shows what a data set of demonstrations holds, checks it, plots it, films it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="a zarr folder, a .zip of one, or package://NAME")
    parser.add_argument("--keys", nargs="+", metavar="KEY", help="read only these (images take longest)")
    parser.add_argument("--report", type=Path, metavar="HTML", help="write all that was found, with plots, and a .json")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw distributions and courses of the actions")
    parser.add_argument("--video", type=Path, metavar="MP4", help="film episodes side by side, with their actions")
    parser.add_argument("--picture", type=Path, metavar="PNG", help=f"draw {MOMENTS} moments of episodes, likewise")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--episodes",
        type=int,
        metavar="N",
        help=f"show so many, spread over the data set (default: {FILMED}, in the picture {PICTURED})",
    )
    chosen.add_argument("--only", nargs="+", type=int, metavar="I", help="show these")
    parser.add_argument(
        "--physics", action="store_true", help="step the simulator from recorded states and compare what follows"
    )
    parser.add_argument(
        "--env", metavar="ID", help="environment that draws, steps and bounds actions, if the data name none"
    )
    parser.add_argument("--fps", type=float, help="frames per second of the video (default: the data's rate, or 10)")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _inspect(args: argparse.Namespace) -> int:
    if args.report and args.report.suffix.lower() != ".html":
        raise ConfigError(f"--report must name a .html, but got {args.report}")
    with ReplayBuffer.open(resolve_dataset(args.dataset)) as buffer:
        if not buffer.num_episodes:
            raise DataError(f"{buffer.location}: expected episodes, but there are none; collect or convert some first")
        with drawing(buffer, args) as draw:
            with ProgressBar("inspect", buffer.num_steps) as bar:
                found = survey(
                    buffer,
                    args.keys,
                    action_bounds=_bounds(buffer, args),
                    thumbnails=_pictured(buffer) if args.report else (),
                    on_episode=counter(bar),
                )
            print_contents(buffer, found)
            print_findings(args.dataset, found)
            print_returns(buffer, args.env)
            wrong = print_physics(buffer, args.env) if args.physics else False
            if args.plot:
                from diffusion_policy.data.pictures import plot_actions

                plot_actions(buffer, args.plot)
                print(f"plot     {args.plot}")
            draw()
            if args.report:
                from diffusion_policy.film.health import write_report

                origin = "\n".join(line for item in buffer.attrs.items() for line in attribute_lines(*item))
                pictures = None if found.checks.thumbnails.pictures else drawn_moments(buffer, args.env)
                write_report(buffer, found, args.report, data=args.dataset, origin=origin, drawn=pictures)
                print(f"report   {args.report}, {args.report.with_suffix('.json')}")
    return 1 if found.problems or wrong else 0


def _pictured(buffer: ReplayBuffer) -> list[int]:
    from diffusion_policy.film.demonstrations import spread
    from diffusion_policy.film.health import PICTURED as SHOWN

    return list(spread(buffer, SHOWN))


def _bounds(buffer: ReplayBuffer, args: argparse.Namespace) -> list[list[float]] | None:
    if "action" not in (args.keys or buffer.keys()):
        return None
    from diffusion_policy.rollout.recorded_env import recorded_bounds

    return recorded_bounds(buffer, args.env)


if __name__ == "__main__":
    sys.exit(main())
