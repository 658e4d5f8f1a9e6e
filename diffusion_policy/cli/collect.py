"""dp-collect: an environment's expert, a policy, or a person with a mouse -> demonstrations in zarr."""

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from diffusion_policy.cli.command import count, run_command
from diffusion_policy.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_policy.rollout.actors import Actor
    from diffusion_policy.rollout.collect import Demonstrator


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
    from diffusion_policy.rollout.collect import collect

    if not config["out"]:
        raise ConfigError("out: expected a path for the demonstrations, got nothing; give out=demos.zarr")
    settings = {
        "episodes": count(config, "episodes"),
        "seed": count(config, "seed", smallest=0),
        "env_kwargs": {**(config["env"].get("kwargs") or {}), **(config["collect"] or {})},
        "keep": config["keep"],
        "resume": bool(config["resume"]),
    }
    with ExitStack() as held:
        actor = _actor(config, held)
        result = collect(str(config["env"]["id"]), actor, out=config["out"], **settings)
    print(
        f"kept     {result.episodes} of {result.attempts} attempts\ndataset  {result.out} (digest {result.digest[:12]})"
    )
    print(f"next     dp-inspect {result.out}")
    return 0


def _actor(config: dict[str, Any], held: ExitStack) -> "Actor | Demonstrator":
    """Returns who acts; `held` closes what was opened for it."""
    if config["teleop"] and config["checkpoint"]:
        raise ConfigError("teleop=true and checkpoint= exclude each other: a person acts, or a policy; leave one out")
    if config["teleop"]:
        from diffusion_policy.rollout.pygame_window import PygameWindow
        from diffusion_policy.rollout.teleop import Teleoperation

        return Teleoperation(held.enter_context(PygameWindow()), keep=config["keep"])
    if config["checkpoint"]:
        from diffusion_policy.policies.controller import RecedingHorizonController
        from diffusion_policy.policies.device import pick_device
        from diffusion_policy.rollout.actors import PolicyActor

        device = str(pick_device(str(config["device"])))
        return PolicyActor(RecedingHorizonController.load(config["checkpoint"], device=device))
    from diffusion_policy.rollout.actors import ExpertActor

    return ExpertActor()


if __name__ == "__main__":
    sys.exit(main())
