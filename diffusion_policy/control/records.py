"""What a controller did: one action and what it rested on, and what became of its plans."""

from dataclasses import dataclass

from diffusion_policy.control.plan import Plan
from diffusion_policy.policies.chunk import Array, FloatArray


@dataclass
class PlanCounts:
    """What became of plans and ticks.

    Args:
        accepted: plans that arrived in time to be of use.
        expired: plans that arrived when all their actions were past.
        overtaken: plans that arrived after one that was asked for later: dropped.
        foreign: plans that were asked for in an episode before: dropped.
        skipped: actions that were past when their plan arrived, and were not sent.
        starved: ticks for which no plan had an action; the robot was held, or went to the safe action.
    """

    accepted: int = 0
    expired: int = 0
    overtaken: int = 0
    foreign: int = 0
    skipped: int = 0
    starved: int = 0


@dataclass(frozen=True, eq=False)
class Tick:
    """One action, and what it rests on.

    Args:
        time_s: of the action.
        action: (*Da), as sent.
        observed: {key: (*shape)}, the newest observation then; empty before the first.
        observed_s: its time; `time_s` before the first.
        plan: the newest one then.
        starved: whether no plan had an action.
        stopped: whether the rules of safety had stopped the robot.
        episode: counted from 0.
    """

    time_s: float
    action: FloatArray
    observed: dict[str, Array]
    observed_s: float
    plan: Plan | None
    starved: bool
    stopped: bool
    episode: int
