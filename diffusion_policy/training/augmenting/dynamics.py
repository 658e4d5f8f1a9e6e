"""Dynamics error by re-simulation: what the simulator makes of (s, a), against the s', r and end that a table tells.

Letters: S rows, O numbers of an observation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.errors import ConfigError, EnvironmentIdError
from diffusion_policy.rollout.environments import BOX_FIELD, make_env
from diffusion_policy.rollout.simulator import Simulator

Array = NDArray[np.float64]
SIMULATED = 5000
"""Rows that are looked at: ends are rare, and a hundred of them take some thousand rows."""


@dataclass(frozen=True)
class TerminalAgreement:
    """Whether a table ends where the environment's own rule does. Neither rates nor marginals show it: ends are rare.

    Args:
        told: rows that a table calls terminal.
        simulated: rows that the environment ends.
        both: rows of both.
    """

    told: int
    simulated: int
    both: int

    @property
    def precision(self) -> float:
        """Share of the told ones that the environment ends; NaN of none."""
        return self.both / self.told if self.told else float("nan")

    @property
    def recall(self) -> float:
        """Share of those that the environment ends that are told; NaN of none."""
        return self.both / self.simulated if self.simulated else float("nan")


@dataclass(frozen=True)
class DynamicsErrors:
    """How far a table is from the simulator, in deviations of each number over the real rows.

    Args:
        rows: (S,) root mean square over s' of each row.
        reward: (S,) absolute error.
        left_out: rows that say nothing: terminals whose s' is not recorded, states that are clipped or burst.
        terminals: agreement about ends, of all rows whose state is known.
    """

    rows: Array
    reward: Array
    left_out: int
    terminals: TerminalAgreement

    @property
    def median(self) -> float:
        """Of the rows; the bar's figure."""
        return float(np.median(self.rows)) if len(self.rows) else float("nan")

    @property
    def mse(self) -> float:
        """Mean squared error of s', normalised."""
        return float(np.mean(self.rows**2)) if len(self.rows) else float("nan")


def open_simulator(provenance: Mapping[str, Any], columns: Columns) -> tuple[Simulator, Callable[[], None]]:
    """Returns the simulator of the environment that data were recorded in, and what closes it.

    Args:
        provenance: of the data set.
        columns: of its table.

    Raises:
        ConfigError: none is named, it cannot be made or put into a state, or the table is of something else.
    """
    name = str(provenance.get("env_id") or "")
    if not name:
        raise ConfigError("the data set names no environment")
    if list(columns.obs) != [BOX_FIELD]:
        raise ConfigError(
            f"{name} cannot be put into a state: expected the field '{BOX_FIELD}', but the table has "
            f"{', '.join(columns.obs)}"
        )
    try:
        env = make_env(name, dict(provenance.get("kwargs") or {}))
    except EnvironmentIdError as error:
        raise ConfigError(str(error)) from error
    size = int(np.prod(env.observation_space.shape or ()))
    if size != columns.obs_size:
        env.close()
        raise ConfigError(f"{name} observes {size} numbers, but the table has {columns.obs_size}")
    try:
        return Simulator(env, name), env.close
    except ConfigError:
        env.close()
        raise


def dynamics_errors(simulator: Simulator, table: Transitions, scale: Array, rows: int = SIMULATED) -> DynamicsErrors:
    """Returns how far the first rows of a table are from the simulator.

    Args:
        simulator: of the table's environment.
        table: real or synthetic.
        scale: (O + 1,) deviations of s' and r over the real rows.
        rows: at most so many are looked at.
    """
    count, ends = min(rows, len(table)), table.terminated
    found, told, ended = [], [], []
    for i in range(count):
        if not simulator.knows(table.obs[i]):
            continue
        simulated = simulator.outcome(table.obs[i], table.action[i])
        error = np.abs(simulated.values - np.append(table.next_obs[i], table.reward[i])) / scale
        if not np.isfinite(error).all():
            continue
        told.append(ends[i])
        ended.append(simulated.terminated)
        if table.columns.ends_told or not ends[i]:
            found.append(error)
    errors = np.array(found).reshape(-1, len(scale))
    agreement = TerminalAgreement(sum(map(int, told)), sum(ended), int(np.sum(np.logical_and(told, ended))))
    distances = np.sqrt((errors[:, :-1] ** 2).mean(axis=1))
    return DynamicsErrors(distances, errors[:, -1], count - len(found), agreement)


def scales(real: Transitions) -> Array:
    """Returns the deviations of s' and r over real rows, (O + 1,); 1 for numbers that never change."""
    columns = np.concatenate([real.next_obs, real.reward[:, None]], axis=1).astype(np.float64)
    spread = columns.std(axis=0)
    return np.where(spread > 0, spread, 1.0)
