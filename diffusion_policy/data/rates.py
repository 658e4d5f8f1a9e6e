"""When the steps of a data set were: by its time stamps, or by its rate. Letters: T steps of an episode."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.data.doctor.streams import TIME_KEYS
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.rates import told_rate

_SLOWEST_S = 10.0  # between two time stamps; more is another unit
_LIKE = 1.25  # how far from its time stamps a rate may be that somebody says: clocks jitter, rates are rounded
_NEAR = 5.0  # and one that was noted: loops run slower than they shall, but not by that much


class Clock:
    """Tells when the steps of episodes were.

    Args:
        buffer: a data set with time stamps in seconds, or with a rate in its provenance.
        control_hz: its rate, if it has no time stamps and nothing else tells.

    Raises:
        ConfigError: nothing tells, or two tell different things.
        DataError: the time stamps of most episodes are of another rate than is told.
    """

    def __init__(self, buffer: ReplayBuffer, control_hz: float | None) -> None:
        if control_hz is not None and not 0 < control_hz < float("inf"):
            raise ConfigError(f"--control-hz must be above 0, but got {control_hz:g}")
        self._where = buffer.location
        self._key = next((key for key in TIME_KEYS if key in buffer), None)
        told = told_rate(buffer.attrs.get("provenance"))
        if self._key is None and told and control_hz and told != control_hz:
            raise ConfigError(f"{self._where} says {told:g} steps a second, but --control-hz says {control_hz:g}")
        self.hz = control_hz or told
        if self._key is None and self.hz is None:
            raise ConfigError(
                f"{self._where}: nothing tells its rate, neither time stamps ({', '.join(TIME_KEYS)}) nor its "
                f"provenance; say --control-hz HZ"
            )
        if self._key is not None and self.hz is not None:
            _check_alike(buffer, self._key, self.hz, said=control_hz is not None)

    def edges(self, episode: Mapping[str, NDArray[Any]], i: int) -> NDArray[np.float64]:
        """Returns (T + 1,) seconds at which steps begin, and at which the last one ends.

        Args:
            episode: {key: (T, *shape)}.
            i: its number, for messages.

        Raises:
            DataError: its time stamps do not increase, or are no seconds.
        """
        count = len(next(iter(episode.values())))
        if self._key is None or count < 2:
            return np.arange(count + 1) / (self.hz or 1.0)
        stamps = episode[self._key].reshape(-1).astype(np.float64)
        between = np.diff(stamps)
        if not (between > 0).all():
            raise DataError(
                f"{self._where}: {self._key} of episode {i} does not increase; drop such episodes: --drop time-order"
            )
        last = float(np.median(between))
        if last > _SLOWEST_S:
            raise DataError(
                f"{self._where}: {self._key} must be seconds, but its steps are {last:g} apart; divide it, or leave "
                f"the key out of the data set and say --control-hz HZ"
            )
        return np.append(stamps, stamps[-1] + last)


def _check_alike(buffer: ReplayBuffer, key: str, hz: float, *, said: bool) -> None:
    """Raises DataError where stamps are of quite another rate than is told, in the median episode: some may differ."""
    steps = [np.diff(episode[key].reshape(-1).astype(np.float64)) for episode in buffer.episodes([key])]
    known = [float(np.median(each)) for each in steps if len(each)]
    step_s, like = float(np.median(known)) if known else 1 / hz, _LIKE if said else _NEAR
    if step_s > 0 and not 1 / like <= step_s * hz <= like:
        raise DataError(
            f"{buffer.location}: {key} has {1 / step_s:g} steps a second, but "
            f"{'--control-hz' if said else 'its provenance'} says {hz:g}; say --control-hz "
            f"{1 / step_s:g} if the time stamps are right (seconds), or leave them out (dp-convert --without {key}) if "
            f"the rate is"
        )
