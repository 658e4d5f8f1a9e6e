"""How long a chunk takes on a CPU: every engine and lerobot, the same network, the same cores, in turn.

    python benchmarks/latency.py [--threads 2] [--rounds 7]

Batch 1, DDIM with 10 steps, random weights; observations are the agent's position and nine keypoints. One line for each
engine and size; the same as JSON under benchmarks/results/, with the share of the roofline: the time that the weights
of ten network evaluations need from memory, or their arithmetic, whichever is longer.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_policy.policies.chunk import ChunkPolicy
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy

SIZES = {"small": [64, 128, 256], "full": [256, 512, 1024]}
FILES = {"aoti float32": "float32.pt2", "aoti bfloat16": "bfloat16.pt2"} | dict.fromkeys(
    ("onnxruntime float32", "openvino float32", "openvino bfloat16"), "policy.onnx"
)
ENGINES = ("as trained", "eager float32", "eager bfloat16", *FILES)
PEER = "lerobot"
REPETITIONS = {"small": 25, "full": 6}  # a round's, of each


def make_policy(down_dims: list[int]) -> "DiffusionPolicy":
    """Returns a policy with random weights."""
    import torch

    from diffusion_policy.config import ActionSpec, ObsField
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig

    torch.manual_seed(0)
    config = DiffusionPolicyConfig.from_plain(
        {
            "horizons": {"obs_horizon": 2, "action_horizon": 8, "pred_horizon": 16},
            "denoiser": {"name": "unet1d", "down_dims": down_dims, "embed_dim": 256},
            "sampler": {"num_inference_steps": 10},
        }
    )
    obs_spec = {"agent_pos": ObsField("low_dim", (2,)), "keypoints": ObsField("low_dim", (9, 2))}
    return DiffusionPolicy(config, obs_spec, ActionSpec((2,))).eval()


def load(engine: str, folder: Path) -> "ChunkPolicy":
    """Returns the policy of a folder in one of the engines."""
    from diffusion_policy.policies.controller import RecedingHorizonController

    name, _, precision = engine.partition(" ")
    if engine == "as trained":
        from diffusion_policy.policies.diffusion_policy import DiffusionPolicy

        return DiffusionPolicy.load(folder / "policy.pt")
    device = "openvino" if name == "openvino" else "cpu"
    file = folder / FILES.get(engine, "policy.pt")
    return RecedingHorizonController.load(file, device=device, precision=precision).policy


def contest(engine: str, folder: Path) -> None:
    """Answers lines from stdin; see `rounds.Contestant`."""
    import numpy as np

    from diffusion_policy.policies.chunk import blank_windows

    policy = load(engine, folder)
    obs = blank_windows(policy, 1)
    noise = np.random.default_rng(0).standard_normal((1, *policy.noise_shape), np.float32)
    for _ in range(5):
        policy.predict(obs, noise)
    package = engine.partition(" ")[0]
    known = package if package in ("onnxruntime", "openvino") else "torch"
    print(json.dumps({known: version(known)}), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            begin = time.perf_counter()
            policy.predict(obs, noise)
            times.append(1000 * (time.perf_counter() - begin))
        print(json.dumps(times), flush=True)


def export(policy: "DiffusionPolicy", folder: Path) -> dict[str, float]:
    """Writes what the engines load; returns the largest difference of each from the policy, in normalised actions."""
    from diffusion_policy.policies.engines.export_aoti import export_aoti
    from diffusion_policy.policies.engines.export_onnx import export_onnx
    from diffusion_policy.policies.engines.parity import largest_difference

    policy.save(folder / "policy.pt")
    export_onnx(policy, folder / "policy.onnx")
    for precision in ("float32", "bfloat16"):
        export_aoti(policy, folder / f"{precision}.pt2", precision=precision)
    return {engine: largest_difference(policy, load(engine, folder), rows=1) for engine in ENGINES}


def roofline(policy: "DiffusionPolicy") -> dict[str, Any]:
    """Returns the least time of a chunk, milliseconds, by memory and by arithmetic, as this machine measures now."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from diffusion_policy.policies.engines.graph import PolicyGraph

    graph = PolicyGraph(policy)
    steps = policy.config.sampler.num_inference_steps
    weights = sum(each.numel() for name, each in graph.denoiser.named_buffers() if not name.startswith("of_"))
    x, context = (
        torch.zeros(1, *policy.noise_shape),
        graph.denoiser.contexts(torch.zeros(1, policy.encoder.cond_dim))[0],
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph.denoiser(x, context)
    result: dict[str, Any] = {"weights": weights, "flop_per_step": counter.get_total_flops()}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        numbers = torch.ones(weights * torch.finfo(dtype).bits // 32)
        square = torch.randn(1536, 1536).to(dtype)
        reading = best(lambda numbers=numbers: numbers.sum())
        computing = best(lambda square=square: square @ square)
        by_memory = 1000 * steps * reading
        by_arithmetic = 1000 * steps * counter.get_total_flops() / (2 * 1536**3 / computing)
        result[name] = {"by_memory_ms": by_memory, "by_arithmetic_ms": by_arithmetic}
    return result


def best(function: Any, repetitions: int = 20) -> float:
    """Returns the shortest time of a call, seconds."""
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times)


def measure(size: str, threads: int, rounds: int) -> dict[str, Any]:
    """Returns all figures of one size."""
    from benchmarks.rounds import Contestant, in_turn, peer, ratios

    policy = make_policy(SIZES[size])
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        difference, roof = export(policy, folder), roofline(policy)
        contestants = {
            engine: stack.enter_context(
                Contestant([sys.executable, __file__, "--contest", engine, "--folder", folder], threads)
            )
            for engine in ENGINES
        }
        against = peer("latency", {"down_dims": SIZES[size]}, threads)
        if against is not None:
            contestants[PEER] = stack.enter_context(against)
        times = in_turn(contestants, rounds, REPETITIONS[size], median)
        versions = {key: said for each in contestants.values() for key, said in each.versions.items()}
    figures: dict[str, Any] = {}
    for engine, rounds_ms in times.items():
        figures[engine] = {"ms": median(rounds_ms), "rounds_ms": rounds_ms}
        if engine != PEER:
            figures[engine]["largest_difference"] = difference[engine]
            limit = roof["bfloat16" if "bfloat16" in engine else "float32"]
            figures[engine]["share_of_roofline"] = max(limit.values()) / median(rounds_ms)
        if engine != PEER and against is not None:
            figures[engine]["times_as_fast_as_lerobot"] = ratios(times[PEER], rounds_ms)
        words = "  ".join(f"{key} {value:.3g}" for key, value in figures[engine].items() if isinstance(value, float))
        faster = figures[engine].get("times_as_fast_as_lerobot", {}).get("median")
        print(
            f"{size:6}{engine:20} {words}" + (f"  {faster:.2f} times as fast as lerobot" if faster else ""), flush=True
        )
    return {"engines": figures, "roofline": roof, "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "latency.json")
    parser.add_argument("--contest", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contest:
        contest(args.contest, args.folder)
        return

    import torch

    from diffusion_policy.rollout.provenance import hardware
    from diffusion_policy.versions import installed_versions

    torch.set_num_threads(args.threads)
    sizes = {size: measure(size, args.threads, args.rounds) for size in args.sizes}
    result = {"threads": args.threads, "sizes": sizes, "versions": installed_versions(), "hardware": hardware()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for benchmarks.rounds
    main()
