"""What an evaluation found, episode by episode and in sum, and how it is kept: eval.json and episodes.csv."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_policy.errors import StorageError
from diffusion_policy.rollout.behavior import behavior_summary, subgoal_summary
from diffusion_policy.rollout.episode import EpisodeResult
from diffusion_policy.rollout.reference_scores import LABEL, normalized_score
from diffusion_policy.rollout.statistics import Estimate, bootstrap_mean, wilson_rate


@dataclass(frozen=True)
class EvalResult:
    """An evaluation: `episodes` episodes with seeds seed, seed + 1, ...

    Args:
        env_id: as given, with its package.
        env_kwargs: as given.
        seed: of the first episode.
        requested: how many episodes there were to be; fewer are here when the evaluation was cut short.
        per_episode: in the order of their seeds, at least one.
        latency_ms: p50, p95, p99 of a policy call, and the batch_size it was for.
        policy: path and sha256 of the file, None each for a policy that came from memory; the engine that computed it,
            and how it was asked to sample.
        versions: of the packages.
        hardware: what computed it.
        speed: env_steps_per_second of all environments together, and policy_share, the part of the time in which the
            policy computed; the rest went into the environments. Empty when it was not measured.
        behaviors: the ways that the environment knows, all equally good.
        timing: how planning took time, and how smooth the actions were; empty in lock-step. See `rollout.timing`.
        safety: how many episodes the rules of safety stopped, and their seeds; empty where there are no such rules.
    """

    env_id: str
    env_kwargs: Mapping[str, Any]
    seed: int
    requested: int
    per_episode: Sequence[EpisodeResult]
    latency_ms: Mapping[str, float | int | None]
    policy: Mapping[str, Any]
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    speed: Mapping[str, float] = field(default_factory=dict)
    behaviors: Sequence[str] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)
    safety: Mapping[str, Any] = field(default_factory=dict)
    max_reward: Estimate = field(init=False)
    episode_return: Estimate = field(init=False)
    success_rate: Estimate | None = field(init=False)
    behavior: Mapping[str, Any] = field(init=False)
    subgoals: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        said = [episode.success for episode in self.per_episode]
        rate = None if all(success is None for success in said) else wilson_rate([bool(success) for success in said])
        object.__setattr__(self, "max_reward", bootstrap_mean([each.max_reward for each in self.per_episode]))
        object.__setattr__(self, "episode_return", bootstrap_mean([each.episode_return for each in self.per_episode]))
        object.__setattr__(self, "success_rate", rate)
        object.__setattr__(self, "behavior", behavior_summary(self.per_episode, self.behaviors))
        object.__setattr__(self, "subgoals", subgoal_summary(self.per_episode))

    @property
    def episodes(self) -> int:
        """How many there were."""
        return len(self.per_episode)

    @property
    def normalized(self) -> Estimate | None:
        """The mean return on D4RL's scale; None for an environment that is not on it."""
        numbers = (self.episode_return.mean, *self.episode_return.ci95)
        scores = [score for number in numbers if (score := normalized_score(self.env_id, number)) is not None]
        return Estimate(scores[0], (scores[1], scores[2])) if scores else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of eval.json."""
        return {
            "env_id": self.env_id,
            "env_kwargs": dict(self.env_kwargs),
            "episodes": self.episodes,
            "requested": self.requested,
            "seed": self.seed,
            "max_reward": self.max_reward.to_dict(),
            "success_rate": self.success_rate.to_dict() if self.success_rate else None,
            "return": self.episode_return.to_dict(),
            **({"normalized_return": {"label": LABEL, **self.normalized.to_dict()}} if self.normalized else {}),
            **({"behavior": dict(self.behavior)} if self.behavior else {}),
            **({"subgoals": dict(self.subgoals)} if self.subgoals else {}),
            **({"timing": dict(self.timing)} if self.timing else {}),
            **({"safety": dict(self.safety)} if self.safety else {}),
            "latency_ms": dict(self.latency_ms),
            "speed": dict(self.speed),
            "per_episode": [episode.to_dict() for episode in self.per_episode],
            "policy": dict(self.policy),
            "versions": dict(self.versions),
            "hardware": dict(self.hardware),
        }

    def speed_summary(self) -> str:
        """Returns how fast it was and what limited it, in one line for people."""
        if not self.speed:
            return "not measured"
        share = self.speed["policy_share"]
        return f"{self.speed['env_steps_per_second']:.0f} env steps/s; {share:.0%} of the time in the policy"

    def to_json(self, path: str | Path) -> None:
        """Writes eval.json.

        Raises:
            StorageError: it could not be written; an older file is intact.
        """
        _write(Path(path), json.dumps(self.to_dict(), indent=2, default=str) + "\n")

    def to_csv(self, path: str | Path) -> None:
        """Writes episodes.csv, one row an episode.

        Raises:
            StorageError: it could not be written; an older file is intact.
        """
        rows = [episode.to_dict() for episode in self.per_episode]
        names = list(dict.fromkeys(name for row in rows for name in row))  # an unfinished way has no behavior
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        _write(Path(path), text.getvalue())

    def summary(self) -> str:
        """Returns one line for people."""

        def shown(name: str, estimate: Estimate) -> str:
            low, high = estimate.ci95
            return f"{name} {estimate.mean:.3f} [{low:.3f}, {high:.3f}]"

        of_all = "" if self.episodes == self.requested else f" of {self.requested}, cut short"
        parts = [f"{self.episodes} episodes{of_all}", shown("max reward", self.max_reward)]
        if self.success_rate is not None:
            parts.append(shown("success", self.success_rate))
        else:
            parts.append("success not measured (info has neither is_success nor success)")
        parts.append(shown("return", self.episode_return))
        if self.normalized:
            low, high = self.normalized.ci95
            parts.append(f"normalised return {self.normalized.mean:.1f} [{low:.1f}, {high:.1f}] ({LABEL})")
        if self.behavior:
            counts = self.behavior["counts"]
            used = sum(count > 0 for count in counts.values())
            parts.append(f"{used} of {len(counts)} behaviors, entropy {self.behavior['entropy']:.2f}")
        if self.subgoals:
            rates = (f"{name} {rate['mean']:.2f}" for name, rate in self.subgoals["each"].items())
            parts.append(f"subgoals {' '.join(rates)}")
        return ", ".join(parts)


def _write(path: Path, text: str) -> None:
    """Writes all of the text or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)  # noqa: PTH105  one step on every platform
    except OSError as error:
        with suppress(OSError):  # a second failure must not hide the first
            partial.unlink(missing_ok=True)
        raise StorageError(f"could not write {path}: {error}; free some space or choose another place") from error
