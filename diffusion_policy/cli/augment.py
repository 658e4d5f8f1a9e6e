"""dp-augment: recorded transitions -> a model of them -> synthetic transitions in zarr."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
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
        print(_kept(config, sys.argv[1:]), file=sys.stderr)
        return 130


def _kept(config: Mapping[str, Any], words: Sequence[str]) -> str:
    """Returns what an interrupted run has, of the samples or else of the fit, and the command that goes on."""
    from diffusion_policy.cli.kept import go_on, kept_so_far
    from diffusion_policy.training.augmenting.config import fit_folder
    from diffusion_policy.training.checkpoint_hook import state_path

    out = Path(str(config["out"])).expanduser() if config["out"] else None
    if out is not None and out.exists():
        wanted = f"{config['samples']} {'windows' if config['horizons'] else 'transitions'}"
        return kept_so_far(out, wanted, words, command="dp-augment")
    run = None if config["fitted"] else fit_folder(config, out)
    if run is None or not (run / "config.yaml").is_file():
        return "interrupted; nothing was written"
    what = "what was fitted is saved" if state_path(run).is_file() else "nothing of the fit is saved yet"
    return f"interrupted; {what} in {run}; go on with: {go_on('dp-augment', words)}"


def _only_typed(config: dict[str, Any], overrides: list[str]) -> None:
    """With fitted=, how samples are drawn is as in the file, but for what was typed; what is learned cannot change."""
    names = [override.partition("=")[0].lstrip("+~") for override in overrides]
    fits = {"augment", "augmenter", "horizons", "model", "edm", "noise", "optim", "training", "run"}
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
    if done.before:
        print("finished earlier: nothing was left to fit or to draw" + ("; the report is new" if done.report else ""))
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
        same += " data.drop_short=true" if config["data"]["drop_short"] else ""
        return f"dp-train task=... dataset={config['dataset']} {same} data.synthetic={done.out}"
    return f"dp-inspect {done.out} --physics"


def _learned(real: Mapping[str, Any]) -> str:
    if real.get("horizons"):
        return f"learned  from {real['transitions']} windows of {real['origin']['episodes']} episodes"
    said = f"learned  from {real['transitions']} transitions, {real['terminals']} of them terminal"
    return said + (f"; {real['left_out']} left out, nobody saw what followed" if real.get("left_out") else "")


if __name__ == "__main__":
    sys.exit(main())
