"""A training run from configuration: assembles data, policy, loop and hooks; starts or resumes.

`train(config)` is the notebook's way in; the command dp-train is a thin shell over it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml

from diffusion_policy.config import action_spec_from, obs_spec_from
from diffusion_policy.settings import build, build_part, plain, section
from diffusion_policy.data.dataset import WindowDataset, split_episodes
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, MissingFileError, OutputExistsError
from diffusion_policy.paths import resolve_dataset
from diffusion_policy.policies.checkpoint import CheckpointInfo, installed_versions, read_tensors
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.diffusion_policy import DiffusionPolicy, PolicyConfig
from diffusion_policy.rollout.evaluate import EvalResult, evaluate
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.training.hooks import (
    CheckpointHook,
    HookConfig,
    LogHook,
    RolloutHook,
    StatelessHook,
    ValidationHook,
    state_path,
)
from diffusion_policy.training.loop import Hook, LoopConfig, TrainingLoop
from diffusion_policy.training.metrics import Board, MetricsLog, TensorBoard, WandbBoard, draw_curves
from diffusion_policy.training.objective import DenoisingObjective
from diffusion_policy.training.optim import OptimConfig

logger = logging.getLogger(__name__)

_POLICY_SECTIONS = ("horizons", "denoiser", "diffusion", "sampler", "normalization")
_SECTIONS = ("env", "obs", "action", "dataset", "data", *_POLICY_SECTIONS, "optim", "training", "logger")
_SETTINGS = ("seed", "device", "out", "init")


@dataclass(frozen=True)
class DataConfig:
    """Which episodes a run trains on.

    Args:
        val_ratio: share of episodes held out for validation.
        episodes: at most this many training episodes, drawn by the seed; None for all.
        drop_short: leave out episodes shorter than a window instead of refusing the data set.
    """

    val_ratio: float = 0.02
    episodes: int | None = None
    drop_short: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.val_ratio < 1:
            raise ConfigError(f"data.val_ratio must be in [0, 1), but got {self.val_ratio}")


@dataclass(frozen=True)
class Run:
    """What a training run left behind.

    Args:
        out: its folder: policy.pt, metrics.jsonl, curves.png, config.yaml, checkpoints/.
        policy: the trained policy, EMA weights.
        finished: False when it was interrupted; `train({"resume": run.out})` goes on.
        grad_steps: steps done.
    """

    out: Path
    policy: DiffusionPolicy
    finished: bool
    grad_steps: int


def train(config: Mapping[str, Any]) -> Run:
    """Trains a policy as a composed configuration says, or resumes a run.

    Args:
        config: plain nested values as in config.yaml of any run (see conf/train.yaml); or
            {"resume": folder} with, at most, a larger {"training": {"num_grad_steps": n}}.

    Raises:
        ConfigError: unknown or contradicting settings.
        MissingFileError: the dataset, init policy or run to resume is not there.
        OutputExistsError: `out` holds something already.
        DataError: the dataset does not fit the task.
        NonFiniteLossError: training diverged.
    """
    if config.get("resume"):
        return _resume(config)
    settings = {key: value for key, value in plain(config).items() if key != "resume"}
    _check_names(settings)
    out = _new_folder(settings.get("out"))
    assembled = _assemble(settings, out)
    _write_config(assembled.settings, out)
    return assembled.run()


def _check_names(settings: Mapping[str, Any]) -> None:
    unknown = sorted(set(settings) - set(_SECTIONS) - set(_SETTINGS))
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(unknown)}, known: {', '.join(_SECTIONS + _SETTINGS)}")


def _new_folder(out: Any) -> Path:
    if not out:
        raise ConfigError("out: expected a folder for the results, got nothing; give out=runs/NAME")
    folder = Path(str(out)).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(
            f"out={folder} already holds something; choose another folder, or go on with resume={folder}"
        )
    return folder


def _resume(config: Mapping[str, Any]) -> Run:
    out = Path(str(config["resume"])).expanduser()
    file = out / "config.yaml"
    if not file.is_file():
        raise MissingFileError(f"resume={out}: no run is there (expected {file}); give the folder of an earlier out=")
    settings = yaml.safe_load(file.read_text())
    steps = _longer(config, settings)
    if steps is not None:
        settings["training"]["num_grad_steps"] = steps
    assembled = _assemble(settings, out)
    if steps is not None:
        _write_config(settings, out)
    return assembled.run()


def _longer(config: Mapping[str, Any], settings: Mapping[str, Any]) -> int | None:
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
    new, old = training["num_grad_steps"], settings["training"].get("num_grad_steps")
    if not isinstance(new, int) or (old is not None and new < old):
        raise ConfigError(f"training.num_grad_steps can only grow on resume: expected more than {old}, but got {new}")
    return new


def _write_config(settings: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / ".config.yaml.tmp"
    temporary.write_text(yaml.safe_dump(plain(settings), sort_keys=False))
    temporary.replace(out / "config.yaml")


def pick_device(name: str) -> torch.device:
    """Returns the torch device of a `device=` setting: auto, cpu, cuda or mps.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if available["cuda"] else "mps" if available["mps"] else "cpu")
    if name not in available:
        raise ConfigError(f"device must be auto, cpu, cuda or mps, but got '{name}'")
    if not available[name]:
        raise ConfigError(f"device={name}: this machine, or this build of torch, has none; use device=auto")
    return torch.device(name)


def _fine_tuned(settings: dict[str, Any], init: str | None) -> tuple[dict[str, Any], DiffusionPolicy | None]:
    """Returns settings with the architecture of the policy to fine-tune, and that policy."""
    if init is None:
        return settings, None
    policy = DiffusionPolicy.load(init)
    wanted = {key: f.shape for key, f in obs_spec_from(section(settings, "obs")).items()}
    known = {key: f.shape for key, f in policy.obs_spec.items()}
    if wanted != known:
        raise ConfigError(f"init={init} was trained on observations {known}, but the task has {wanted}")
    if action_spec_from(section(settings, "action")).shape != policy.action_spec.shape:
        raise ConfigError(f"init={init} has actions of shape {policy.action_spec.shape}, the task has others")
    logger.info("init=%s: its networks, horizons, process and normaliser are kept", init)
    return {**settings, **policy.config.to_plain()}, policy


@dataclass
class _Assembled:
    """Everything a run consists of, ready to start."""

    settings: dict[str, Any]
    out: Path
    buffer: ReplayBuffer
    train_set: WindowDataset
    held_out: WindowDataset | None
    policy: DiffusionPolicy
    loop: TrainingLoop
    info: CheckpointInfo

    def run(self) -> Run:
        state = state_path(self.out)
        saved = read_tensors(state, "training state") if state.is_file() else None
        if saved is not None:
            self.loop.load_state_dict(saved["loop"])
            self.loop.last_checkpoint = f"{state} (step {self.loop.grad_step})"
        log = self._log()
        hooks = self._hooks(log)
        checkpoint = CheckpointHook(self.out, self._hook_config().checkpoint_every, self.info, hooks)
        if saved is not None:
            for hook, memory in zip(hooks, saved["hooks"], strict=True):
                hook.load_state_dict(memory)
        try:
            with ProgressBar("train", self.loop.num_grad_steps) as bar:
                bar.start_at(self.loop.grad_step)
                finished = self.loop.run([*hooks, _ProgressHook(bar), checkpoint])
            checkpoint.save(self.loop)
        finally:
            log.close()
        model = self.loop.ema.model
        assert isinstance(model, DiffusionPolicy)
        return Run(self.out, model, finished, self.loop.grad_step)

    def _hook_config(self) -> HookConfig:
        return build_part(HookConfig, section(self.settings, "training"), "training")

    def _log(self) -> MetricsLog:
        boards: list[Board] = []
        settings = section(self.settings, "logger")
        if settings.get("tensorboard"):
            boards.append(TensorBoard(self.out / "tensorboard", self.loop.grad_step))
        if settings.get("wandb"):
            boards.append(WandbBoard(self.out, self.settings))
        return MetricsLog(self.out / "metrics.jsonl", resume_step=self.loop.grad_step, boards=tuple(boards))

    def _hooks(self, log: MetricsLog) -> list[Hook]:
        when = self._hook_config()
        env = section(self.settings, "env")

        def roll_out(policy: DiffusionPolicy) -> EvalResult:
            return evaluate(
                RecedingHorizonController(policy),
                str(env["id"]),
                episodes=when.rollout_episodes,
                seed=when.rollout_seed,
                num_envs=when.rollout_num_envs,
                env_kwargs=section(env, "kwargs"),
                progress=False,
            )

        return [
            LogHook(log, when.log_every),
            ValidationHook(log, self.held_out, self.train_set, when.val_every, when.val_windows),
            RolloutHook(log, roll_out, self.out / "checkpoints", when.rollout_every, when.keep_best),
        ]


class _ProgressHook(StatelessHook):
    def __init__(self, bar: ProgressBar) -> None:
        self._bar = bar

    def after_step(self, loop: TrainingLoop) -> None:
        self._bar.update(loop.grad_step, f"loss {loop.last.loss:.4f}")


def _assemble(settings: dict[str, Any], out: Path) -> _Assembled:
    seed = _seed(settings)
    device = pick_device(str(settings.get("device", "auto")))
    training = section(settings, "training")
    _check_training(training)
    settings, initial = _fine_tuned(settings, settings.get("init"))
    obs_spec, action_spec = obs_spec_from(section(settings, "obs")), action_spec_from(section(settings, "action"))
    policy_config = PolicyConfig.from_plain({name: section(settings, name) for name in _POLICY_SECTIONS})
    torch.manual_seed(seed)
    policy = DiffusionPolicy(policy_config, obs_spec, action_spec)
    if not settings.get("dataset"):
        raise ConfigError("dataset: expected a zarr folder or .zip, got nothing; give dataset=PATH or package://pusht")
    buffer = ReplayBuffer.open(resolve_dataset(str(settings["dataset"])))
    data = build(DataConfig, section(settings, "data"), "data")
    train_ids, val_ids = split_episodes(
        buffer.num_episodes, val_ratio=data.val_ratio, seed=seed, max_episodes=data.episodes
    )

    def windows(episodes: Any) -> WindowDataset:
        return WindowDataset.from_buffer(
            buffer, obs_spec, action_spec, policy.horizons, episodes=episodes, drop_short=data.drop_short, device=device
        )

    train_set = windows(train_ids)
    held_out = windows(val_ids) if len(val_ids) else None
    if initial is not None:
        policy.load_state_dict(initial.state_dict())
    else:
        policy.fit_normalizers({key: train_set.all_obs(key) for key in obs_spec}, train_set.all_actions())
    policy.to(device)
    loop = TrainingLoop(
        DenoisingObjective(policy),
        train_set,
        build_part(LoopConfig, training, "training"),
        build(OptimConfig, section(settings, "optim"), "optim"),
        seed=seed,
    )
    used = [key for key in buffer.keys() if key != "img"]
    info = CheckpointInfo(
        env={**plain(section(settings, "env")), "renderer": buffer.attrs.get("renderer")},
        dataset={"digest": buffer.digest(used), "provenance": plain(dict(buffer.attrs))},
        training={"grad_steps": 0, "seeds": [seed]},
        versions=installed_versions(),
    )
    return _Assembled(settings, out, buffer, train_set, held_out, policy, loop, info)


def _seed(settings: Mapping[str, Any]) -> int:
    seed = settings.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a whole number, 0 or more, but got {seed!r}")
    return seed


def _check_training(settings: Mapping[str, Any]) -> None:
    known = [f.name for cls in (LoopConfig, HookConfig) for f in fields(cls)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ConfigError(f"training: unknown setting {', '.join(unknown)}, known: {', '.join(known)}")


__all__ = ["DataConfig", "Run", "draw_curves", "pick_device", "train"]
