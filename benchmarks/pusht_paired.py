"""One Push-T policy in two engines: the same starts in gym-pusht (pymunk) and in our Push-T (MuJoCo).

    python benchmarks/pusht_paired.py runs/a/policy.pt

Needs the extra pusht. The same seed begins with the same state in both, which is checked, and gives the policy the same
noise. Prints what each reaches and the paired difference, pymunk - MuJoCo, with its bootstrap interval; the same, every
episode, versions and hardware as JSON, and a picture beside it.
"""

import argparse
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np

from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.evaluate import EvalResult, evaluate
from diffusion_policy.rollout.statistics import Estimate, paired_difference

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ENGINES = {"mujoco": "diffusion_policy_envs:PushT-v0", "pymunk": "diffusion_policy_envs:PymunkPushT-v0"}
BAR = 0.05  # of the max reward: so near the two should be


def check_starts(seeds: Sequence[int]) -> None:
    """Raises ValueError unless both begin with the same states (agent, block pose) for these seeds."""
    envs = [gym.make(env_id, obs_keys=["state"]) for env_id in ENGINES.values()]
    for seed in seeds:
        ours, theirs = (env.reset(seed=seed)[0]["state"] for env in envs)
        if np.abs(ours - theirs).max() > 1e-3:
            raise ValueError(f"seed {seed} must begin alike in both, but begins at {ours} and {theirs}")


def compared(results: dict[str, EvalResult]) -> dict[str, Estimate]:
    """Returns the paired differences pymunk - MuJoCo."""
    pairs = {name: result.per_episode for name, result in results.items()}
    rewards = [[each.max_reward for each in pairs[name]] for name in ENGINES]
    successes = [[float(bool(each.success)) for each in pairs[name]] for name in ENGINES]
    return {"max_reward": paired_difference(*rewards), "success": paired_difference(*successes)}


def draw(results: dict[str, EvalResult], lead: Estimate, path: Path) -> None:
    """Draws each episode's max reward in both, and the distribution of the difference."""
    rewards = {name: np.array([each.max_reward for each in result.per_episode]) for name, result in results.items()}
    figure, (pairs, spread) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    pairs.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    pairs.scatter(rewards["mujoco"], rewards["pymunk"], s=12, alpha=0.6)
    pairs.set(xlabel="max reward in MuJoCo (ours)", ylabel="max reward in pymunk (gym-pusht)", title="same starts")
    spread.hist(rewards["pymunk"] - rewards["mujoco"], bins=np.linspace(-1.025, 1.025, 42).tolist())
    spread.axvspan(*lead.ci95, color="C1", alpha=0.4, label=f"mean {lead.mean:+.3f}, 95 % interval")
    for edge in (-BAR, BAR):
        spread.axvline(edge, color="0.4", linestyle=":", linewidth=1)
    spread.set(xlabel="pymunk - MuJoCo", ylabel="episodes", title=f"{len(rewards['mujoco'])} episodes")
    spread.legend()
    figure.savefig(path, dpi=120)


def kept(results: dict[str, EvalResult], leads: dict[str, Estimate]) -> dict[str, Any]:
    """Returns the content of the JSON."""
    ours = results["mujoco"]
    engines = {
        name: {
            "max_reward": result.max_reward.to_dict(),
            "success_rate": result.success_rate.to_dict() if result.success_rate else None,
            "max_rewards": [round(each.max_reward, 6) for each in result.per_episode],
        }
        for name, result in results.items()
    }
    return {
        "pymunk_minus_mujoco": {name: lead.to_dict() for name, lead in leads.items()},
        "bar": BAR,
        "within": abs(leads["max_reward"].mean) <= BAR,
        **engines,
        "settings": {"episodes": ours.episodes, "seed": ours.seed, "policy_sha256": ours.policy["sha256"]},
        "versions": {**ours.versions, **{name: version(name) for name in ("gym-pusht", "pymunk")}},
        "hardware": dict(ours.hardware),
    }


def shown(estimate: Estimate, sign: str = "") -> str:
    low, high = estimate.ci95
    return f"{estimate.mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, help="a policy.pt of task pusht")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=100_000, help="of the first episode")
    parser.add_argument("--num-envs", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pusht_paired.json")
    args = parser.parse_args()
    if not args.policy.is_file():
        parser.error(f"policy must be a policy.pt, but there is none at {args.policy}")

    check_starts(range(args.seed, args.seed + args.episodes))
    controller = RecedingHorizonController.load(args.policy)
    settings = {"episodes": args.episodes, "seed": args.seed, "num_envs": args.num_envs}
    results = {name: evaluate(controller, env_id, **settings) for name, env_id in ENGINES.items()}
    leads = compared(results)
    for name, result in results.items():
        rate = result.success_rate
        print(f"{name:11} max reward {shown(result.max_reward)}, success {shown(rate) if rate else '-'}")
    print(f"difference  max reward {shown(leads['max_reward'], '+')}, success {shown(leads['success'], '+')}")
    within = abs(leads["max_reward"].mean) <= BAR
    print(f"bar         the mean difference of the max reward is {'' if within else 'not '}within +-{BAR}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(kept(results, leads), indent=2) + "\n", encoding="utf-8")
    draw(results, leads["max_reward"], args.out.with_suffix(".png"))
    print(f"results     {args.out}\npicture     {args.out.with_suffix('.png')}")


if __name__ == "__main__":
    main()
