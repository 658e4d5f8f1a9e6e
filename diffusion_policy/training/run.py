"""A training run: starts, or resumes where it was killed, and leaves its results in one folder.

`train(config)` is the notebook's way in; the command dp-train is a thin shell over it.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from diffusion_policy.errors import ConfigError, MissingFileError, StorageError
from diffusion_policy.locks import FolderLock
from diffusion_policy.paths import absolute_dataset, new_folder, results_in
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.library import load_policy
from diffusion_policy.policies.policy import Policy
from diffusion_policy.registry import import_plugins
from diffusion_policy.rollout.env_facts import check_renderer, renderer_of
from diffusion_policy.rollout.environments import check_fits, make_env
from diffusion_policy.rollout.evaluate import EvalResult, evaluate
from diffusion_policy.settings import plain, section
from diffusion_policy.training.assembly import Assembly, assemble
from diffusion_policy.training.checkpoint_hook import CheckpointHook, state_path
from diffusion_policy.training.data_sets import absolute_datasets
from diffusion_policy.training.execution import carry_out, restored
from diffusion_policy.training.hooks import LogHook, ValidationHook, averaged_policy
from diffusion_policy.training.interrupt import Interrupt
from diffusion_policy.training.loop import Hook, TrainingLoop
from diffusion_policy.training.metrics import Board, MetricsLog, TensorBoard, WandbBoard
from diffusion_policy.training.ranks import Ranks, ranks_from_environment
from diffusion_policy.training.rollout_hook import RolloutHook

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What a training run left behind.

    Args:
        out: its folder: policy.pt, metrics.jsonl, curves.png, config.yaml, checkpoints/.
        policy: the trained policy, EMA weights.
        finished: False when it was interrupted; `train({"resume": run.out})` goes on.
        grad_steps: steps done.
        rank: of the process, where several train together; the first, 0, wrote the results.
    """

    out: Path
    policy: Policy
    finished: bool
    grad_steps: int
    rank: int = 0


def train(config: Mapping[str, Any]) -> Run:
    """Trains a policy as a composed configuration says, or resumes a run.

    Args:
        config: plain nested values as in config.yaml of any run, which `diffusion_policy.compose_config("train",
            "task=pusht", "preset=fast", "out=runs/a")` returns; or {"resume": folder} with, at most, a larger
            {"training": {"num_grad_steps": n}}.

    Raises:
        ConfigError: unknown or contradicting settings.
        MissingFileError: the dataset, init policy or run to resume is not there.
        OutputExistsError: `out` holds something already, or another process trains there.
        DataError: the dataset does not fit the task.
        NonFiniteLossError: training diverged.
        RankLostError: one of several processes has ended.
    """
    if config.get("resume"):
        return _resume(config)
    settings = _with_absolute_paths({key: value for key, value in plain(config).items() if key != "resume"})
    device = str(settings.get("device", "auto"))
    with ranks_from_environment(device) as ranks, _new_folder(settings.get("out"), ranks) as out:
        import_plugins(settings.get("plugins") or [])
        assembly = assemble(settings, ranks=ranks)
        if ranks.first:
            _check_environment(assembly)
            _write_config(assembly.settings, out)
        return _run(assembly, out)


def _with_absolute_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings with paths that hold wherever the run is resumed from."""
    absolute = dict(settings)
    absolute["dataset"] = absolute_datasets(settings.get("dataset"))
    if settings.get("init"):
        absolute["init"] = str(Path(str(settings["init"])).expanduser().absolute())
    data = section(settings, "data")
    if data.get("synthetic"):
        absolute["data"] = {**data, "synthetic": absolute_dataset(str(data["synthetic"]))}
    return absolute


@contextmanager
def _new_folder(out: Any, ranks: Ranks) -> Iterator[Path]:
    """Makes the run's folder and keeps others out of it; removes it again if nothing came of the run.

    Of several processes only the first one does; the others write nothing.
    """
    if not out:
        raise ConfigError("out: expected a folder for the results, got nothing; give out=runs/NAME")
    if not ranks.first:
        yield Path(str(out))
        return
    otherwise = f", or go on with resume={out}"
    folder = new_folder(str(out), otherwise)
    with results_in(folder), FolderLock(folder, "run"):
        yield new_folder(folder, otherwise)  # another run may have ended there just now


def _resume(config: Mapping[str, Any]) -> Run:
    out = Path(str(config["resume"])).expanduser()
    file = out / "config.yaml"
    if not file.is_file():
        raise MissingFileError(f"resume={out}: no run is there (expected {file}); give the folder of an earlier out=")
    steps = _asked_length(config)
    settings = yaml.safe_load(file.read_text())
    device = str(settings.get("device", "auto"))
    with ranks_from_environment(device) as ranks, FolderLock(out, "run") if ranks.first else nullcontext():
        return _go_on(out, settings, steps, ranks)


def _go_on(out: Path, settings: dict[str, Any], steps: int | None, ranks: Ranks) -> Run:
    """Resumes with the run's own settings; `steps` is the new length, None for the old one."""
    import_plugins(settings.get("plugins") or [])
    assembly = assemble(settings, resuming=state_path(out).is_file(), ranks=ranks)
    if ranks.first:
        _check_environment(assembly)
    if steps is not None:
        old = assembly.loop.num_grad_steps
        if steps < old:
            raise ConfigError(
                f"training.num_grad_steps can only grow on resume: expected more than {old}, but got {steps}"
            )
        assembly.loop.num_grad_steps = steps
        settings["training"]["num_grad_steps"] = steps
        if ranks.first:
            _write_config(settings, out)
    return _run(assembly, out)


def _asked_length(config: Mapping[str, Any]) -> int | None:
    """Returns the new length asked for with resume=, the only setting that may come with it."""
    training = section(config, "training")
    extra = [k for k in config if k not in ("resume", "training")] + [k for k in training if k != "num_grad_steps"]
    if extra:
        raise ConfigError(
            f"resume= takes no other setting than a larger training.num_grad_steps, but got {', '.join(extra)}; "
            f"the run's own config.yaml holds"
        )
    if "num_grad_steps" not in training:
        return None
    steps = training["num_grad_steps"]
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise ConfigError(f"training.num_grad_steps: expected a whole number, but got {steps!r}")
    return steps


def _write_config(settings: Mapping[str, Any], out: Path) -> None:
    temporary = out / ".config.yaml.tmp"
    try:
        out.mkdir(parents=True, exist_ok=True)
        temporary.write_text(yaml.safe_dump(plain(settings), sort_keys=False))
        temporary.replace(out / "config.yaml")
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {out / 'config.yaml'}: {error.strerror}; choose another out=") from error


def _run(assembly: Assembly, out: Path) -> Run:
    """Trains from the state in `out`, or from the beginning when there is none."""
    loop = assembly.loop
    anew = f"start anew with init={out / 'policy.pt'}"
    saved = restored(loop, out, assembly.data.identity, anew)
    if not loop.ranks.first:  # it computes; the first one writes, shows and saves
        with Interrupt(patient=True) as interrupt:
            finished = loop.run((), interrupt)
        return Run(out, averaged_policy(loop), finished, loop.grad_step, loop.ranks.rank)
    _remove_torn_files(out, begun=saved is not None)
    if loop.grad_step >= loop.num_grad_steps:
        logger.info("%s: all its %d steps are done; for more: training.num_grad_steps=MORE", out, loop.grad_step)
    finished = carry_out(
        loop,
        out,
        lambda hooks: _checkpoint(assembly, out, hooks),
        lambda log: _hooks(assembly, out, log),
        saved=saved,
        boards=_boards(assembly, out),
        note=lambda hooks: str(getattr(hooks[-1], "note", "")),  # the last rollout
    )
    return Run(out, load_policy(out / "policy.pt", loop.device), finished, loop.grad_step)


def _checkpoint(assembly: Assembly, out: Path, hooks: Sequence[Hook]) -> CheckpointHook:
    info = assembly.info

    def deploy(loop: TrainingLoop) -> None:
        training = {**info.training, "grad_steps": loop.grad_step}
        averaged_policy(loop).save(out / "policy.pt", replace(info, training=training))

    unit = averaged_policy(assembly.loop).action_spec.unit
    return CheckpointHook(out, assembly.hooks.checkpoint_every, assembly.data.identity, hooks, deploy, unit)


def _remove_torn_files(out: Path, begun: bool) -> None:
    """A process killed while it wrote leaves its temporary file behind; before the first state, all that it made."""
    checkpoints = out / "checkpoints"
    orphans = [] if begun else checkpoints.glob("best_step*.pt")
    for stale in [*out.glob(".policy.pt.*"), *checkpoints.glob(".*.pt.*"), *orphans]:
        stale.unlink(missing_ok=True)


def _check_environment(assembly: Assembly) -> None:
    """Finds out now, not at the first rollout, that the environment does not exist or does not fit."""
    if assembly.hooks.rollout_every == 0:
        return
    env, policy = section(assembly.settings, "env"), averaged_policy(assembly.loop)
    made = make_env(str(env.get("id")), section(env, "kwargs"))
    try:
        check_fits(made, str(env["id"]), policy.obs_spec, policy.action_spec)
        learned = assembly.info.env.get("renderer")
        check_renderer(str(env["id"]), learned, renderer_of(made, policy.obs_spec))
    finally:
        made.close()


def _boards(assembly: Assembly, out: Path) -> tuple[Board, ...]:
    settings = section(assembly.settings, "logger")
    boards: list[Board] = []
    if settings.get("tensorboard"):
        boards.append(TensorBoard(out / "tensorboard", assembly.loop.grad_step))
    if settings.get("wandb"):
        boards.append(WandbBoard(out, assembly.settings))
    return tuple(boards)


def _hooks(assembly: Assembly, out: Path, log: MetricsLog) -> tuple[LogHook, ValidationHook, RolloutHook]:
    when, env, data = assembly.hooks, section(assembly.settings, "env"), assembly.data
    if data.several:
        log.note("data", {"sets": {each.name: told for each, told in data.told()}})

    def roll_out(policy: Policy) -> EvalResult:
        return evaluate(
            RecedingHorizonController(policy),
            str(env["id"]),
            episodes=when.rollout_episodes,
            seed=when.rollout_seed,
            num_envs=when.rollout_num_envs,
            env_kwargs=section(env, "kwargs"),
            progress=False,
            workers=when.rollout_workers,
            plugins=assembly.settings.get("plugins") or (),
        )

    return (
        LogHook(log, when.log_every),
        ValidationHook(log, data.held_out, data.train, when.val_every, when.val_windows, data.share_of),
        RolloutHook(log, roll_out, out / "checkpoints", when.rollout_every, when.keep_best, when.best_by),
    )
