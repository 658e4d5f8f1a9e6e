"""dp-render: recorded states -> pictures."""

import sys
from typing import Any

from diffusion_policy.cli.command import count, run_command
from diffusion_policy.errors import ConfigError


def main() -> int:
    """Runs the command; returns the exit code."""
    return run_command("render", _render)


def _render(config: dict[str, Any], overrides: list[str]) -> int:
    from diffusion_policy.config import obs_spec_from
    from diffusion_policy.paths import one_dataset, resolve_dataset
    from diffusion_policy.rollout.rerender import Drawing, rerender

    for name, example in (("dataset", "demos.zarr"), ("out", "pictures.zarr")):
        if not config[name]:
            raise ConfigError(f"{name}: expected a path, got nothing; give {name}={example}")
    pictures = {key: field for key, field in obs_spec_from(config["obs"]).items() if field.is_picture}
    if not pictures:
        raise ConfigError(
            "obs: expected at least one field of type rgb to draw, but the task has "
            f"{', '.join(config['obs'])}; choose a task with pictures, e.g. task=pusht_image"
        )
    drawing = Drawing(
        env_id=str(config["env"]["id"]),
        env_kwargs=config["env"].get("kwargs") or {},
        keys=tuple(pictures),
        plugins=tuple(config["plugins"]),
    )
    workers = None if config["workers"] == "auto" else count(config, "workers")
    source = resolve_dataset(one_dataset(config["dataset"]))
    with rerender(source, drawing, pictures, config["out"], workers=workers, resume=bool(config["resume"])) as made:
        drawn = ", ".join(f"{key} {field.shape[0]}x{field.shape[1]}" for key, field in pictures.items())
        print(f"drew     {made.num_steps} steps of {made.num_episodes} episodes: {drawn}")
    print(f"dataset  {config['out']}")
    print(f"next     dp-train task=... dataset={config['out']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
