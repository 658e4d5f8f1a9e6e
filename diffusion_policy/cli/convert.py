"""dp-convert: other people's data sets -> episodes in zarr."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.cli import mend
from diffusion_policy.cli.outcome import outcome
from diffusion_policy.data.formats.convert import convert, guess_format
from diffusion_policy.data.formats.reading import FORMATS
from diffusion_policy.errors import OutputExistsError
from diffusion_policy.rollout.progress import ProgressBar

_EXAMPLES = f"""\
examples:
  dp-convert hopper_medium-v2.hdf5 hopper.zarr                     # D4RL
  dp-convert old.hdf5 old.zarr --max-episode-steps 1000            # D4RL without timeouts
  dp-convert mujoco/hopper/medium-v0 hopper.zarr                   # Minari, by its id or its folder
  dp-convert cube-single-play-v0.npz cube.zarr                     # OGBench
  dp-convert hopper.hdf5 hopper.zarr --env Hopper-v5               # dp-inspect --physics then knows the simulator

{mend.EXAMPLES}
exit codes: 0 done, 2 bad input (nothing is written)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return outcome(_convert, _parser().parse_args(argv), "interrupted, nothing written")


def _parser() -> argparse.ArgumentParser:
    known = ", ".join(f"{name}: {FORMATS.get(name).what}" for name in FORMATS)
    parser = argparse.ArgumentParser(
        prog="dp-convert",
        description=f"Writes a data set of another format as zarr ({known}).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", help="a file or folder; of Minari also an id")
    parser.add_argument("out", type=Path, help="a new zarr folder, or a .zip of one")
    parser.add_argument("--format", choices=list(FORMATS), help="of the source (default: what it looks like)")
    parser.add_argument("--env", metavar="ID", help="environment that the data are of; noted, with its action bounds")
    parser.add_argument(
        "--max-episode-steps", type=int, metavar="N", help="time limit, for files that do not mark where it struck"
    )
    mend.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _convert(args: argparse.Namespace) -> int:
    if mend.wanted(args):
        return mend.run(args)
    if args.out.exists():
        raise OutputExistsError(f"{args.out} already exists; choose another place")
    name = args.format or guess_format(args.source)
    done = 0
    with ProgressBar("convert", 0) as bar:

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            bar.update(done)

        written = convert(
            args.source,
            args.out,
            name=name,
            max_episode_steps=args.max_episode_steps,
            facts=_facts(args.env),
            on_start=bar.expect,
            on_steps=advance,
        )
    with written as buffer:
        print(f"read     {FORMATS.get(name).what}: {args.source}")
        print(
            f"dataset  {args.out}: {buffer.num_episodes} episodes, {buffer.num_steps} steps; {', '.join(buffer.keys())}"
        )
        print(f"next     dp-inspect {args.out}{' --physics' if args.env else ''}")
    return 0


def _facts(env_id: str | None) -> dict[str, Any]:
    """Returns what is noted of the environment."""
    if env_id is None:
        return {}
    from diffusion_policy.rollout.environments import bounds_of, make_env

    env = make_env(env_id)
    try:
        return {"env_id": env_id, "action_bounds": bounds_of(env.action_space)}
    finally:
        env.close()


if __name__ == "__main__":
    sys.exit(main())
