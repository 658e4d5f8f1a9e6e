"""What ran on a robot, as a data set of this package: it opens in dp-inspect, and is training data.

Letters: T ticks of an episode, N actions of a plan, Da the axes of one action.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from diffusion_policy.control.timed import TimedController
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.chunk import Array, FloatArray

OWN_KEYS = ("action", "time_s", "observed_s", "plan", "plan_start_s", "planned", "starved", "stopped", "success")
"""What a row holds beside the observation."""


class Recorder:
    """Records a controller's ticks into a zarr; an episode is there as a whole once it ended, or not at all.

    Each tick is a row: the newest observation under its own names, `action` as sent, `time_s` of the tick and
    `observed_s` of the observation on the controller's clock, the newest `plan` (N, *Da) with `plan_start_s` (zeros,
    and the tick's time, while there is none: `planned` says so), whether no plan had an action (`starved`) or safety
    had `stopped` it, and the label `success`, if given.

    Args:
        path: a data set; episodes are appended where it exists.
        controller: whose ticks are recorded.
        about: plain values to keep with the data: the robot, the policy's file.

    Raises:
        ConfigError: an observation has the name of something that is recorded beside it.
        OutputExistsError: somebody else is writing to it.
    """

    def __init__(self, path: str | Path, controller: TimedController, about: Mapping[str, Any] | None = None) -> None:
        taken = sorted(set(OWN_KEYS) & set(controller.obs_spec))
        if taken:
            raise ConfigError(f"observations must not be called {', '.join(taken)}: a recording needs these names")
        self._controller, self._ticks = controller, list[dict[str, Any]]()
        self._starved = 0
        path = Path(path)
        self.buffer = ReplayBuffer.open(path, "a") if path.exists() else ReplayBuffer.create(path)
        if "provenance" not in self.buffer.attrs:
            self.buffer.update_attrs({"provenance": {"actor": "controller", **(about or {})}})

    def __len__(self) -> int:
        """T, ticks of the episode so far."""
        return len(self._ticks)

    def tick(self, time_s: float, action: FloatArray) -> None:
        """Records what `action_at(time_s)` returned, and what it rested on.

        Ticks before the first observation have nothing to show and are left out.
        """
        newest = self._controller.history.newest
        if newest is None:
            return
        observed_s, obs = newest
        plan, counts = self._controller.newest_plan, self._controller.counts
        horizons, shape = self._controller.policy.horizons, self._controller.action_spec.shape
        empty = np.zeros((horizons.pred_horizon - horizons.start, *shape), np.float32)
        self._ticks.append(
            {
                **{key: value.copy() for key, value in obs.items()},
                "action": np.array(action, np.float32),
                "time_s": np.float64(time_s),
                "observed_s": np.float64(observed_s),
                "plan": empty if plan is None else plan.actions,
                "plan_start_s": np.float64(time_s if plan is None else plan.start_s),
                "planned": np.bool_(plan is not None),
                "starved": np.bool_(counts.starved > self._starved),
                "stopped": np.bool_(self._controller.guard.stopped is not None),
            }
        )
        self._starved = counts.starved

    def end(self, success: bool | None = None) -> int:
        """Ends the episode and writes it; returns how many ticks it had. One without ticks is not written.

        Args:
            success: what somebody who watched says; None where nobody does. All episodes of a data set have it, or
                none.

        Raises:
            DataError: the episode does not fit the ones before.
            StorageError: writing failed; the episodes before are intact.
        """
        ticks, self._ticks, self._starved = self._ticks, [], 0
        if not ticks:
            return 0
        episode: dict[str, Array] = {key: np.stack([tick[key] for tick in ticks]) for key in ticks[0]}
        if success is not None:
            episode["success"] = np.full(len(ticks), bool(success))
        self.buffer.add_episode(episode)
        return len(ticks)

    def close(self) -> None:
        """Forgets an episode that did not end, and lets others write."""
        self._ticks = []
        self.buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
