"""What worker processes save in evaluations of Push-T from pictures, where drawing is the cost.

    python benchmarks/eval_workers.py [--checkpoint runs/a/policy.pt] [--episodes 50]

The same episodes four times: one environment at a time; several in one process; several in workers; twice as many in
workers, so that the policy computes for one half while the other half is drawn. Without a
checkpoint a small policy with random weights acts. One line for each, then the ratios; the same as JSON, with
versions and hardware, under benchmarks/results/. Workers import this file, so what is heavy is imported where needed.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy

ENV_ID = "diffusion_policy_envs:PushT-v0"
ENV_KWARGS = {"obs_keys": ["image", "agent_pos"]}


def random_policy() -> "DiffusionPolicy":
    """Returns a policy of the size of preset `fast` that sees pictures and has learned nothing."""
    import torch

    from diffusion_policy.config import ActionSpec, ObsField
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, DiffusionPolicyConfig

    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "horizons": {"obs_horizon": 2, "action_horizon": 8, "pred_horizon": 16},
        "denoiser": {"name": "unet1d", "down_dims": [32, 64, 128]},
        "diffusion": {"prediction_type": "sample"},
        "encoder": {"hidden_dims": [256, 256], "types": {"rgb": {"name": "cnn_small"}}},
        "sampler": {"num_inference_steps": 10},
    }
    obs_spec = {"image": ObsField("rgb", (96, 96, 3)), "agent_pos": ObsField("low_dim", (2,))}
    policy = DiffusionPolicy(
        DiffusionPolicyConfig.from_plain(settings), obs_spec, ActionSpec((2,), low=0.0, high=512.0)
    )
    places = torch.rand(1000, 2) * 512
    policy.fit_normalizers({"agent_pos": places}, places)
    return policy.eval()


def cpu_seconds() -> float:
    """Returns what this process and its ended children have computed: tells work from waiting on a busy machine."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(policy: "DiffusionPolicy", episodes: int, **settings: int) -> tuple[dict[str, Any], list[Any]]:
    """Returns figures of one evaluation, and its episodes."""
    from diffusion_policy.policies.controller import RecedingHorizonController
    from diffusion_policy.rollout.evaluate import evaluate

    controller = RecedingHorizonController(policy)
    begin, cpu = time.perf_counter(), cpu_seconds()
    result = evaluate(controller, ENV_ID, episodes=episodes, seed=0, env_kwargs=ENV_KWARGS, progress=False, **settings)
    seconds, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
    predicting = sum(controller.latencies_ms) / 1000
    figures = {
        **settings,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "policy_seconds": predicting,
        "policy_calls": len(controller.latencies_ms),
    }
    figures["env_steps_per_second"] = sum(episode.length for episode in result.per_episode) / seconds
    return figures, list(result.per_episode)


def main() -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the commands do: on busy cores, waiting threads must sleep
    from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
    from diffusion_policy.registry import import_plugins
    from diffusion_policy.rollout.provenance import hardware
    from diffusion_policy.versions import installed_versions

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a policy that reads image and agent_pos")
    parser.add_argument("--plugins", nargs="*", default=[], help="modules that the checkpoint needs")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "eval_workers.json")
    args = parser.parse_args()

    import_plugins(args.plugins)
    policy = DiffusionPolicy.load(args.checkpoint) if args.checkpoint else random_policy()
    together = {"num_envs": args.num_envs, "batch_size": args.num_envs}
    cases = {
        "one at a time": {"num_envs": 1, "batch_size": 1, "workers": 0},
        "side by side": {**together, "workers": 0},
        "in workers": {**together, "workers": args.workers},
        "overlapping": {**together, "num_envs": 2 * args.num_envs, "workers": args.workers},
    }
    figures, episodes = {}, {}
    for name, settings in cases.items():
        figures[name], episodes[name] = measure(policy, args.episodes, **settings)
        print(f"{name:14} " + "  ".join(f"{key} {value:.4g}" for key, value in figures[name].items()), flush=True)
    if not episodes["side by side"] == episodes["in workers"] == episodes["overlapping"]:
        raise SystemExit("expected the same episodes in workers as in one process, but they differ")
    seconds = {name: each["seconds"] for name, each in figures.items()}
    ratios = {name: seconds["one at a time"] / seconds[name] for name in ("overlapping", "in workers", "side by side")}
    faster = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    print(f"{args.episodes} episodes: {faster} times as fast as one environment at a time")
    result = {
        "episodes": args.episodes,
        "policy": str(args.checkpoint.name) if args.checkpoint else "random weights",
        "figures": figures,
        "ratios_to_one_at_a_time": ratios,
        "versions": installed_versions(),
        "hardware": hardware(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
