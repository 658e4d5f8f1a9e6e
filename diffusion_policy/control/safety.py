"""What a robot must never be told, and what happens instead: limits, rates, stale or strange observations.

Every rule has a reaction and a counter. For actions, `clip` sends the nearest permitted one, and `hold` keeps the robot
where it is: the last action again, or none where actions are changes (`kind: delta`). For observations, `hold` leaves
out what is strange: plans go on from what was seen before, until it is too old. `stop` goes to the safe action, no
faster than the rate permits, or holds where there is none, until somebody says `release`; a new episode does not.

Letters: Da the axes of one action.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from diffusion_policy.errors import ConfigError

OnAction = Literal["clip", "hold", "stop"]
OnInput = Literal["count", "hold", "stop"]


@dataclass(frozen=True, eq=False)
class SafetyConfig:
    """The rules. Numbers stand for all dimensions, sequences (*Da) for each.

    Args:
        low: least action permitted, in the action's unit; None: the action's own bound, if it has one. A robot that is
            said to stand beyond (`TimedController.reset(at=...)`) is brought back, no faster than its rate.
        high: greatest action permitted.
        rate: greatest change a second, in the action's unit; None: any. It counts from the last action, that of the
            episode before for the first, or from where `reset(at=...)` says that the robot is; after a pause it
            permits two steps' change at most.
        observed: {key: (low, high)} of observations seen in training, numbers or (*shape); other keys are not looked
            at. `policies.trained_ranges` reads them from a policy's normalisers.
        stale_s: age of the newest observation beyond which actions no longer rest on what is; None: plans that are
            there are carried out to their end.
        on_limit: where an action is beyond its limits.
        on_rate: where it changes too fast; `hold` lasts until what is wanted comes near again.
        on_range: where an observation is outside of what was seen in training; `count` only counts.
        on_nan: where an observation is not finite. It is never taken: the ones before stand.
        on_stale: where observations ceased to come.
        on_starved: where no plan has an action any more; before the first plan of an episode there is none to miss.
    """

    low: Any = None
    high: Any = None
    rate: Any = None
    observed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    stale_s: float | None = None
    on_limit: OnAction = "clip"
    on_rate: OnAction = "clip"
    on_range: OnInput = "count"
    on_nan: OnInput = "hold"
    on_stale: OnInput = "hold"
    on_starved: Literal["hold", "stop"] = "hold"

    def __post_init__(self) -> None:
        kinds = {"on_limit": ("clip",), "on_rate": ("clip",), "on_starved": ()}
        for name in ("on_limit", "on_rate", "on_range", "on_nan", "on_stale", "on_starved"):
            known = (*kinds.get(name, ("count",)), "hold", "stop")
            if getattr(self, name) not in known:
                raise ConfigError(f"safety.{name}: expected {', '.join(known)}, but got {getattr(self, name)!r}")
        if self.stale_s is not None and not self.stale_s > 0:
            raise ConfigError(f"safety.stale_s must be positive seconds, or None, but got {self.stale_s!r}")


@dataclass
class SafetyCounts:
    """How often each rule was broken.

    Args:
        limit: actions beyond their limits.
        rate: actions that changed too fast.
        range: observations outside of what was seen in training.
        nan: observations that were not finite.
        stale: actions for which observations had ceased to come.
        stopped: actions sent while stopped.
    """

    limit: int = 0
    rate: int = 0
    range: int = 0
    nan: int = 0
    stale: int = 0
    stopped: int = 0

    def to_dict(self) -> dict[str, int]:
        """Returns the counts by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}
