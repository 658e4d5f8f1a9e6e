"""What is known of an episode: what was observed, planned and sent; and the questions for plans from it."""

import numpy as np

from diffusion_policy.control.history import ObservationHistory, checked_time
from diffusion_policy.control.plan import Plan, PlanRequest
from diffusion_policy.control.running import RunningPlans
from diffusion_policy.control.sent import Sent
from diffusion_policy.control.strategies import Strategy
from diffusion_policy.errors import ObservationError
from diffusion_policy.policies.chunk import ChunkPolicy, FloatArray
from diffusion_policy.policies.episode_slots import noise_generator


class Episode:
    """An episode of one robot, for a controller that sees to it that one thread at a time is here.

    Args:
        policy: what plans.
        strategy: how plans follow each other.
        step_s: seconds from one action to the next.
        seed: fixes all the noise; None draws fresh entropy.
        here: (*Da), the action that leaves the robot where it is; None where nobody knows.
        before: the episode before, None for the first.

    Attributes:
        number: from 0.
        history: the observations.
        plans: those that have actions to come.
        sent: the last action.
    """

    def __init__(
        self,
        policy: ChunkPolicy,
        strategy: Strategy,
        step_s: float,
        *,
        seed: int | None,
        here: FloatArray | None,
        before: "Episode | None",
    ) -> None:
        self.number: int = 0 if before is None else before.number + 1
        self.history = ObservationHistory(policy.obs_spec, policy.horizons.obs_horizon, step_s)
        self.plans: RunningPlans = RunningPlans(step_s, None if before is None else before.plans.slow)
        self.sent = Sent(step_s, here)
        self._policy, self._strategy, self._step_s = policy, strategy, step_s
        self._generator = noise_generator(seed)

    @property
    def waits(self) -> bool:
        """Whether the robot stands still for the first plan: nothing was sent, and there is none."""
        return self.plans.newest is None and not self.sent.anything

    def is_due(self, time_s: float) -> bool:
        """Whether the strategy wants a plan: there is an observation, newer than the last plan's by its interval."""
        newest = self.history.newest(checked_time(time_s))
        return newest is not None and self._strategy.is_due(self.plans.asked_s, newest[0], self._step_s)

    def request(self, time_s: float) -> PlanRequest:
        """Returns the question for a plan from what is known at a time.

        Raises:
            ObservationError: nothing was observed until then, or the time is no number.
        """
        newest = self.history.newest(checked_time(time_s))
        window = None if newest is None else self.history.window(newest[0])
        if newest is None or window is None:
            raise ObservationError(f"nothing was observed until {time_s:g} s; call observe(obs, time_s) first")
        self.plans.asked_s = observed_s = newest[0]
        noise = self._generator.standard_normal(self._policy.noise_shape, dtype=np.float32)
        known = self._strategy.known(self.plans.all(), observed_s, self._policy.horizons)
        if known is not None:
            known = self.sent.as_executed(known, observed_s, self._policy.horizons.start)
        return PlanRequest(observed_s, window, noise, known, self.number)

    def coming(self, time_s: float, most: int) -> Plan | None:
        """Returns what the strategy wants now and later if no other plan arrives; None where that is nothing.

        Args:
            time_s: now; the first action is for the step of the newest plan that runs now. The later ones are those of
                the same moment in later steps, since plans of other phases may have a say.
            most: actions at most.
        """
        newest, plans, found = self.plans.newest, self.plans.all(), list[FloatArray]()
        if newest is None:
            return None
        for number in range(most):
            action = self._strategy.action(plans, time_s + number * self._step_s)
            if action is None:
                break
            found.append(action)
        begun_s = newest.start_s + newest.index(time_s) * self._step_s
        return Plan(begun_s, self._step_s, np.stack(found), time_s, newest.observed_s) if found else None
