"""dp-convert with --trim, --drop or --resample: a data set of ours, mended into a new one."""

import argparse
from collections.abc import Sequence
from typing import get_args

from diffusion_policy.data.doctor.findings import counted
from diffusion_policy.data.formats.convert import guess_target
from diffusion_policy.data.formats.writing import TARGETS
from diffusion_policy.data.mending import Mending, mend
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.resampling import ActionKind
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.rollout.progress import ProgressBar

EXAMPLES = """\
mending a zarr into a new one (dp-inspect says what to mend):
  dp-convert demos.zarr better.zarr --trim                         # idle starts and ends, but for 2 steps
  dp-convert demos.zarr better.zarr --drop 3 17 duplicates short   # by number, and what dp-inspect finds
  dp-convert demos.zarr slow.zarr --resample 10 --action-kind absolute --control-hz 30
  dp-convert arm.zarr slow.zarr --resample 10 --action-kind absolute --declare 'pose[3:7]=quaternion'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what mending takes."""
    group = parser.add_argument_group("mending a zarr")
    group.add_argument("--trim", action="store_true", help="cut idle starts and ends of episodes")
    group.add_argument(
        "--drop", nargs="+", metavar="EPISODE", default=[], help="leave out: numbers, duplicates, or names of findings"
    )
    group.add_argument("--resample", type=float, metavar="HZ", help="bring to another rate")
    group.add_argument("--action-kind", choices=get_args(ActionKind), help="what actions are, for --resample")
    group.add_argument(
        "--declare", nargs="+", metavar="PART=FORM", default=[], help="what turns or switches, for --resample"
    )


def wanted(args: argparse.Namespace) -> bool:
    """Returns whether anything is to be mended."""
    return bool(args.trim or args.drop or args.resample is not None or args.action_kind or args.declare)


def _opened(source: str) -> ReplayBuffer:
    try:
        return ReplayBuffer.open(resolve_dataset(source))
    except DataError as error:
        raise DataError(
            f"{error}; --trim, --drop and --resample mend zarr data sets: convert others first, without these"
        ) from error


def run(args: argparse.Namespace, of_conversions: Sequence[str]) -> int:
    """Mends a data set; returns the exit code.

    Args:
        args: of the command.
        of_conversions: arguments that mending has no use for; refused by name.
    """
    for name in of_conversions:
        if getattr(args, name) not in (None, False, []):
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} is of no use with --trim, --drop and --resample; convert first, then mend")
    if (looks := guess_target(args.out)) != "zarr":
        raise ConfigError(
            f"{args.out} looks like {TARGETS.get(looks).what}, but mending writes zarr; name it .zarr or .zip, and "
            f"convert that afterwards"
        )
    if args.out.exists():
        raise OutputExistsError(f"{args.out} already exists; choose another place")
    mending = Mending(
        trim=args.trim,
        drop=tuple(args.drop),
        resample=args.resample,
        control_hz=args.control_hz,
        action_kind=args.action_kind,
        declared=tuple(args.declare),
    )
    with _opened(args.source) as source, ProgressBar("mend", source.num_steps) as bar:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            bar.update(done)

        written, changes = mend(source, args.out, mending, on_steps=advance)
    with written as buffer:
        for said in changes.said():
            print(f"mended   {said}")
        print(f"dataset  {args.out}: {counted(buffer.num_episodes, 'episode')}, {buffer.num_steps} steps")
        print(f"next     dp-inspect {args.out}")
    return 0
