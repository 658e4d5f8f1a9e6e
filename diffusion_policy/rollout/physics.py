"""Whether the simulator agrees with a data set: set a recorded state, take the recorded action, compare what follows.

Files with the right name and shape can hold noise, actions shifted by one step, or another robot; a policy trained from
them fails for no visible reason. Letters: S compared steps, D numbers of an observation, nq and nv positions and
velocities of a MuJoCo model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.data.transitions_check import NEXT
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.rollout.environments import BOX_FIELD, Env, make_env
from diffusion_policy.rollout.progress import ProgressBar
from diffusion_policy.rollout.recorded_env import recorded_id
from diffusion_policy.rollout.simulator import Simulator

EXACT, CLOSE = 1e-4, 1e-2
"""Errors relative to a number's standard deviation: what rounding to float32 leaves; what another release may."""
_ENOUGH = 0.75  # of the steps must be close: contacts amplify, and other engines' recordings may be as true
_RUN = 10  # steps from the start of an episode: later ones depend on what `state` does not tell, e.g. a velocity


@dataclass(frozen=True)
class PhysicsReport:
    """How far the simulator is from the data.

    Args:
        names: of the D numbers, and "reward" where there is one.
        scale: (D,) standard deviation of each over the data, which errors are relative to.
        errors: (S, D) absolute error / scale.
        clipped: steps left out because their velocities were clipped, so that the state is not known.
    """

    names: tuple[str, ...]
    scale: NDArray[np.float64]
    errors: NDArray[np.float64]
    clipped: int

    def share_within(self, tolerance: float) -> float:
        """Returns the share of the steps in which all numbers are within a relative error."""
        return float((self.errors <= tolerance).all(axis=1).mean())

    @property
    def wrong(self) -> bool:
        """Whether the data cannot come from this simulator."""
        return self.share_within(CLOSE) < _ENOUGH


@dataclass(frozen=True)
class _Outcome:
    """What the simulator gave for a recorded step, what the data say, and whether the state was known."""

    simulated: NDArray[np.float64]
    recorded: NDArray[np.float64]
    known: bool = True


class _Stepper(Protocol):
    """Puts the simulator into recorded states."""

    names: tuple[str, ...]
    key: str

    def outcomes(self, buffer: ReplayBuffer, samples: int, seed: int) -> Iterator[_Outcome]:
        """Yields about `samples` outcomes, chosen by the seed."""


def check_physics(
    buffer: ReplayBuffer, env_id: str | None = None, *, samples: int = 1000, seed: int = 0, progress: bool = True
) -> PhysicsReport:
    """Returns how far the simulator is from what the data say.

    Args:
        buffer: with `action`, and `observation` or `state`.
        env_id: the environment; None for that of the provenance.
        samples: S, at most so many steps.
        seed: of the choice of steps.
        progress: shows a bar with ETA.

    Raises:
        ConfigError: no environment is named, or it cannot be put into a recorded state; says what is missing.
        DataError: the data lack what is needed, or no step could be compared.
    """
    if samples < 1:
        raise ConfigError(f"samples must be at least 1, but got {samples}")
    name, kwargs = recorded_id(buffer, env_id)
    env = make_env(name, kwargs)
    try:
        env, stepper = _stepper(buffer, env, name, kwargs)
        simulated, recorded, clipped = [], [], 0
        with ProgressBar("physics", min(samples, buffer.num_steps), enabled=progress) as bar:
            for i, outcome in enumerate(stepper.outcomes(buffer, samples, seed), 1):
                clipped += not outcome.known
                if outcome.known:
                    simulated.append(outcome.simulated)
                    recorded.append(outcome.recorded)
                bar.update(i)
    finally:
        env.close()
    if not simulated:
        raise DataError(f"{buffer.location}: no step to compare: {clipped} of them have clipped velocities")
    columns = [_rows(buffer[key]) for key in (stepper.key, "reward") if key in buffer]
    spread = np.concatenate([column.std(axis=0) for column in columns])
    scale = np.where(spread > 0, spread, 1.0)  # a constant number: its error as it is
    errors = np.abs(np.array(simulated) - np.array(recorded))[:, : len(scale)] / scale
    names = (*stepper.names, *["reward"] * ("reward" in buffer))
    return PhysicsReport(names, scale, np.where(np.isfinite(errors), errors, np.inf), clipped)


def _stepper(
    buffer: ReplayBuffer, env: Env, name: str, kwargs: dict[str, Any]
) -> tuple[Env, "_MujocoState | _StateOption"]:
    """Returns what can put the environment into recorded states, and the environment itself."""
    buffer.shape("action")
    if isinstance(env.observation_space, spaces.Box):
        return env, _MujocoState(env, name, buffer)
    if "state" not in buffer:
        raise ConfigError(
            f"{name} can only be put into a recorded state by `state`, but the data have {', '.join(buffer.keys())}; "
            f"collect with obs_keys=[..., state]"
        )
    if "state" not in getattr(env.observation_space, "spaces", {}):  # recorded with other obs_keys, or elsewhere
        env.close()
        env = make_env(name, {**kwargs, "obs_keys": ["state"]})
    return env, _StateOption(env, name, buffer)


class _MujocoState:
    """The steps of a data set in a `Simulator`.

    Args:
        env: of the data.
        name: its id.
        buffer: the data.

    Raises:
        ConfigError: see `Simulator`.
        DataError: the data are of another environment.
    """

    def __init__(self, env: Env, name: str, buffer: ReplayBuffer) -> None:
        self.key = BOX_FIELD
        size = int(np.prod(env.observation_space.shape or ()))
        if buffer.shape(self.key) != (size,):
            raise DataError(
                f"{buffer.location}: expected {self.key} of {size} numbers for {name}, but got "
                f"{buffer.shape(self.key)}; name the right environment with --env"
            )
        self._simulator = Simulator(env, name)
        self.names = tuple(f"{self.key}[{i}]" for i in range(size))

    def outcomes(self, buffer: ReplayBuffer, samples: int, seed: int) -> Iterator[_Outcome]:
        """Yields the outcome of steps from anywhere in the data."""
        told = NEXT + self.key in buffer
        steps = np.arange(buffer.num_steps)
        if not told:  # what followed the last step of an episode is not known
            steps = np.delete(steps, buffer.episode_ends - 1)
        chosen = np.random.default_rng(seed).permutation(steps)[:samples]
        obs = buffer[self.key]
        after = buffer[NEXT + self.key] if told else obs[1:]
        actions, rewards = buffer["action"], _rewards(buffer)
        for i in np.sort(chosen):
            recorded = np.append(after[i], rewards[i]).astype(np.float64)
            simulated = self._simulator.outcome(obs[i], actions[i]).values
            yield _Outcome(simulated, recorded, self._simulator.knows(obs[i]))


class _StateOption:
    """Environments that start from `reset(options={"state": ...})`; a few steps from each start are replayed.

    Args:
        env: it observes `state`.
        name: its id.
        buffer: the data.

    Raises:
        ConfigError: it does not start there, or observes another state.
    """

    key = "state"

    def __init__(self, env: Env, name: str, buffer: ReplayBuffer) -> None:
        self._env, first = env, buffer.read("state", 0, 1)[0]
        try:
            obs, _ = env.reset(seed=0, options={"state": first})
            same = np.allclose(obs["state"], first, rtol=1e-4, atol=1e-4)
        except Exception as error:  # somebody's environment
            raise ConfigError(
                f'{name} cannot be put into a recorded state: reset(options={{"state": ...}}) says {error}'
            ) from error
        if not same:
            raise ConfigError(f'{name} cannot be put into a recorded state: it ignores reset(options={{"state": ...}})')
        self.names = tuple(f"state[{i}]" for i in range(first.size))

    def outcomes(self, buffer: ReplayBuffer, samples: int, seed: int) -> Iterator[_Outcome]:
        """Yields the outcomes of the first steps of episodes."""
        states, actions, rewards = buffer["state"], buffer["action"], _rewards(buffer)
        order = np.random.default_rng(seed).permutation(buffer.num_episodes)
        done = 0
        for episode in order:
            rows = buffer.episode_slice(int(episode))
            self._env.reset(seed=0, options={"state": states[rows.start]})
            for i in range(rows.start, min(rows.start + _RUN, rows.stop - 1)):
                obs, reward, *_ = self._env.unwrapped.step(actions[i].astype(self._env.action_space.dtype))
                recorded = np.append(states[i + 1].reshape(-1), rewards[i]).astype(np.float64)
                yield _Outcome(np.append(np.ravel(obs["state"]), float(reward)), recorded)
                done += 1
                if done == samples:
                    return


def _rewards(buffer: ReplayBuffer) -> NDArray[Any]:
    """Returns (N,) rewards; NaN, which nobody looks at, where the data have none."""
    if "reward" not in buffer:
        return np.full(buffer.num_steps, np.nan)
    return buffer["reward"].reshape(buffer.num_steps)


def _rows(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.reshape(len(values), -1).astype(np.float64)
