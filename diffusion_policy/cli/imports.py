"""dp-import: other people's checkpoints -> policy.pt. Data sets are dp-convert's."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusion_policy.cli.outcome import Parser, outcome
from diffusion_policy.errors import ConfigError, OutputExistsError

_EXAMPLES = """\
examples:
  dp-import outputs/train/checkpoints/last policy.pt                         # LeRobot's DiffusionPolicy, a folder
  dp-import latest.ckpt policy.pt                                            # the reference repository's file
  dp-import latest.ckpt policy.pt --field obs=keypoints:9x2,agent_pos:2      # fields as your environment calls them
  dp-import folder policy.pt --field observation.state=agent_pos --field observation.image=image

Nothing in a checkpoint is executed or imported.

exit codes: 0 done, 2 bad input (nothing is written)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return outcome(_import, _parser().parse_args(argv), "interrupted, nothing written")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dp-import",
        description="Writes a diffusion policy that was trained elsewhere as policy.pt; it answers as the original.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="a folder of LeRobot, or a .ckpt file of the reference repository")
    parser.add_argument("out", type=Path, help="a new file, e.g. policy.pt")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="another name of an observation; may be repeated",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _import(args: argparse.Namespace) -> int:
    if args.out.suffix != ".pt":
        raise ConfigError(f"out must end in .pt, but got {args.out}")
    if args.out.exists():
        raise OutputExistsError(f"{args.out} already exists; choose another file")
    from diffusion_policy.policies.imports.library import import_policy, parse_fields

    policy = import_policy(args.source, parse_fields(args.field))
    policy.save(args.out)
    sampler, count = policy.config.sampler, sum(weight.numel() for weight in policy.parameters())
    see = policy.horizons
    seen = ", ".join(f"{key} {list(field.shape)}" for key, field in policy.obs_spec.items())
    print(f"read     {policy.info.training['imported']['kind']}: {args.source}")
    print(f"policy   {args.out}: {count / 1e6:.1f} M parameters; {seen} -> action {list(policy.action_spec.shape)}")
    print(f"sampler  {sampler.name}, {sampler.num_inference_steps} steps")
    print(f"horizons sees {see.obs_horizon}, predicts {see.pred_horizon}, executes {see.action_horizon} steps")
    print(f"next     dp-eval checkpoint={args.out} env.id=PACKAGE:ENV-v0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
