"""How far the state lags behind the action, and what only looks like it."""

import numpy as np
import pytest

from diffusion_policy.data.survey import survey
from tests.data.doctor.arm import demonstrations, loud, stored


@pytest.mark.parametrize("lag", [1, 2, 4])
def test_the_lag_of_a_position_controlled_arm_is_told_in_steps(lag: int) -> None:
    demos = demonstrations(3)
    for episode in demos:
        episode["joints"] = np.concatenate([np.repeat(episode["action"][:1], lag, 0), episode["action"][:-lag]])
    found = survey(stored(demos))
    assert {each.lag for each in found.checks.lag.follows()} == {lag}
    assert {each.kind for each in found.checks.lag.follows()} == {"target"}


def test_the_lag_of_a_delta_controlled_arm_is_told_in_steps() -> None:
    rng = np.random.default_rng(0)
    demos = demonstrations(3)
    for episode in demos:
        speed = rng.normal(size=episode["action"].shape).astype(np.float32)
        late = np.concatenate([np.zeros((2, 4), np.float32), speed[:-2]])
        position = np.concatenate([np.zeros((1, 4), np.float32), np.cumsum(late, axis=0)[:-1]])
        episode |= {"action": speed, "joints": position}
        del episode["tool"]
    follows = survey(stored(demos)).checks.lag.follows()
    assert [(each.action[1], each.state[1], each.kind, each.lag) for each in follows] == [
        (d, d, "change", 2) for d in range(4)
    ]


@pytest.mark.parametrize("factor", [180 / np.pi, 1000.0])
def test_actions_in_other_units_than_the_state_are_noted(factor: float) -> None:
    demos = demonstrations(3)
    for episode in demos:
        episode["joints"] = (episode["joints"] * factor).astype(np.float32)
    found = survey(stored(demos))
    assert loud(found) == {}
    assert {each.severity for each in found.findings if each.name == "units"} == {"note"}


def test_feedback_is_no_state_ahead_of_its_action() -> None:
    rng = np.random.default_rng(0)
    demos = []
    for _ in range(6):
        state, rows = rng.normal(size=2), []
        for _ in range(120):
            torque = 0.3 * state[0] - 2.5 * state[1] + rng.normal(0, 0.02)  # of what is seen now
            rows.append((state.copy(), torque))
            state = state + 0.05 * np.array([state[1], torque - 4 * state[0]])
        demos.append({"state": np.array([row[0] for row in rows]), "action": np.array([[row[1]] for row in rows])})
    assert "lag" not in loud(survey(stored(demos)))
