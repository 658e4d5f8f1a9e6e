"""dp-collect: an environment's expert, policies, agents of others, or a person with a mouse -> episodes in zarr."""

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from diffusion_policy.cli.command import count, run_command
from diffusion_policy.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_policy.rollout.collect import CollectResult


def main() -> int:
    """Runs the command; returns the exit code."""
    return run_command("collect", _collect_or_say)


def _collect_or_say(config: dict[str, Any], overrides: list[str]) -> int:
    """Collects; after Ctrl-C says what there is."""
    try:
        return _collect(config, overrides)
    except KeyboardInterrupt:
        from diffusion_policy.cli.kept import kept_so_far

        print(kept_so_far(config["out"], _wanted(config), sys.argv[1:]), file=sys.stderr)
        return 130


def _wanted(config: dict[str, Any]) -> str:
    parts = max(1, len(config["actors"] or ()))
    return f"{parts * config['episodes']} episodes" if config["steps"] is None else f"{parts * config['steps']} steps"


def _collect(config: dict[str, Any], overrides: list[str]) -> int:
    from diffusion_policy.cli.actors import make_actors
    from diffusion_policy.rollout.collect import collect

    if not config["out"]:
        raise ConfigError("out: expected a path for the data, got nothing; give out=demos.zarr")
    settings = {
        **_amount(config, overrides),
        "seed": count(config, "seed", smallest=0),
        "env_kwargs": {**(config["env"].get("kwargs") or {}), **(config["collect"] or {})},
        "keep": config["keep"],
        "next_obs": config["next_obs"],
        "resume": bool(config["resume"]),
    }
    with ExitStack() as held:
        actors = make_actors(config, held)
        result = collect(str(config["env"]["id"]), actors, out=config["out"], **settings)
    _report(result, str(config["env"]["id"]), config["keep"])
    return 0


def _amount(config: dict[str, Any], overrides: list[str]) -> dict[str, int]:
    if config["steps"] is None:
        return {"episodes": count(config, "episodes")}
    if any(word.startswith("episodes=") for word in overrides):
        raise ConfigError("episodes= and steps= exclude each other: both say when there is enough; leave one out")
    return {"steps": count(config, "steps")}


def _report(result: "CollectResult", env_id: str, keep: str) -> None:
    from diffusion_policy.rollout.reference_scores import worth

    by_itself = keep == "auto" and result.keep == "all"
    asked = ", whatever came of them: the environment does not tell success" if by_itself else ""
    print(f"kept     {result.episodes} of {result.attempts} attempts{asked}")
    for part in result.parts:
        if part.mean_return is not None:
            print(f"return   {worth(env_id, part.mean_return, part.success_rate)}, mean of {part.name}")
    print(f"dataset  {result.out} (digest {result.digest[:12]})\nnext     dp-inspect {result.out}")


if __name__ == "__main__":
    sys.exit(main())
