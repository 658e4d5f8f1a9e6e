"""dp-online: an agent learns in its environment, from real and synthetic transitions."""

import sys
from typing import Any

from diffusion_policy.cli.command import run_command


def main() -> int:
    """Runs the command; returns the exit code."""
    return run_command("online", _online)


def _online(config: dict[str, Any], overrides: list[str]) -> int:
    from diffusion_policy.online.run import train_online

    done = train_online(config)
    found = done.results["evaluations"]
    if found:
        low, high = found[-1]["return"]["ci95"]
        said = f"{found[-1]['return']['mean']:.1f} [{low:.1f}, {high:.1f}] at env step {found[-1]['env_step']}"
        print(f"return   {said}, {len(found[-1]['returns'])} episodes")
    for name, file in (("agent", "sac.zip"), ("results", "results.json"), ("curves", "curves.png")):
        print(f"{name:<8} {done.out / file}")
    if not done.finished:
        steps = f"{done.results['env_steps']} of {config['steps']} env steps"
        print(f"stopped after {steps}; what is there is saved, and cannot be gone on with", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
