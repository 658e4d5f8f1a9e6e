"""dp-collect: an environment's expert, or a policy -> demonstrations in zarr."""

import sys
from typing import Any

from diffusion_policy.cli.command import count, run_command
from diffusion_policy.errors import ConfigError


def main() -> int:
    """Runs the command; returns the exit code."""
    return run_command("collect", _collect_or_say)


def _collect_or_say(config: dict[str, Any], overrides: list[str]) -> int:
    """Collects; after Ctrl-C says what there is."""
    try:
        return _collect(config, overrides)
    except KeyboardInterrupt:
        from diffusion_policy.cli.kept import kept_so_far

        print(kept_so_far(config["out"], config["episodes"], sys.argv[1:]), file=sys.stderr)
        return 130


def _collect(config: dict[str, Any], overrides: list[str]) -> int:
    from diffusion_policy.policies.controller import RecedingHorizonController
    from diffusion_policy.policies.device import pick_device
    from diffusion_policy.rollout.actors import Actor, ExpertActor, PolicyActor
    from diffusion_policy.rollout.collect import collect

    if not config["out"]:
        raise ConfigError("out: expected a path for the demonstrations, got nothing; give out=demos.zarr")
    actor: Actor = ExpertActor()
    if config["checkpoint"]:
        device = str(pick_device(str(config["device"])))
        actor = PolicyActor(RecedingHorizonController.load(config["checkpoint"], device=device))
    result = collect(
        str(config["env"]["id"]),
        actor,
        episodes=count(config, "episodes"),
        seed=count(config, "seed", smallest=0),
        out=config["out"],
        env_kwargs={**(config["env"].get("kwargs") or {}), **(config["collect"] or {})},
        keep=config["keep"],
        resume=bool(config["resume"]),
    )
    print(
        f"kept     {result.episodes} of {result.attempts} attempts\ndataset  {result.out} (digest {result.digest[:12]})"
    )
    print(f"next     dp-inspect {config['out']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
