"""Does bfloat16 cost success? The same episodes of Push-T with either precision, compared seed by seed.

    python benchmarks/precision.py runs/a/policy.pt [--episodes 200] [--seed 100000]

bfloat16 moves actions by 1e-2 of their range, and contacts make other episodes of it: single episodes say nothing, the
mean of the differences does. One line for each engine; the same as JSON under benchmarks/results/.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy
from diffusion_policy.policies.engines.export_aoti import export_aoti
from diffusion_policy.rollout.evaluate import evaluate
from diffusion_policy.rollout.provenance import file_sha256, hardware
from diffusion_policy.rollout.statistics import paired_difference
from diffusion_policy.versions import installed_versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=100000)
    parser.add_argument("--num-envs", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "precision.json")
    args = parser.parse_args()

    policy = DiffusionPolicy.load(args.checkpoint)
    load = RecedingHorizonController.load
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "policy.pt2"
        export_aoti(policy, compiled, precision="bfloat16", batch_size=args.num_envs)
        controllers = {
            "eager float32": load(args.checkpoint, precision="float32"),
            "eager bfloat16": load(args.checkpoint, precision="bfloat16"),
            "aoti bfloat16": load(compiled),
        }
        env: dict[str, Any] = {"env_id": policy.info.env["id"], "env_kwargs": policy.info.env["kwargs"]}
        settings = {"episodes": args.episodes, "seed": args.seed, "num_envs": args.num_envs}
        results = {
            name: evaluate(controller, **env, **settings, batch_size=args.num_envs)
            for name, controller in controllers.items()
        }
    figures: dict[str, Any] = {}
    right = results["eager float32"].per_episode
    for name, result in results.items():
        figures[name] = {key: result.to_dict()[key] for key in ("max_reward", "success_rate")}
        if name != "eager float32":
            pairs = [[episode.max_reward for episode in episodes] for episodes in (right, result.per_episode)]
            figures[name]["difference_of_max_reward"] = paired_difference(*pairs).to_dict()
            wins = [[float(bool(episode.success)) for episode in each] for each in (right, result.per_episode)]
            figures[name]["difference_of_success"] = paired_difference(*wins).to_dict()
        print(
            f"{name:16} " + "  ".join(f"{key} {each['mean']:.3f} {each['ci95']}" for key, each in figures[name].items())
        )
    said = {
        **settings,
        "policy_sha256": file_sha256(args.checkpoint),
        "engines": figures,
        "versions": installed_versions(),
        "hardware": hardware(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
