"""dp-convert: a data set of one format -> another; of other people's -> ours, and back."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_policy.cli import mend
from diffusion_policy.cli.outcome import Parser, outcome
from diffusion_policy.data.doctor.findings import counted
from diffusion_policy.data.formats.clipping import Clipping
from diffusion_policy.data.formats.conversion import Conversion
from diffusion_policy.data.formats.convert import prepare
from diffusion_policy.data.formats.leaving_out import LeavingOut
from diffusion_policy.data.formats.preview import preview
from diffusion_policy.data.formats.reading import FORMATS, Format, Option
from diffusion_policy.data.formats.rotating import Rotating
from diffusion_policy.data.formats.writing import TARGETS, Target
from diffusion_policy.data.rotations import FORMS
from diffusion_policy.registry import Registry
from diffusion_policy.rollout.progress import ProgressBar

_TRANSFORMS = {"without": LeavingOut, "rotation": Rotating.parse, "clip": Clipping.parse}
"""Options that change episodes, in their order."""
_EXAMPLES = f"""\
examples:
  dp-convert hopper_medium-v2.hdf5 hopper.zarr                     # D4RL
  dp-convert old.hdf5 old.zarr --max-episode-steps 1000            # D4RL without timeouts
  dp-convert mujoco/hopper/medium-v0 hopper.zarr                   # Minari, by its id or its folder
  dp-convert cube-single-play-v0.npz cube.zarr                     # OGBench
  dp-convert hopper.hdf5 hopper.zarr --env Hopper-v5               # dp-inspect --physics then knows the simulator
  dp-convert image.hdf5 lift.zarr --filter train                   # robomimic, one of its filter keys
  dp-convert demos.zarr demos.hdf5                                 # ours as robomimic's
  dp-convert demos.zarr my-demos-v0 --to minari                    # ours as Minari's
  dp-convert dataset.zarr.zip cup.zarr --control-hz 59.94          # UMI
  dp-convert train.npz can.zarr                                    # DPPO, scaled back by normalization.npz beside
  dp-convert demos.zarr demos_lerobot --to lerobot --task "push T" --control-hz 10  # ours as LeRobot's, v3.0
  dp-convert recordings recordings.zarr                            # CSV or npz and pictures, see docs/data.md
  dp-convert low_dim.hdf5 a.zarr --rotation 'action[3:6]=axis_angle->rotation_6d_rows'
  dp-convert hand_dapg door.zarr --mapping door.yaml --clip action=-1:1  # as the environment does
  dp-convert cup.zarr.zip cup.zarr --without camera1_rgb            # of no use, or NaN
  dp-convert image.hdf5 lift.zarr --dry-run                        # what becomes of which array; writes nothing

{mend.EXAMPLES}
exit codes: 0 done, 2 bad input (nothing is written), 130 Ctrl-C (nothing is written)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return outcome(_convert, _parser().parse_args(argv), "interrupted, nothing written")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dp-convert",
        description="Writes a data set of one format as another: other people's as ours (zarr), ours as theirs.",
        epilog="\n".join([*_listed("read", FORMATS), "", *_listed("written", TARGETS), "", _EXAMPLES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="a file or folder, or package://NAME; of Minari also an id")
    parser.add_argument("out", metavar="DST", type=Path, help="a new file or folder: a zarr, or a .zip of one")
    parser.add_argument("--format", choices=list(FORMATS), help="of SRC (default: what it looks like)")
    parser.add_argument("--to", choices=list(TARGETS), help="format of DST (default: what it looks like, or zarr)")
    parser.add_argument("--dry-run", action="store_true", help="print what becomes of which array, write nothing")
    parser.add_argument("--env", metavar="ID", help="environment that the data are of; noted, with its action bounds")
    parser.add_argument("--control-hz", type=float, metavar="HZ", help="steps a second, where SRC does not tell")
    parser.add_argument(
        "--rotation",
        action="append",
        default=[],
        metavar="KEY=FROM->TO",
        help=f"write rotations in another form, KEY[3:6] of some numbers; in quotes; forms: {', '.join(FORMS)}",
    )
    parser.add_argument(
        "--clip", action="append", default=[], metavar="KEY=LOW:HIGH", help="clip numbers, as the environment does"
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="KEY", help="leave out what would become this key"
    )
    for option, users in _options().values():
        parser.add_argument(
            option.flag, metavar=option.metavar, type=option.parse, help=f"{option.help} ({', '.join(users)})"
        )
    mend.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _listed(done: str, known: Registry[Format] | Registry[Target]) -> list[str]:
    return [f"formats that are {done}:", *(f"  {name:<10} {known.get(name).what}" for name in known)]


def _options() -> dict[str, tuple[Option, list[str]]]:
    """Returns the options of all formats by name, each with the formats that take it."""
    found: dict[str, tuple[Option, list[str]]] = {}
    sides: list[tuple[str, Format | Target]] = [(name, FORMATS.get(name)) for name in FORMATS]
    sides += [(f"to {name}", TARGETS.get(name)) for name in TARGETS]
    for name, side in sides:
        for option in side.options:
            found.setdefault(option.name, (option, []))[1].append(name)
    return found


def _convert(args: argparse.Namespace) -> int:
    if mend.wanted(args):
        return mend.run(args, of_conversions=("format", "to", "dry_run", "env", *_TRANSFORMS, *_options()))
    conversion = prepare(
        args.source,
        args.out,
        name=args.format,
        to=args.to,
        transforms=[
            *map(LeavingOut, args.without),
            *map(Rotating.parse, args.rotation),
            *map(Clipping.parse, args.clip),
        ],
        control_hz=args.control_hz,
        facts=_facts(args.env),
        **{name: getattr(args, name) for name in _options()},
    )
    if "action" not in conversion.content.forms:
        print("warning: no key is called action; dp-train needs action.source=KEY", file=sys.stderr)
    if args.dry_run:
        print("\n".join(preview(conversion)))
        return 0
    return _write(conversion, args)


def _write(conversion: Conversion, args: argparse.Namespace) -> int:
    done = 0
    with ProgressBar("convert", conversion.content.num_steps) as bar:

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            bar.update(done)

        written = conversion.write(advance)
    keys = ", ".join(conversion.content.forms)
    print(f"read     {FORMATS.get(conversion.source_format).what}: {args.source}")
    print(f"dataset  {written.path}: {counted(written.num_episodes, 'episode')}, {written.num_steps} steps; {keys}")
    if written.format == "zarr":
        print(f"next     dp-inspect {written.path}{' --physics' if args.env else ''}")
    else:
        print(f"written  {TARGETS.get(written.format).what}")
    return 0


def _facts(env_id: str | None) -> dict[str, Any]:
    """Returns what is noted of the environment."""
    if env_id is None:
        return {}
    from diffusion_policy.rollout.env_facts import bounds_of
    from diffusion_policy.rollout.environments import make_env

    env = make_env(env_id)
    try:
        return {"env_id": env_id, "action_bounds": bounds_of(env.action_space)}
    finally:
        env.close()


if __name__ == "__main__":
    sys.exit(main())
