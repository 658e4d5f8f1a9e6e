"""dp-augment: recorded transitions -> a model of them -> synthetic transitions in zarr."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusion_policy.cli.command import count, run_command
from diffusion_policy.errors import ConfigError

if TYPE_CHECKING:
    from diffusion_policy.training.augmenting.run import Augmented


def main() -> int:
    """Runs the command; returns the exit code."""
    return run_command("augment", _augment_or_say)


def _augment_or_say(config: dict[str, Any], overrides: list[str]) -> int:
    """Augments; after Ctrl-C says what there is."""
    for name in ("samples", "rows"):
        count(config, name)
    if config["fitted"]:
        _only_typed(config, overrides)
    try:
        return _augment(config)
    except KeyboardInterrupt:
        from diffusion_policy.cli.kept import kept_so_far

        if not config["out"]:
            raise
        said = kept_so_far(config["out"], f"{config['samples']} episodes", sys.argv[1:], command="dp-augment")
        print(said.replace("episodes", "transitions"), file=sys.stderr)
        return 130


def _only_typed(config: dict[str, Any], overrides: list[str]) -> None:
    """With fitted=, how samples are drawn is as in the file, but for what was typed; what is learned cannot change."""
    names = [override.partition("=")[0].lstrip("+~") for override in overrides]
    fits = {"augment", "augmenter", "model", "edm", "optim", "training", "run"}
    fits |= set() if config["report"] else {"dataset", "data"}
    learned = [name for name in names if name.partition(".")[0] in fits]
    if learned:
        raise ConfigError(f"fitted= brings its own model and fits nothing; drop {', '.join(learned)}")
    drawn, typed = config["sampling"], {name.partition(".")[2] for name in names if name.startswith("sampling.")}
    churn = {key: value for key, value in drawn["churn"].items() if f"churn.{key}" in typed}
    config["sampling"] = {key: value for key, value in drawn.items() if key in typed} | {"churn": churn}


def _augment(config: dict[str, Any]) -> int:
    from diffusion_policy.training.augmenting.run import augment

    done = augment(config)
    if done.run is not None:
        if (done.run / "augmenter.pt").is_file():
            print(f"model    {done.run / 'augmenter.pt'}\ncurves   {done.run / 'curves.png'}")
        if done.real is not None:
            print(_learned(done.real))
    if not done.finished:
        print("stopped; go on with the same command and resume=true", file=sys.stderr)
        return 130
    if done.report is not None:
        print(f"report   {done.report}")
    if done.out is not None:
        print(f"dataset  {done.out} (digest {done.digest[:12]})\nnext     {_next(done, config)}")
    return 0


def _next(done: "Augmented", config: Mapping[str, Any]) -> str:
    if done.real is not None and done.real.get("horizons"):
        same = f"seed={config['seed']} data.val_ratio=0"  # the very episodes that the model learned from
        same += f" data.episodes={config['data']['episodes']}" if config["data"]["episodes"] else ""
        return f"dp-train task=... dataset={config['dataset']} {same} data.synthetic={done.out}"
    return f"dp-inspect {done.out} --physics"


def _learned(real: Mapping[str, Any]) -> str:
    if real.get("horizons"):
        return f"learned  from {real['transitions']} windows of {real['origin']['episodes']} episodes"
    said = f"learned  from {real['transitions']} transitions, {real['terminals']} of them terminal"
    return said + (f"; {real['left_out']} left out, nobody saw what followed" if real.get("left_out") else "")


if __name__ == "__main__":
    sys.exit(main())
