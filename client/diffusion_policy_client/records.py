"""What a robot's client did: its ticks, and what became of its connections."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class RemoteCounts:
    """What became of ticks and connections.

    Args:
        answered: ticks that the server answered in time.
        ahead: ticks that it did not, for which an earlier answer had said what to do.
        held: other ticks that it did not: the robot was held, or went to the safe action.
        late: answers to ticks and plans that came when nobody waited any more: of those to ticks, only what they say
            of later ticks and of stops is taken.
        lost: connections that ended.
        reconnected: connections that were made anew.
        unsent: observations that were not sent: there was no connection, or newer ones came before it was free.
        refused: observations that the server did not take; `RemoteController.refused` says why.
    """

    answered: int = 0
    ahead: int = 0
    held: int = 0
    late: int = 0
    lost: int = 0
    reconnected: int = 0
    unsent: int = 0
    refused: int = 0


@dataclass(frozen=True, eq=False)
class Tick:
    """One action, and what it rests on.

    Args:
        time_s: of the action.
        action: (*Da), to be sent.
        held: whether the server did not answer in time, and this client decided.
        observed_s: time of the newest observation that the server had when it said the action; None before the first,
            and where it is silent.
        plan_start_s: time for which the newest plan's first action was; likewise.
        starved: whether no plan had an action.
        stopped: why nothing but the safe action is sent, None while all is well.
        ahead: whether the server did not answer in time, and this is what it had said before that would come.
    """

    time_s: float
    action: NDArray[np.float32]
    held: bool
    observed_s: float | None
    plan_start_s: float | None
    starved: bool
    stopped: str | None
    ahead: bool = False
