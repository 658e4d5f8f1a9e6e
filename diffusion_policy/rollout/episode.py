"""One episode after another in one environment: the same code in this process and in a worker.

Imports neither torch nor scipy: a worker starts in a fraction of a second and stays small.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.errors import RenderError
from diffusion_policy.film.picture import Picture
from diffusion_policy.policies.chunk import Array
from diffusion_policy.rollout.env_facts import actions_a_second, behavior_of, renderer_of, subgoals_of, success_of
from diffusion_policy.rollout.environments import check_fits, make_env, policy_observation


@dataclass(frozen=True)
class EpisodeResult:
    """One finished episode.

    Args:
        seed: of the environment's reset and of the policy's noise.
        episode_return: sum of rewards ("return" in files).
        max_reward: the best reward of any step.
        success: whether `info` said so at any step; None where the environment does not say.
        length: env steps.
        terminated: the task ended it.
        truncated: the time limit did.
        behavior: which of several ways it went; None where the environment does not say.
        subgoals: which parts of the task were reached at any step; empty where the environment names none.
    """

    seed: int
    episode_return: float
    max_reward: float
    success: bool | None
    length: int
    terminated: bool
    truncated: bool
    behavior: str | None = None
    subgoals: Mapping[str, bool] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the entry of eval.json, also a row of episodes.csv."""
        entry: dict[str, Any] = {
            "seed": self.seed,
            "return": self.episode_return,
            "max_reward": self.max_reward,
            "success": self.success,
            "length": self.length,
            "terminated": self.terminated,
            "truncated": self.truncated,
        }
        if self.behavior is not None:
            entry["behavior"] = self.behavior
        return entry | {f"subgoal_{name}": done for name, done in self.subgoals.items()}


@dataclass(frozen=True)
class Begin:
    """The command to begin an episode.

    Args:
        seed: of the environment's reset.
        filmed: whether every moment of it needs a picture.
    """

    seed: int
    filmed: bool = False


Command = Begin | Array
"""What a slot is told: to begin an episode, or actions (N, *Da) for the one that runs, in their order."""


@dataclass(frozen=True, eq=False)
class Moment:
    """What came of one action, or of `Begin`.

    Args:
        obs: {key: (*shape)}, what the policy reads.
        length: env steps since the episode began: 0 for the answer to `Begin`, and only for that.
        best: reward so far, NaN before the first step.
        picture: of a filmed episode.
        result: of an episode that ended with this step.
    """

    obs: dict[str, Any]
    length: int
    best: float
    picture: Picture | None
    result: EpisodeResult | None


@dataclass(frozen=True)
class EnvFacts:
    """What an evaluation needs to know about its environments.

    Args:
        renderer: what draws the pictures that the policy reads; None if it reads none or the environment does not say.
        fps: the environment's own frame rate, None where it has none.
        behaviors: the ways in which an episode can go, all equally good; empty where the environment names none.
    """

    renderer: str | None
    fps: float | None
    behaviors: tuple[str, ...] = ()


@dataclass(frozen=True)
class SlotSetup:
    """What every environment of an evaluation is made from.

    Args:
        env_id: e.g. "diffusion_policy_envs:PushT-v0".
        env_kwargs: arguments of the environment.
        obs_spec: what the policy reads.
        action_spec: what the policy sends.
        tile: width of pictures for a film, in pixels; None for an evaluation without one.
    """

    env_id: str
    env_kwargs: Mapping[str, Any]
    obs_spec: ObsSpec
    action_spec: ActionSpec
    tile: int | None = None


class EpisodeSlot:
    """One environment and the episode that runs in it.

    Raises:
        EnvironmentIdError: no such environment, or it refuses its arguments.
        ObservationError: it does not offer what the policy reads.
        ConfigError: it does not take what the policy sends.
    """

    def __init__(self, setup: SlotSetup) -> None:
        self._setup = setup
        self._env = make_env(setup.env_id, setup.env_kwargs, film_width=setup.tile)
        try:
            check_fits(self._env, setup.env_id, setup.obs_spec, setup.action_spec)
        except BaseException:
            self._env.close()
            raise
        self._seed, self._filmed = 0, False
        self._rewards: list[float] = []
        self._success: bool | None = None
        self._behavior: str | None = None
        self._subgoals: dict[str, bool] = {}

    @property
    def facts(self) -> EnvFacts:
        """What there is to know about the environment."""
        behaviors = tuple(map(str, getattr(self._env.unwrapped, "behaviors", ())))
        return EnvFacts(renderer_of(self._env, self._setup.obs_spec), actions_a_second(self._env), behaviors)

    def obey(self, command: Command) -> Iterator[Moment]:
        """Yields what comes of a command, step by step; actions beyond the end of the episode are not executed.

        Raises:
            RenderError: a filmed episode cannot be drawn.
        """
        if isinstance(command, Begin):
            yield self._begin(command)
            return
        for action in command:
            moment = self._step(action)
            yield moment
            if moment.result is not None:
                return

    def describe(self) -> str:
        """Returns where the slot is, for messages."""
        return f"{self._setup.env_id}, step {len(self._rewards)} of the episode with seed {self._seed},"

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _begin(self, command: Begin) -> Moment:
        self._seed, self._filmed = command.seed, command.filmed
        self._rewards, self._success, self._behavior, self._subgoals = [], None, None, {}
        obs, _info = self._env.reset(seed=command.seed)
        return self._moment(obs, None)

    def _step(self, action: Array) -> Moment:
        obs, reward, terminated, truncated, info = self._env.step(action.astype(self._env.action_space.dtype))
        self._rewards.append(float(reward))
        said = success_of(info)
        if said is not None:
            self._success = said or bool(self._success)
        self._behavior = behavior_of(info) or self._behavior
        self._subgoals |= {name: done or self._subgoals.get(name, False) for name, done in subgoals_of(info).items()}
        result = self._result(bool(terminated), bool(truncated)) if terminated or truncated else None
        return self._moment(obs, result)

    def _result(self, terminated: bool, truncated: bool) -> EpisodeResult:
        return EpisodeResult(
            seed=self._seed,
            episode_return=float(np.sum(self._rewards)),
            max_reward=max(self._rewards),
            success=self._success,
            length=len(self._rewards),
            terminated=terminated,
            truncated=truncated,
            behavior=self._behavior,
            subgoals=dict(self._subgoals),
        )

    def _moment(self, obs: Any, result: EpisodeResult | None) -> Moment:
        seen = policy_observation(obs, self._setup.obs_spec)
        best = max(self._rewards, default=float("nan"))
        return Moment(seen, len(self._rewards), best, self._picture(), result)

    def _picture(self) -> Picture | None:
        if self._setup.tile is None or not self._filmed:
            return None
        try:
            frame = self._env.render()
        except Exception as error:  # whatever a renderer dies of, the person who asked for a film can do without
            raise RenderError(f"the environment could not draw a frame: {error}; evaluate without a film") from error
        return Picture.of(frame, self._setup.tile)
