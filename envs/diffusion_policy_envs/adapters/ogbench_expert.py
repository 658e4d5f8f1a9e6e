"""OGBench's Markov oracles as experts: they bring one cube, or press one button; here stands which one is next."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_policy_envs.adapters.needs import needed
from diffusion_policy_envs.adapters.simulated import Floats

__all__ = ["CubeExpert", "PuzzleExpert", "presses"]

_ORACLES = "ogbench.manipspace.oracles.markov"
_ABOVE = 0.16  # m: from this height on the oracles move sideways
_THERE = 0.02  # m: so near its place, an oracle lets a cube go
_SUCCESS = 0.04  # m: OGBench's own
_FREE = 0.08  # m: centres of cubes between which the fingers fit (edges of 4 cm)
_PARKING = [np.array([x, y, 0.02]) for x in (0.425, 0.35, 0.5) for y in (0.0, -0.15, 0.15)]


class CubeExpert:
    """Brings all cubes to their places: `action = expert(obs, info)`, once per step.

    Args:
        env: OGBench's CubeEnv.
        goals: returns where the cubes shall be, (number of cubes, 3), m.
        seed: says where the hand goes when nothing is left to do.
    """

    def __init__(self, env: Any, goals: Callable[[], Floats], seed: int) -> None:
        self._env, self._goals = env, goals
        self._oracle = needed(f"{_ORACLES}.cube_markov", "ogbench").CubeMarkovOracle(env=env)
        with _chance(seed):
            self._oracle.reset(None, None)
        self._cube, self._place = -1, np.zeros(3)

    def __call__(self, obs: Any, info: Any) -> NDArray[np.float32]:
        """Returns the next action (5,)."""
        told = self._env.compute_ob_info()
        if self._cube < 0 or self._put_down(told):
            self._choose(told)
        told["privileged/target_block"] = self._cube
        told["privileged/target_block_pos"] = self._place
        told["privileged/target_block_yaw"] = np.zeros(1)
        return np.asarray(self._oracle.select_action(None, told), np.float32)

    def _put_down(self, told: dict[str, Any]) -> bool:
        there = np.linalg.norm(told[f"privileged/block_{self._cube}_pos"] - self._place) <= _THERE
        above = told["proprio/effector_pos"][2] > _ABOVE
        return bool(there and above and told["proprio/gripper_contact"][0] < 0.1)

    def _choose(self, told: dict[str, Any]) -> None:
        goals = self._goals()
        cubes = np.stack([told[f"privileged/block_{i}_pos"] for i in range(len(goals))])
        away = np.linalg.norm(cubes - goals, axis=1) > _SUCCESS
        missing = [int(i) for i in np.argsort(goals[:, 2], kind="stable") if away[i]]  # what lies below comes first
        for i in missing:
            others = [cubes[j] for j in range(len(goals)) if j != i and away[j]]
            if _is_free(goals[i], others):
                self._cube, self._place = i, goals[i]
                return
        if missing:  # each one's place is taken
            self._cube = missing[0]
            self._place = next(spot for spot in _PARKING if _is_free(spot, [*cubes, *goals]))


class PuzzleExpert:
    """Presses the buttons that solve the puzzle, the first row first: `action = expert(obs, info)`, once per step.

    Args:
        env: OGBench's PuzzleEnv.
        seed: says where the hand goes when nothing is left to do.
    """

    def __init__(self, env: Any, seed: int) -> None:
        self._env = env
        oracle = needed(f"{_ORACLES}.button_markov", "ogbench").ButtonMarkovOracle
        self._oracle = oracle(env=env, gripper_always_closed=True)
        with _chance(seed):
            self._oracle.reset(None, None)
        self._button, self._wanted = -1, 0

    def __call__(self, obs: Any, info: Any) -> NDArray[np.float32]:
        """Returns the next action (5,)."""
        told = self._env.compute_ob_info()
        above = told["proprio/effector_pos"][2] > _ABOVE
        if self._button < 0 or (above and told["button_states"][self._button] == self._wanted):
            left = presses(told["button_states"], self._env._target_button_states)
            if left:
                self._button, self._wanted = left[0], 1 - int(told["button_states"][left[0]])
        told["privileged/target_button"] = self._button
        told["privileged/target_button_state"] = self._wanted
        told["privileged/target_button_top_pos"] = self._env.data.site(f"btntop_{self._button}").xpos.copy()
        return np.asarray(self._oracle.select_action(None, told), np.float32)


def presses(now: NDArray[np.integer[Any]], wanted: NDArray[np.integer[Any]]) -> list[int]:
    """Returns which buttons of Lights Out (3 x 3) lead from one state to another; there is exactly one such set.

    Args:
        now: (9,), 0 or 1.
        wanted: (9,), 0 or 1.
    """
    places = np.array(list(product(range(3), range(3))))
    switches = np.abs(places[:, None] - places[None]).sum(-1) <= 1  # (9, 9): itself and its neighbours
    sets = np.array(list(product((0, 1), repeat=9)))  # (512, 9)
    changes = sets @ switches.astype(int) % 2
    fits = (changes == (np.asarray(now) + np.asarray(wanted)) % 2).all(axis=1)
    return [int(button) for button in np.flatnonzero(sets[int(np.argmax(fits))])]


def _is_free(place: Floats, others: list[Floats]) -> bool:
    return all(np.linalg.norm(place[:2] - other[:2]) > _FREE for other in others)


@contextmanager
def _chance(seed: int) -> Iterator[None]:
    """Seeds NumPy's global numbers, which the oracles draw from, and puts them back as they were."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
