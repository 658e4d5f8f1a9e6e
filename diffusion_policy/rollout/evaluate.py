"""One evaluator for every policy: episodes in a gymnasium environment, the same bit for bit for any num_envs.

Letters: E envs that run side by side in this process.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_policy.config import ObsSpec
from diffusion_policy.errors import ConfigError, RenderError
from diffusion_policy.policies.chunk import Array
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.environments import Env, check_fits, make_env, policy_observation, success_of
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.provenance import file_sha256, hardware
from diffusion_policy.rollout.result import EpisodeResult, EvalResult
from diffusion_policy.rollout.statistics import percentiles
from diffusion_policy.rollout.video import VideoGrid
from diffusion_policy.versions import installed_versions

__all__ = ["BATCH_SIZE", "EpisodeResult", "EvalResult", "EvaluationInterrupted", "evaluate"]

BATCH_SIZE = 32
"""Rows of every policy call of an evaluation, whatever E is; one number for comparable results."""


class EvaluationInterrupted(KeyboardInterrupt):
    """Ctrl-C during an evaluation.

    Attributes:
        partial: result of the first episodes, up to the first unfinished one (later ones that happened to end
            early would flatter it); None when the very first was not finished.
    """

    def __init__(self, partial: EvalResult | None) -> None:
        super().__init__(f"evaluation interrupted after {partial.episodes if partial else 0} episodes")
        self.partial = partial


@dataclass(frozen=True)
class _Plan:
    """What to evaluate: episode i of `episodes` runs with seed + i, in an environment made from id and kwargs."""

    env_id: str
    episodes: int
    seed: int
    env_kwargs: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.seed < 0:
            raise ConfigError(f"episodes must be >= 1 and seed >= 0, but got {self.episodes} and {self.seed}")


def evaluate(
    controller: RecedingHorizonController,
    env_id: str,
    *,
    episodes: int,
    seed: int,
    num_envs: int = 1,
    env_kwargs: Mapping[str, Any] | None = None,
    batch_size: int = BATCH_SIZE,
    film: VideoGrid | None = None,
    progress: bool = True,
) -> EvalResult:
    """Returns what the policy achieves in `episodes` episodes.

    Episode i uses seed + i for the environment and, in a stream of its own, for the policy's noise; every policy
    call has `batch_size` rows. So an episode does not depend on what runs beside it, and the result is the same
    for any `num_envs`, which only sets how many rows are of use. The controller is reset.

    Args:
        controller: the policy and its state; its `latencies_ms` are cleared first.
        env_id: e.g. "diffusion_policy_envs:PushT-v0".
        episodes: how many.
        seed: of the first; tune below 50000, report from 100000.
        num_envs: E, environments that run side by side.
        env_kwargs: arguments of the environment.
        batch_size: rows of every policy call; 1 is right for a slow policy on few cores.
        film: collects the first episodes; call its `save` afterwards.
        progress: shows a bar with ETA and the running mean.

    Raises:
        EnvironmentIdError: no such environment, or it refuses its arguments.
        ObservationError: the environment does not offer what the policy reads.
        ConfigError: the action does not fit, or a number is out of range.
        EvaluationInterrupted: Ctrl-C; holds the partial result.
    """
    plan = _Plan(env_id, episodes, seed, dict(env_kwargs or {}))
    if num_envs < 1 or batch_size < 1:
        raise ConfigError(f"num_envs and batch_size must be at least 1, but got {num_envs} and {batch_size}")
    finished: dict[int, EpisodeResult] = {}
    controller.latencies_ms.clear()
    with _batches_of(controller, batch_size), ExitStack() as envs:
        slots = []
        for _ in range(min(num_envs, episodes)):
            env = make_env(env_id, plan.env_kwargs, film_width=None if film is None else film.tile)
            envs.callback(env.close)
            slots.append(_Slot(env, controller.obs_spec, film))
        check_fits(slots[0].env, env_id, controller.obs_spec, controller.action_spec)
        if film is not None and film.fps is None:
            film.fps = float(slots[0].env.metadata.get("render_fps") or 10)
        try:
            with ProgressBar("evaluate", episodes, enabled=progress) as bar:
                for index, episode in _rollouts(controller, slots, plan):
                    finished[index] = episode
                    bar.update(len(finished), _running(finished))
        except KeyboardInterrupt as interrupt:
            prefix = {index: finished[index] for index in range(_first_gap(finished))}
            raise EvaluationInterrupted(_result(controller, plan, prefix) if prefix else None) from interrupt
        return _result(controller, plan, finished)


class _Slot:
    """One environment and the episode that runs in it."""

    def __init__(self, env: Env, obs_spec: ObsSpec, film: VideoGrid | None) -> None:
        self.env, self.obs_spec, self.film = env, obs_spec, film
        self.index: int | None = None
        self.seed = 0

    def begin(self, index: int, seed: int) -> None:
        self.index, self.seed = index, seed
        self.rewards: list[float] = []
        self.success: bool | None = None
        obs, _ = self.env.reset(seed=seed)
        self.obs = policy_observation(obs, self.obs_spec)
        self._film()

    def step(self, action: Array) -> EpisodeResult | None:
        """Returns the result if this step ended the episode; the slot is idle then."""
        assert self.index is not None  # only active slots are stepped
        obs, reward, terminated, truncated, info = self.env.step(action.astype(self.env.action_space.dtype))
        self.obs = policy_observation(obs, self.obs_spec)
        self.rewards.append(float(reward))
        said = success_of(info)
        if said is not None:
            self.success = said or bool(self.success)
        self._film()
        if not (terminated or truncated):
            return None
        if self.film is not None and self.film.wants(self.index):
            self.film.finish(self.index, self.success)
        self.index = None
        return EpisodeResult(
            seed=self.seed,
            episode_return=float(np.sum(self.rewards)),
            max_reward=max(self.rewards),
            success=self.success,
            length=len(self.rewards),
            terminated=bool(terminated),
            truncated=bool(truncated),
        )

    def _film(self) -> None:
        if self.film is None or self.index is None or not self.film.wants(self.index):
            return
        try:
            frame = self.env.render()
        except Exception as error:  # whatever a renderer dies of, the person who asked for a film can do without
            raise RenderError(f"the environment could not draw a frame: {error}; evaluate without a film") from error
        best = max(self.rewards, default=float("nan"))
        self.film.add(self.index, frame, seed=self.seed, max_reward=best)


def _rollouts(
    controller: RecedingHorizonController, slots: list[_Slot], plan: _Plan
) -> Iterator[tuple[int, EpisodeResult]]:
    """Yields (index, result) of every episode as it ends; a free slot takes the next one."""
    waiting = iter(range(len(slots), plan.episodes))
    for index, slot in enumerate(slots):
        slot.begin(index, plan.seed + index)
    controller.reset(seeds=[slot.seed for slot in slots])
    while any(slot.index is not None for slot in slots):
        active = _active(slots, controller.queued)
        obs = {key: np.stack([slot.obs[key] for slot in slots]) for key in controller.obs_spec}  # (E, *shape)
        actions = controller.act(obs, active=active)  # (E, *Da)
        for place in np.flatnonzero(active):
            slot = slots[place]
            running = slot.index
            episode = slot.step(actions[place])
            if episode is None or running is None:
                continue
            upcoming = next(waiting, None)
            if upcoming is not None:
                slot.begin(upcoming, plan.seed + upcoming)
                controller.reset(np.arange(len(slots)) == place, seeds=[each.seed for each in slots])
            yield running, episode


def _active(slots: list[_Slot], queued: Array) -> Array:
    """Returns (E,) bool, the slots to move now.

    Those with actions in their queue go on; the others wait, so that all predictions of a round fall into one
    call. In lock-step, episodes that end at different times would soon ask one by one, in padded batches.
    """
    live = np.array([slot.index is not None for slot in slots])
    ready = live & (queued > 0)
    return ready if ready.any() else live


@contextmanager
def _batches_of(controller: RecedingHorizonController, size: int) -> Iterator[None]:
    """Gives the controller another batch size for a while."""
    before, controller.batch_size = controller.batch_size, size
    try:
        yield
    finally:
        controller.batch_size = before


def _result(controller: RecedingHorizonController, plan: _Plan, finished: Mapping[int, EpisodeResult]) -> EvalResult:
    path = controller.path
    return EvalResult(
        env_id=plan.env_id,
        env_kwargs=plan.env_kwargs,
        seed=plan.seed,
        per_episode=[finished[index] for index in sorted(finished)],
        latency_ms={**percentiles(controller.latencies_ms), "batch_size": controller.batch_size},
        policy={"path": str(path) if path else None, "sha256": file_sha256(path) if path else None},
        versions=installed_versions(),
        hardware=hardware(),
    )


def _first_gap(finished: Mapping[int, EpisodeResult]) -> int:
    return next(index for index in range(len(finished) + 1) if index not in finished)


def _running(finished: Mapping[int, EpisodeResult]) -> str:
    rewards = np.mean([episode.max_reward for episode in finished.values()])
    said = [episode.success for episode in finished.values() if episode.success is not None]
    return f"max reward {rewards:.3f}" + (f" success {np.mean(said):.0%}" if said else "")
