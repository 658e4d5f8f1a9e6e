"""A run of dp-online: soft actor-critic in an environment, its replay partly synthetic.

`train_online(config)` is the notebook's way in. An interrupted run keeps what it has and is not gone on with: that the
environment, the replay and the random numbers of stable-baselines3 stand where they stood cannot be had exactly.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from stable_baselines3 import SAC
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from diffusion_policy.errors import ConfigError, DiffusionPolicyError, StorageError
from diffusion_policy.locks import FolderLock
from diffusion_policy.online import SB3_VERSION
from diffusion_policy.online.agent_policy import AgentPolicy
from diffusion_policy.online.config import OnlineConfig, OnlineParts, SacConfig, parts_of
from diffusion_policy.online.curves import draw_online
from diffusion_policy.online.measures import Measures, Records, StoppedInRefit
from diffusion_policy.online.mixed_buffer import MixedReplayBuffer, check_spaces
from diffusion_policy.online.refresh import Refreshed, SyntheticRefresh
from diffusion_policy.paths import new_folder, results_in
from diffusion_policy.rollout.environments import make_env
from diffusion_policy.rollout.evaluate import EvalResult, evaluate
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.provenance import commit, hardware
from diffusion_policy.settings import plain
from diffusion_policy.training.interrupt import Interrupt
from diffusion_policy.versions import installed_versions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OnlineRun:
    """What a run left behind.

    Args:
        out: its folder: sac.zip, results.json, metrics.jsonl, curves.png, config.yaml.
        finished: False when it was interrupted.
        results: the content of results.json.
    """

    out: Path
    finished: bool
    results: dict[str, Any]


def train_online(config: Mapping[str, Any]) -> OnlineRun:
    """Trains soft actor-critic in an environment, with synthetic transitions in its replay.

    Args:
        config: plain nested values, which `diffusion_policy.compose_config("online", "env=Pendulum-v1", "out=runs/a")`
            returns.

    Raises:
        ConfigError: unknown or contradicting settings; actions that are not continuous, pictures.
        EnvironmentIdError: no such environment, or it refuses its arguments.
        OutputExistsError: `out` holds something.
        NonFiniteLossError: a refit diverged; what was learned before it is saved, as after Ctrl-C.
        DataError: the environment showed NaN; likewise.
        StorageError: results could not be written.
    """
    settings = plain(config)
    parts = parts_of(settings)
    folder = new_folder(str(settings["out"]))
    env = make_env(parts.run.env, parts.run.env_kwargs)
    try:
        check_spaces(env.observation_space, env.action_space)
    except ConfigError as error:
        raise ConfigError(f"env={parts.run.env}: {error}") from error
    finally:
        env.close()
    with results_in(folder), FolderLock(folder, "run"):
        new_folder(folder)  # another run may have ended there just now
        _write(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
        return _trained(parts, settings, folder)


def make_agent(run: OnlineConfig, sac: SacConfig, device: torch.device) -> SAC:
    """Returns an untrained agent, its replay and its environments."""
    made = partial(_monitored, run.env, dict(run.env_kwargs))
    return SAC(
        "MlpPolicy",
        DummyVecEnv([made] * run.num_envs),
        learning_rate=sac.lr,
        buffer_size=-(-run.steps // run.num_envs) * run.num_envs,  # nothing is forgotten
        learning_starts=sac.learning_starts,
        batch_size=sac.batch_size,
        tau=sac.tau,
        gamma=sac.gamma,
        train_freq=(1, "step"),  # of each environment: as many transitions as there are environments
        gradient_steps=run.update_ratio * run.num_envs,
        replay_buffer_class=MixedReplayBuffer,
        replay_buffer_kwargs={"ratio": run.synthetic_ratio, "rounded": run.rounded, "one_hot": run.one_hot},
        policy_kwargs={"net_arch": list(sac.hidden_dims)},
        seed=run.seed,
        device=device,
    )


def _monitored(env_id: str, env_kwargs: Mapping[str, Any]) -> Monitor[Any, Any]:
    return Monitor(make_env(env_id, env_kwargs))


def _trained(parts: OnlineParts, settings: Mapping[str, Any], out: Path) -> OnlineRun:
    run, records = parts.run, Records(out / "metrics.jsonl")
    agent = make_agent(run, parts.sac, parts.device)
    begun = time.perf_counter(), time.process_time()
    stopped = False
    failed: DiffusionPolicyError | None = None
    with Interrupt() as interrupt:
        with ProgressBar("online", run.steps) as bar:
            measures = Measures(partial(_evaluated, parts), parts.evaluation.every, records, bar, interrupt)
            refresh = SyntheticRefresh(
                run.refit_every,
                parts.refit,
                seed=run.seed,
                on_refresh=lambda done: _record(records, done),
                on_progress=measures.progress,
            )
            try:
                never = run.steps + 1  # episodes between two lines of stable-baselines3's own log
                agent.learn(run.steps, [measures, *([refresh] if run.synthetic_ratio else [])], log_interval=never)
            except KeyboardInterrupt as error:
                if interrupt.requested and not isinstance(error, StoppedInRefit):
                    raise  # a second Ctrl-C: whatever was going on is torn
                stopped = True
            except DiffusionPolicyError as error:  # a refit that diverges, an environment that shows NaN
                stopped, failed = True, error
        stopped = stopped or interrupt.requested
        interrupt.now_saving()
        took = {"seconds": time.perf_counter() - begun[0], "cpu_seconds": time.process_time() - begun[1]}
        results = {**_about(parts, records, agent), "finished": not stopped, **took, "settings": settings, **_made_by()}
        try:
            _save(out, results, agent, records)
        except StorageError:
            if failed is None:
                raise
    assert agent.env is not None
    agent.env.close()
    if failed is not None:
        raise failed
    return OnlineRun(out, not stopped, results)


def _save(out: Path, results: Mapping[str, Any], agent: SAC, records: Records) -> None:
    """Writes results, agent and curves, each whole or not at all; the curves, which can be drawn again, may fail."""
    _write(out / "results.json", json.dumps(results, indent=1) + "\n")
    file, torn = out / "sac.zip", out / "sac.tmp.zip"
    try:
        agent.save(torn)
        torn.replace(file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise StorageError(f"cannot write {file}: {error}; free some space, and start anew") from error
    finally:
        torn.unlink(missing_ok=True)
    try:
        draw_online(records.of("evaluation"), records.of("episode"), records.of("refresh"), out / "curves.png")
    except OSError as error:
        logger.warning("no curves drawn: %s", error)


def _evaluated(parts: OnlineParts, agent: Any) -> EvalResult:
    run, how = parts.run, parts.evaluation
    return evaluate(
        AgentPolicy(agent),
        run.env,
        episodes=how.episodes,
        seed=how.seed,
        num_envs=min(how.episodes, 32),
        env_kwargs=run.env_kwargs,
        batch_size=min(how.episodes, 32),
        progress=False,
    )


def _record(records: Records, done: Refreshed) -> None:
    records.add("refresh", done.env_step, done.refit.to_dict())


def _about(parts: OnlineParts, records: Records, agent: SAC) -> dict[str, Any]:
    run = parts.run
    return {
        "env_id": run.env,
        "env_kwargs": plain(run.env_kwargs),
        "env_steps": agent.num_timesteps,
        "grad_steps": agent._n_updates,
        "update_ratio": run.update_ratio,
        "synthetic_ratio": run.synthetic_ratio,
        "seeds": {"agent": run.seed, "evaluation": parts.evaluation.seed},
        "evaluations": records.of("evaluation"),
        "refreshes": records.of("refresh"),
    }


def _made_by() -> dict[str, Any]:
    return {
        "commit": commit(),
        "versions": {**installed_versions(), "stable-baselines3": SB3_VERSION},
        "hardware": hardware(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _write(path: Path, text: str) -> None:
    torn = path.with_name(f".{path.name}.tmp")
    try:
        torn.write_text(text, encoding="utf-8")
        torn.replace(path)
    except OSError as error:
        torn.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}; choose another out=") from error
