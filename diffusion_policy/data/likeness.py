"""Whether data sets can be trained on together: each field in each of them, in one shape, at one rate."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from diffusion_policy.config import ActionSpec, ObsSpec
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.source import action_sources, obs_source
from diffusion_policy.errors import DataError
from diffusion_policy.rates import told_rate

logger = logging.getLogger(__name__)

_SAME_RATE = 0.01  # relative: what rounded time stamps may cost


def check_alike(buffers: Sequence[ReplayBuffer], obs_spec: ObsSpec, action_spec: ActionSpec) -> None:
    """Compares data sets before anything is read from them; one alone always passes.

    What all of them lack is left to whoever reads the first one.

    Args:
        buffers: at least one.
        obs_spec: the fields that are wanted of each.
        action_spec: the actions.

    Raises:
        DataError: one lacks what another one has, or has it in another shape, or at another rate: names both.
    """
    for name, field in obs_spec.items():
        _compare(f"obs.{name}", buffers, partial(obs_source, name, field))
    _compare("action", buffers, lambda buffer: " + ".join(map(str, action_sources(action_spec, buffer))))
    _check_rates(buffers)


def _compare(what: str, buffers: Sequence[ReplayBuffer], find: Callable[[ReplayBuffer], Any]) -> None:
    errors: dict[str, DataError] = {}
    found: dict[str, Any] = {}
    for buffer in buffers:
        try:
            found[buffer.location] = find(buffer)
        except DataError as error:
            errors[buffer.location] = error
    if errors and found:
        where, source = next(iter(found.items()))
        raise DataError(f"{next(iter(errors.values()))} ({where} has {what} as '{source}')") from None


def _check_rates(buffers: Sequence[ReplayBuffer]) -> None:
    rates = {buffer.location: told_rate(buffer.attrs.get("provenance")) for buffer in buffers}
    known = {where: rate for where, rate in rates.items() if rate is not None}
    if not known:
        return
    first, rate = next(iter(known.items()))
    for where, other in rates.items():
        if other is None:
            logger.info("%s does not tell its rate, taken to be that of %s: %g steps a second", where, first, rate)
        elif abs(other - rate) > _SAME_RATE * rate:
            raise DataError(
                f"{where} has {other:g} steps a second, but {first} {rate:g}: an action would mean two things; "
                f"resample one of them (dp-convert --resample {rate:g})"
            )
