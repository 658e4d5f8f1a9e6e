"""What ran on a robot, as a data set of this package: it opens in dp-inspect, and is training data.

Letters: T ticks of an episode, N actions of a plan, Da the axes of one action.
"""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from diffusion_policy.control.records import Tick
from diffusion_policy.control.timed import TimedController
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.policies.chunk import Array

OWN_KEYS = (
    "action", "time_s", "observed_s", "plan", "plan_start_s", "planned", "starved", "stopped", "success", "labelled",
    "truncated",
)  # fmt: skip
"""What a row holds beside the observation."""


class Recorder:
    """Records a controller's ticks into a zarr, episode by episode; a context manager.

    An episode is in memory until it ends. One that did not end is written by `close`, which leaving the context calls
    whatever the reason, Ctrl-C too. What ends the process at once (kill -9) loses the running episode, and leaves a
    data set of those before.

    Each tick is a row: the newest observation under its own names, `action` as sent, `time_s` of the tick and
    `observed_s` of the observation on the controller's clock, the newest `plan` (N, *Da) with `plan_start_s` (zeros,
    and the tick's time, while there is none: `planned` says so), whether no plan had an action (`starved`) or safety
    had `stopped` it, and what somebody who watched said: `success`, where `labelled`. `truncated` is true in the last
    row of an episode that did not end.

    Args:
        path: a data set; episodes are appended where it exists.
        controller: whose ticks are recorded.
        about: plain values to keep with the data: the robot, the policy's file.
        keep_unfinished: whether `close` writes an episode that did not end, truncated and without a label, or forgets
            it.

    Raises:
        ConfigError: an observation has the name of something that is recorded beside it.
        DataError: what is there is no recording of such a controller.
        OutputExistsError: somebody else is writing to it.
    """

    def __init__(
        self,
        path: str | Path,
        controller: TimedController,
        about: Mapping[str, Any] | None = None,
        *,
        keep_unfinished: bool = True,
    ) -> None:
        taken = sorted(set(OWN_KEYS) & set(controller.obs_spec))
        if taken:
            raise ConfigError(f"observations must not be called {', '.join(taken)}: a recording needs these names")
        self._controller, self._ticks, self._keep = controller, list[Tick](), keep_unfinished
        self._last: Tick | None = None
        path = Path(path)
        self.buffer = ReplayBuffer.open(path, "a") if path.exists() else ReplayBuffer.create(path)
        expected = sorted({*OWN_KEYS, *controller.obs_spec})
        if self.buffer.num_episodes and self.buffer.keys() != expected:
            self.buffer.close()
            raise DataError(
                f"{path}: expected a recording with {', '.join(expected)}, but it has {', '.join(self.buffer.keys())}; "
                f"record into another data set"
            )
        if "provenance" not in self.buffer.attrs:
            self.buffer.update_attrs(
                {"provenance": {"actor": "controller", "step_s": controller.step_s, **(about or {})}}
            )

    def __len__(self) -> int:
        """T, ticks of the episode so far."""
        return len(self._ticks)

    def tick(self) -> None:
        """Records the controller's last tick, once: what was sent, and what it rested on.

        Ticks before the first observation have nothing to show and are left out. The first tick after the controller
        was reset ends the episode before, without a label.
        """
        last = self._controller.last_tick
        if last is None or not last.observed or last is self._last:
            return
        if self._ticks and self._ticks[-1].episode != last.episode:
            self.end()
        self._last = last
        self._ticks.append(last)

    def end(self, success: bool | None = None, *, truncated: bool = False) -> int:
        """Ends the episode and writes it; returns how many ticks it had. One without ticks is not written.

        Args:
            success: what somebody who watched says; None where nobody does.
            truncated: whether it did not end by itself: something else cut it off.

        Raises:
            DataError: the episode does not fit the ones before; it is still here.
            StorageError: writing failed; the episodes before are intact, and this one is still here.
        """
        count = len(self._ticks)
        if count:
            rows = [self._row(tick) for tick in self._ticks]
            episode: dict[str, Array] = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
            labels = {"success": bool(success), "labelled": success is not None}
            episode |= {key: np.full(count, value) for key, value in labels.items()}
            self.buffer.add_episode({**episode, "truncated": truncated & (np.arange(count) == count - 1)})
            self._ticks = []
        return count

    def drop(self) -> None:
        """Forgets the episode so far."""
        self._ticks = []

    def _row(self, tick: Tick) -> dict[str, Any]:
        horizons, shape = self._controller.policy.horizons, self._controller.action_spec.shape
        plan = tick.plan
        empty = np.zeros((horizons.pred_horizon - horizons.start, *shape), np.float32)
        return {
            **tick.observed,
            "action": tick.action,
            "time_s": np.float64(tick.time_s),
            "observed_s": np.float64(tick.observed_s),
            "plan": empty if plan is None else plan.actions,
            "plan_start_s": np.float64(tick.time_s if plan is None else plan.start_s),
            "planned": np.bool_(plan is not None),
            "starved": np.bool_(tick.starved),
            "stopped": np.bool_(tick.stopped),
        }

    def close(self) -> None:
        """Lets others write, after an episode that did not end was written or forgotten; see `keep_unfinished`.

        Raises:
            DataError: it does not fit the ones before.
            StorageError: writing failed; the episodes before are intact.
        """
        try:
            if self._keep:
                self.end(truncated=True)
        finally:
            self._ticks = []
            self.buffer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
