"""One evaluator for every policy: episodes in a gymnasium environment, the same bit for bit for any num_envs.

Letters: E envs that run side by side, in this process or in workers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from diffusion_policy.errors import ConfigError, DiffusionPolicyError
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.policies.chunk import ChunkPolicy
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.env_facts import check_renderer
from diffusion_policy.rollout.episode import EpisodeResult, SlotSetup
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.provenance import hardware, policy_facts
from diffusion_policy.rollout.result import EvalResult
from diffusion_policy.rollout.rollouts import Plan, Rollouts
from diffusion_policy.rollout.slots import LocalSlots, Slots
from diffusion_policy.rollout.statistics import percentiles
from diffusion_policy.rollout.timed_rollouts import TimedRollouts
from diffusion_policy.rollout.timing import Timing, summary
from diffusion_policy.rollout.workers import WorkerSlots
from diffusion_policy.versions import installed_versions

__all__ = ["BATCH_SIZE", "EpisodeResult", "EvalResult", "EvaluationInterrupted", "evaluate"]

BATCH_SIZE = 32
"""Rows of every policy call of an evaluation, whatever E is; one number for comparable results."""


class EvaluationInterrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation.

    Attributes:
        partial: result of the first episodes, up to the first unfinished one; None when that was the very first.
    """

    def __init__(self, partial: EvalResult | None) -> None:
        super().__init__(f"evaluation interrupted after {partial.episodes if partial else 0} episodes")
        self.partial = partial


def evaluate(
    controller: RecedingHorizonController | ChunkPolicy,
    env_id: str,
    *,
    episodes: int,
    seed: int,
    num_envs: int = 1,
    env_kwargs: Mapping[str, Any] | None = None,
    batch_size: int = BATCH_SIZE,
    film: VideoGrid | None = None,
    progress: bool = True,
    workers: int = 0,
    worker_timeout_s: float = 60.0,
    plugins: str | Sequence[str] = (),
    timing: Timing | None = None,
) -> EvalResult:
    """Returns what the policy achieves in `episodes` episodes.

    Episode i uses seed + i for the environment and, in a stream of its own, for the policy's noise; every policy
    call has `batch_size` rows. So an episode does not depend on what runs beside it, and the result is the same
    for any `num_envs`, which only sets how many rows are of use, and for any `workers`. The controller is reset.

    Workers pay where observations are drawn. They are spawned: a script that uses them keeps its own work below
    `if __name__ == "__main__":`. One that dies or hangs is replaced; its episodes run again, with the same result.

    Args:
        controller: the policy and its state, whose `latencies_ms` are cleared first; or a policy alone.
        env_id: e.g. "diffusion_policy_envs:PushT-v0".
        episodes: how many.
        seed: of the first; tune below 50000, report from 100000.
        num_envs: E, environments that run side by side.
        env_kwargs: arguments of the environment.
        batch_size: rows of every policy call; 1 is right for a slow policy on few cores.
        film: collects the first episodes; call its `save` afterwards.
        progress: shows a bar with ETA and the running mean.
        workers: processes over which the environments are spread; 0 for none beside this one.
        worker_timeout_s: seconds for one step or reset in a worker, after which it counts as hung; its start may take
            minutes longer.
        plugins: modules that every worker imports first, e.g. those that register environments.
        timing: lets the environment go on while the policy plans; None waits for it, as in lock-step.

    Raises:
        EnvironmentIdError: no such environment, or it refuses its arguments.
        ObservationError: the environment does not offer what the policy reads, or draws it with another renderer.
        ConfigError: the action does not fit, or a number is out of range.
        EnvironmentFailedError: an environment raised.
        WorkerError: likewise in a worker, or its workers died again and again.
        EvaluationInterrupted: Ctrl-C. This one, and all that end an evaluation under way, hold what is finished of it:
            `partial`, the result of the first episodes up to the first unfinished one.
    """
    if not isinstance(controller, RecedingHorizonController):
        controller = RecedingHorizonController(controller)
    plan = Plan(env_id, episodes, seed, dict(env_kwargs or {}))
    if num_envs < 1 or batch_size < 1:
        raise ConfigError(f"num_envs and batch_size must be at least 1, but got {num_envs} and {batch_size}")
    finished: dict[int, EpisodeResult] = {}
    controller.latencies_ms.clear()
    setup = SlotSetup(env_id, plan.env_kwargs, controller.obs_spec, controller.action_spec, film.tile if film else None)
    size = min(num_envs, episodes)
    with _batches_of(controller, batch_size), closing(_open(setup, size, workers, worker_timeout_s, plugins)) as slots:
        check_renderer(env_id, _learned_renderer(controller.policy), slots.facts.renderer)
        if film is not None and film.fps is None:
            film.fps = slots.facts.fps or 10.0
        rollouts = _rollouts(controller, slots, size, plan, film, timing)
        try:
            with ProgressBar("evaluate", episodes, enabled=progress) as bar:
                for index, episode in rollouts.run():
                    finished[index] = episode
                    bar.update(len(finished), _running(finished))
        except KeyboardInterrupt as interrupt:
            raise EvaluationInterrupted(_partial(controller, plan, finished, rollouts)) from interrupt
        except DiffusionPolicyError as error:
            error.partial = _partial(controller, plan, finished, rollouts)
            raise
        return _result(controller, plan, finished, rollouts)


def _rollouts(
    controller: RecedingHorizonController, slots: Slots, size: int, plan: Plan, film: VideoGrid | None,
    timing: Timing | None,
) -> Rollouts | TimedRollouts:  # fmt: skip
    """Returns the loop over episodes: lock-step, or with plans that take time."""
    if timing is None:
        return Rollouts(controller, slots, size, plan, film)
    if film is not None and film.overlay is not None:
        raise ConfigError("overlay=true shows what lock-step control would sample; leave it out, or the latency")
    timing.strategy.check(controller.policy.horizons)
    return TimedRollouts(controller.policy, slots, size, plan, film, timing, controller.batch_size or BATCH_SIZE)


def _open(setup: SlotSetup, size: int, workers: int, timeout_s: float, plugins: str | Sequence[str]) -> Slots:
    """Returns the slots, here or in workers."""
    if workers < 0 or not timeout_s > 0:
        raise ConfigError(f"workers must be >= 0 and worker_timeout_s > 0, but got {workers} and {timeout_s}")
    if workers == 0:
        return LocalSlots(setup, size)
    return WorkerSlots(setup, size, workers=workers, timeout_s=timeout_s, plugins=plugins)


@contextmanager
def _batches_of(controller: RecedingHorizonController, size: int) -> Iterator[None]:
    """Gives the controller another batch size for a while."""
    before, controller.batch_size = controller.batch_size, size
    try:
        yield
    finally:
        controller.batch_size = before


def _learned_renderer(policy: object) -> str | None:
    """Returns what drew the pictures that a policy learned from, None where nobody knows."""
    env = getattr(getattr(policy, "info", None), "env", None)
    renderer = env.get("renderer") if isinstance(env, Mapping) else None
    return None if renderer is None else str(renderer)


def _result(
    controller: RecedingHorizonController,
    plan: Plan,
    finished: Mapping[int, EpisodeResult],
    rollouts: Rollouts | TimedRollouts,
) -> EvalResult:
    return EvalResult(
        env_id=plan.env_id,
        env_kwargs=plan.env_kwargs,
        seed=plan.seed,
        requested=plan.episodes,
        per_episode=[finished[index] for index in sorted(finished)],
        latency_ms={**percentiles(rollouts.latencies_ms), "batch_size": controller.batch_size},
        policy=policy_facts(controller.policy, controller.path),
        versions=installed_versions(),
        hardware=hardware(),
        speed=rollouts.speed(),
        behaviors=rollouts.behaviors,
        timing=_timing(rollouts, sorted(finished)),
    )


def _timing(rollouts: Rollouts | TimedRollouts, indices: Sequence[int]) -> dict[str, Any]:
    """Returns what `EvalResult.timing` says."""
    if not isinstance(rollouts, TimedRollouts):
        return {}
    return {**rollouts.timing.to_dict(), **summary([rollouts.smoothness[index] for index in indices])}


def _partial(
    controller: RecedingHorizonController,
    plan: Plan,
    finished: Mapping[int, EpisodeResult],
    rollouts: Rollouts | TimedRollouts,
) -> EvalResult | None:
    """Returns the result of the first episodes, up to the first unfinished one; None when that is the very first.

    Later ones that happened to end early would flatter it.
    """
    gap = next(index for index in range(len(finished) + 1) if index not in finished)
    return _result(controller, plan, {index: finished[index] for index in range(gap)}, rollouts) if gap else None


def _running(finished: Mapping[int, EpisodeResult]) -> str:
    rewards = np.mean([episode.max_reward for episode in finished.values()])
    said = [episode.success for episode in finished.values() if episode.success is not None]
    return f"max reward {rewards:.3f}" + (f" success {np.mean(said):.0%}" if said else "")
