"""Which buttons solve OGBench's puzzle: arithmetic, without OGBench."""

from itertools import product

import numpy as np

from diffusion_policy_envs.adapters.ogbench_expert import presses

NEIGHBOURS = [{i} | {j for j in range(9) if abs(i // 3 - j // 3) + abs(i % 3 - j % 3) == 1} for i in range(9)]


def press(states: np.ndarray, button: int) -> np.ndarray:
    return np.array([1 - state if i in NEIGHBOURS[button] else state for i, state in enumerate(states)])


def test_presses_lead_from_any_state_to_any_other() -> None:
    rng = np.random.default_rng(0)
    for change in product((0, 1), repeat=9):
        now = rng.integers(0, 2, 9)
        wanted = (now + change) % 2
        reached = now
        for button in presses(now, wanted):
            reached = press(reached, button)
        np.testing.assert_array_equal(reached, wanted)


def test_presses_are_none_when_nothing_is_left_to_do() -> None:
    assert presses(np.ones(9, int), np.ones(9, int)) == []


def test_the_presses_left_are_those_that_were_not_made() -> None:
    now, wanted = np.zeros(9, int), np.array([1, 1, 0, 1, 0, 1, 0, 1, 1])
    first, *rest = presses(now, wanted)
    assert presses(press(now, first), wanted) == rest
