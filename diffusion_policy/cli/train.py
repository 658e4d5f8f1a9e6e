"""dp-train: demonstrations -> policy."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from diffusion_policy.cli.command import run_command
from diffusion_policy.errors import ConfigError


def main() -> int:
    """Runs the command; returns the exit code."""
    return run_command("train", _train)


def _train(config: dict[str, Any], overrides: list[str]) -> int:
    from diffusion_policy.training.reporting import run_summary
    from diffusion_policy.training.run import train

    resume = config.pop("resume", None)
    choice = config.pop("choice")
    config.pop("collect", None)  # of dp-collect, in the same task file
    config.pop("published", None)  # where conf/denoiser has its numbers from
    names = {override.partition("=")[0].lstrip("+~") for override in overrides}
    if config["init"]:
        _refuse_with_init(names)
    _refuse_unread(names, config)
    if "training.num_epochs" in names and "training.num_grad_steps" not in names:
        config["training"]["num_grad_steps"] = None  # the preset's length; the one that was typed holds
    if resume:
        config = {"resume": resume, **_typed(overrides, config)}
    elif not config["out"]:
        config["out"] = f"runs/{choice['task']}-{choice['preset']}-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        run = train(config)
    except KeyboardInterrupt:
        print(f"interrupted; {_left(Path(str(resume or config['out'])))}", file=sys.stderr)
        return 130
    if run.rank:  # one of several processes; the first one reports
        return 0 if run.finished else 130
    if not run.finished:
        print(f"stopped at step {run.grad_steps}; go on with: dp-train resume={run.out}", file=sys.stderr)
        return 130
    print("\n".join(run_summary(run.out, run.policy.action_spec.unit)))
    print(f"curves   {run.out / 'curves.png'}")
    print(f"metrics  {run.out / 'metrics.jsonl'}")
    env = "" if run.policy.info.env.get("id") else "env.id=PACKAGE:ENV-v0 "
    print(f"next     dp-eval checkpoint={run.out / 'policy.pt'} {env}episodes=100 out={run.out / 'eval'}")
    return 0


def _left(folder: Path) -> str:
    """Returns what Ctrl-C left that did not wait for a step: the first while loading, the second at any time."""
    began = (folder / "config.yaml").is_file()
    return f"go on from what was saved with: dp-train resume={folder}" if began else "nothing was written"


def _refuse_with_init(names: set[str]) -> None:
    from diffusion_policy.policies.library import POLICY_SECTIONS

    ours = sorted(name for name in names if name.partition(".")[0] in POLICY_SECTIONS)
    if ours:
        raise ConfigError(f"init= keeps the networks and settings of its policy; drop {', '.join(ours)}")


def _refuse_unread(names: set[str], config: dict[str, Any]) -> None:
    """A group that was chosen on the command line, and that the chosen policy has no use for, is a mistake."""
    unread = sorted(name for name in names & {"denoiser", "sampler"} if config.get(name) is None)
    if unread:
        kind = (config.get("policy") or {}).get("name")
        raise ConfigError(f"policy '{kind}' has no {' and no '.join(unread)}; drop {', '.join(unread)}=")


def _typed(overrides: list[str], config: dict[str, Any]) -> dict[str, Any]:
    """Returns only what was typed beside resume=, with its parsed value, so that the run can judge it."""
    typed: dict[str, Any] = {}
    for override in overrides:
        name = override.partition("=")[0].lstrip("+~")
        if name in ("resume", "debug", "plugins"):
            continue
        group, _, key = name.partition(".")
        value = config.get(group)
        if key and isinstance(value, dict):
            typed.setdefault(group, {})[key] = value.get(key)
        else:
            typed[name] = value
    return typed


if __name__ == "__main__":
    sys.exit(main())
