"""One client's side of the server: a controller of its own, and what its messages do to it. Knows no sockets.

Letters: Da the axes of one action.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffusion_policy.control.plan import PlanRequest
from diffusion_policy.control.sent import LONGEST_STEPS
from diffusion_policy.errors import ConfigError, DiffusionPolicyError, ObservationError
from diffusion_policy.policies.chunk import Array, FloatArray
from diffusion_policy.serving.offer import Offer, action_schema, agree, client_name
from diffusion_policy.serving.protocol import MOST_SAID, PROTOCOL, ProtocolError, array, mapping, number, text, whole
from diffusion_policy.settings import plain

_KEPT_BYTES = 16 * 2**20
"""Of observations since the robot last told its time: more, and old ones are let go."""
_FEWEST, _MOST = 16, 4096
"""Observations of these, whatever their size."""


class Session:
    """A client that was admitted, and its controller.

    All its methods are called from one thread; plans are made elsewhere, between `question` and `answered`.

    Args:
        offer: what the server offers.
        hello: the client's first message.

    Attributes:
        name: what the client calls itself.
        controller: the client's own.
        strategy: its name.
        plans_by_itself: whether the server plans as the strategy wants.
        failed: why no plan can be made any more, None while all is well.

    Raises:
        RefusedError: the client takes other things for granted.
        ProtocolError: the message is no hello.
    """

    def __init__(self, offer: Offer, hello: Mapping[str, Any]) -> None:
        agree(offer, hello)
        self.name = client_name(hello)
        self.controller = offer.controller()
        self.strategy = type(offer.strategy).__name__
        self.plans_by_itself = hello["planning"] == "auto"
        self.failed: str | None = None
        self._offer = offer
        self._now = -np.inf  # the robot's clock, as far as ticks and plans have told
        self._keeps = min(_MOST, max(_FEWEST, _KEPT_BYTES // max(1, offer.observation_bytes)))
        self._untimed: deque[float] = deque(maxlen=self._keeps)  # times of what was observed since
        self._tasks: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | None]] = {
            "observe": self._observe,
            "tick": self._tick,
            "reset": self._reset,
            "release": self._release,
        }

    def welcome(self) -> dict[str, Any]:
        """Returns the answer to hello."""
        offer, guard = self._offer, self.controller.guard
        return {
            "type": "welcome",
            "protocol": PROTOCOL,
            "obs": offer.obs(),
            "action": action_schema(offer.policy.action_spec),
            "horizons": plain(offer.policy.horizons),
            "step_s": offer.step_s,
            "limits": {
                "low": guard.low, "high": guard.high, "rate": guard.rate, "elapsed_s": LONGEST_STEPS * offer.step_s,
            },
            "safe_action": offer.safe_action,
            **offer.about,
        }  # fmt: skip

    def take(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """Does what a message says; returns the answer, None where it has none.

        `plan` is not among them, since it takes time: see `question`.

        Raises:
            ProtocolError: the message is none of this protocol.
        """
        task = self._tasks.get(message["type"])
        if task is None:
            raise ProtocolError(f"expected {', '.join(self._tasks)} or plan, but got type {message['type'][:40]!r}")
        return self._tried(message, task)

    def ahead(self, answer: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Returns what is told behind an answer, None where nothing is: after an action, what will be wanted next.

        Args:
            answer: the last one of `take`.
        """
        if answer is None or answer["type"] != "action":
            return None
        coming = self.controller.ahead(MOST_SAID)
        return {
            "type": "ahead",
            "of": answer["id"],
            **{name: answer[name] for name in ("time_s", "observed_s", "plan_start_s")},
            "next_s": None if coming is None else coming.start_s,
            "next": None if coming is None else coming.actions,
        }

    def is_due(self) -> bool:
        """Whether a plan is to be made without being asked for."""
        wanted = self.plans_by_itself and self.failed is None and np.isfinite(self._now)
        return wanted and self.controller.is_due(self._now)

    def question(self, asked: Mapping[str, Any] | None = None) -> PlanRequest:
        """Returns the question for a plan from what is known now.

        Args:
            asked: a `plan` message; None for one that is due.

        Raises:
            ObservationError: nothing was observed yet.
            ProtocolError: the message has no time.
        """
        return self.controller.request(self._now if asked is None else self._advanced(asked))

    def answered(self, request: PlanRequest, prediction: FloatArray) -> None:
        """Takes the answer to a question, at the latest time that the client has told.

        An episode's first plan, for which the robot waits, begins with the tick after it, however long it took.

        Raises:
            CheckpointError: the answer has another shape, or is not finite.
        """
        known = np.isfinite(self._now) and not self.controller.waits  # where it was reset meanwhile, it is dropped
        self.controller.accept(request, prediction, self._now if known else None)

    def failure(self, asked: Mapping[str, Any] | None, error: Exception, episode: int) -> dict[str, Any] | None:
        """Returns what a client is told about a plan that could not be made; without a question, its next ticks tell.

        No further plan is tried by itself then, until a new episode.

        Args:
            asked: a `plan` message; None for one that was due.
            error: why there is none.
            episode: for which it was to be; what fails for an earlier one is no matter of this one.
        """
        said = f"no plan could be made: {error or type(error).__name__}"[:1000]
        if asked is None:
            if episode == self.controller.episode:
                self.failed = said
            return None
        return refusal(asked["id"], "observation" if isinstance(error, ObservationError) else "policy", said)

    def _tried(
        self, message: Mapping[str, Any], task: Callable[[Mapping[str, Any]], dict[str, Any] | None]
    ) -> dict[str, Any] | None:
        number_of = whole(message, "id") if message["type"] != "observe" else None
        try:
            answer = task(message)
        except DiffusionPolicyError as error:
            return refusal(number_of, "config" if isinstance(error, ConfigError) else "observation", str(error))
        return None if answer is None else {**answer, "id": number_of}

    def _advanced(self, message: Mapping[str, Any]) -> float:
        now = number(message, "time_s")
        self._now = max(self._now, now)
        self._untimed.clear()
        return now

    def _observe(self, message: Mapping[str, Any]) -> None:
        obs = mapping(message, "obs")
        for key, value in obs.items():
            if not isinstance(value, np.ndarray):
                raise ProtocolError(f"observe.obs.{key[:40]}: expected an array, but got {type(value).__name__}")
        time_s = number(message, "time_s")  # a sensor's stamp: what time it is, only the robot tells
        self.controller.observe(obs, time_s)
        self._untimed.append(time_s)
        if len(self._untimed) == self._keeps < len(self.controller.history):
            self._let_go()

    def _let_go(self) -> None:
        """Lets the controller forget what is old, though the robot does not tell its time: memory must not grow.

        It is later than half of the observations say, then: a few wrong stamps do not make it so.
        """
        self.controller.history.newest(float(np.median(self._untimed)))
        self._untimed.clear()

    def _tick(self, message: Mapping[str, Any]) -> dict[str, Any]:
        sent = array(message, "sent")
        if sent is not None:
            self.controller.sent_instead(_action(sent), number(message, "sent_s"))
        self._stop(text(message, "stopped"))
        tick = self.controller.tick(self._advanced(message))
        return {
            "type": "action",
            "time_s": tick.time_s,
            "action": tick.action,
            "observed_s": tick.observed_s if tick.observed else None,
            "plan_start_s": None if tick.plan is None else tick.plan.start_s,
            "starved": bool(tick.starved),
            "stopped": self.controller.guard.stopped,
            "failed": self.failed,
            "slow": self.controller.slow,
        }

    def _reset(self, message: Mapping[str, Any]) -> dict[str, Any]:
        seed, at, moved = message.get("seed"), array(message, "at"), message.get("moved")
        if not isinstance(moved, (bool, type(None))):
            raise ProtocolError("reset.moved: expected true, false or nothing, but got something else")
        if seed is not None:
            seed = whole(message, "seed")
        self._stop(text(message, "stopped"))  # holds, whatever the rest of it does
        self.controller.reset(seed, None if at is None else _action(at), moved=bool(moved))
        self._now, self.failed = -np.inf, None
        self._untimed.clear()
        return {"type": "done"}

    def _stop(self, why: str | None) -> None:
        if why is not None and self.controller.guard.stopped is None:
            self.controller.guard.stopped = why[:200]

    def _release(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self.controller.guard.release()
        return {"type": "done"}


def _action(said: Array) -> FloatArray:
    """Returns an array as an action is kept; what is too large becomes infinite, and is refused as such."""
    with np.errstate(over="ignore", invalid="ignore"):
        return said.astype(np.float32)


def refusal(number_of: int | None, kind: str, said: str) -> dict[str, Any]:
    """Returns the message that something is not possible."""
    return {"type": "error", "id": number_of, "kind": kind, "message": said[:1000]}
