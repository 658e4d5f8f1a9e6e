"""dp-export: a policy for the engines of other machines, compared with the original before it is handed over."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from diffusion_policy.cli.outcome import Parser, outcome
from diffusion_policy.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from diffusion_policy.policies.chunk import ChunkPolicy
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy

_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.2}  # in normalised actions, whose range is 2
_TIMED = 20  # predictions
_EXAMPLES = """\
examples:
  dp-export runs/a/policy.pt policy.pt2                        # compiled for this kind of processor; runs with torch
  dp-export runs/a/policy.pt policy_bf16.pt2 --precision bfloat16 --threads 4
  dp-export runs/a/policy.pt policy.onnx                       # onnxruntime or OpenVINO, without torch
  dp-export runs/a/policy.pt quick.onnx --steps 5              # fewer denoising steps

on the robot:
  RecedingHorizonController.load("policy.onnx")                # or device="openvino"

exit codes: 0 done, 2 bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    return outcome(_export, _parser().parse_args(argv), "interrupted, nothing written")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="dp-export",
        description="Writes a trained policy for another engine; the suffix of OUT says which.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="a policy.pt")
    parser.add_argument("out", type=Path, help="a new file: .pt2 or .onnx")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: as the policy says)")
    parser.add_argument("--precision", choices=sorted(_TOLERANCE), help=".pt2: of the arithmetic (default: float32)")
    parser.add_argument("--threads", type=int, metavar="N", help=".pt2: threads that will compute (default: as here)")
    parser.add_argument("--batch-size", type=int, metavar="N", help=".pt2: rows of a prediction (default: 1)")
    parser.add_argument("--plugins", nargs="+", default=[], metavar="MODULE", help="import these first")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _export(args: argparse.Namespace) -> int:
    _check(args)
    import torch

    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
    from diffusion_policy.policies.library import load_policy
    from diffusion_policy.registry import import_plugins

    import_plugins(args.plugins)
    policy = load_policy(args.checkpoint)
    if not isinstance(policy, DiffusionPolicy):
        raise ConfigError(
            f"{args.checkpoint} holds a policy of kind '{policy.kind}': only diffusion policies can be exported; "
            f"run policy.pt itself"
        )
    if args.steps is not None:
        policy = policy.with_sampler(num_inference_steps=args.steps)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    from diffusion_policy.policies.engines.output import whole_or_nothing

    status = Console(stderr=True).status(f"exporting to {args.out}: less than a minute, most often")
    with status, whole_or_nothing(args.out) as made:  # nobody gets a file that has not been compared
        if args.out.suffix == ".onnx":
            from diffusion_policy.policies.engines.export_onnx import export_onnx

            export_onnx(policy, made)
        else:
            from diffusion_policy.policies.engines.export_aoti import export_aoti

            export_aoti(policy, made, batch_size=args.batch_size or 1, precision=args.precision or "float32")
        print(f"{args.out}  {made.stat().st_size / 1e6:.1f} MB")
        _report(policy, made, args.precision or "float32")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.out.suffix not in (".onnx", ".pt2"):
        raise ConfigError(f"out must end in .pt2 or .onnx, but got {args.out}")
    for name in ("steps", "threads", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, but got {value}")
    for name in ("precision", "threads", "batch_size"):
        if args.out.suffix == ".onnx" and getattr(args, name) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')} is a setting of .pt2; an .onnx file takes any batch, and its engine "
                f"decides on threads and precision"
            )


def _report(policy: "DiffusionPolicy", out: Path, precision: str) -> None:
    """Prints how far and how much faster than the original each engine is that can run the file here.

    Raises:
        CheckpointError: one of them computes something else; the file is removed.
    """
    from diffusion_policy.policies.controller import RecedingHorizonController
    from diffusion_policy.policies.engines.eager import prepared
    from diffusion_policy.policies.engines.parity import largest_difference

    plain = _milliseconds(policy, policy)
    print(f"{'policy.pt as trained':28} {plain:6.1f} ms a chunk")
    print(f"{'policy.pt, eager float32':28} {_milliseconds(policy, prepared(policy)):6.1f} ms a chunk")
    for device in ("cpu", "openvino") if out.suffix == ".onnx" else ("cpu",):
        try:
            engine = RecedingHorizonController.load(out, device=device).policy
        except ConfigError as error:
            print(f"not compared: {error}")
            continue
        difference = largest_difference(policy, engine)
        if not difference <= _TOLERANCE[precision]:
            raise CheckpointError(
                f"{out} would answer otherwise than {policy.__class__.__name__}: normalised actions differ by "
                f"{difference:.1g}, expected at most {_TOLERANCE[precision]:g}; removed. Please report this"
            )
        name = getattr(engine, "engine", device)
        print(
            f"{f'{out.name}, {name}':28} {_milliseconds(policy, engine):6.1f} ms a chunk, "
            f"normalised actions differ by {difference:.1g} at most"
        )


def _milliseconds(policy: "DiffusionPolicy", engine: "ChunkPolicy") -> float:
    """Returns the median time of a prediction of one row."""
    from diffusion_policy.policies.engines.parity import random_windows

    rng = np.random.default_rng(0)
    obs, noise = random_windows(policy, 1, rng), rng.standard_normal((1, *policy.noise_shape), np.float32)
    times = []
    for _ in range(_TIMED):
        begin = time.perf_counter()
        engine.predict(obs, noise)
        times.append(time.perf_counter() - begin)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    sys.exit(main())
