"""What a robot does while the server says nothing."""

import numpy as np
import pytest

from diffusion_policy_client.rest import Rest

WELCOME = {
    "step_s": 0.1,
    "action": {"shape": [1], "kind": "absolute"},
    "limits": {"low": [-100.0], "high": [100.0], "rate": [1.0]},
    "safe_action": [50.0],
}


@pytest.mark.parametrize(("pause_s", "reach"), [(0.1, 0.1), (0.15, 0.15), (30.0, 0.2)])
def test_a_pause_of_the_loop_permits_no_jump_after_it(pause_s, reach):
    rest = Rest(WELCOME)
    rest.sent(np.zeros(1, np.float32), 1.0)
    assert rest.action(1.0 + pause_s, stopped=True) == pytest.approx([reach])
