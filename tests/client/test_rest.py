"""What a robot does while the server says nothing is what the server's rules would make of it."""

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec
from diffusion_policy.control.safety import SafetyConfig
from diffusion_policy.control.sent import LONGEST_STEPS
from diffusion_policy.serving.protocol import pack, unpack
from diffusion_policy.serving.session import Session
from diffusion_policy_client import MismatchError
from diffusion_policy_client.rest import Rest
from tests.control.clocks import STEP, Telling
from tests.serving.raw import HELLO
from tests.serving.running import offer


def both(kind="absolute", safe=None, **rules):
    """Returns a server's session and the rest of its client."""
    policy = Telling()
    policy.action_spec = ActionSpec((2,), low=-10.0, high=(10.0, 9.0), kind=kind)
    safe = None if safe is None else vector(*safe)
    session = Session(offer(policy, safety=SafetyConfig(**rules), safe_action=safe), HELLO)
    return session, Rest(unpack(pack(session.welcome())))


def vector(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(("pause_s", "reach"), [(0.1, 0.1), (0.15, 0.15), (30.0, LONGEST_STEPS * STEP)])
def test_a_pause_of_the_loop_permits_no_jump_after_it(pause_s, reach):
    _, rest = both(safe=(5, 5), rate=1.0)
    rest.sent(np.zeros(2, np.float32), 1.0)
    assert rest.action(1.0 + pause_s, stopped=True) == pytest.approx([reach, reach])


@pytest.mark.parametrize("kind", ["absolute", "delta"])
@pytest.mark.parametrize("stopped", [None, "somebody said so"])
def test_the_client_does_what_the_servers_guard_would(kind, stopped):
    chance = np.random.default_rng(0)
    for trial in range(200):
        low, high = -chance.uniform(0, 3, 2), chance.uniform(0, 3, 2)
        rate = None if chance.random() < 0.3 else chance.uniform(0, 20, 2)
        safe = None if chance.random() < 0.5 else (0.0, 0.0)
        session, rest = both(kind, safe, low=low.tolist(), high=high.tolist(), rate=rate)
        controller, at = session.controller, chance.uniform(-9, 9, 2).astype(np.float32)
        controller.guard.stopped = stopped
        controller.reset(trial, at)
        rest.begin(rest.placed(at), moved=False)
        for now in np.cumsum(chance.choice([0.0, 0.02, 0.1, 3.0], 6)):
            wanted = controller.action_at(now)
            assert np.array_equal(rest.permitted(wanted), wanted)  # what the server says is obeyed
            assert np.allclose(rest.action(now, stopped=stopped is not None), wanted, rtol=1e-6, atol=1e-6)
            rest.sent(wanted, now)


def test_a_robot_beyond_its_limits_may_be_led_back_and_no_further_out():
    _, rest = both(low=-1.0, high=1.0, rate=1.0)
    rest.begin(rest.placed([5.0, 0.0]), moved=False)
    rest.permitted([4.9, 1.0])
    for wrong in ([5.1, 0.0], [4.9, 1.1], [-1.1, 0.0], [4.9, np.nan]):
        with pytest.raises(MismatchError):
            rest.permitted(wrong)
    rest.sent(rest.permitted([1.0, 0.0]), 1.0)
    with pytest.raises(MismatchError):
        rest.permitted([4.9, 0.0])
    with pytest.raises(MismatchError, match="within"):
        rest.placed([0.0, 9.5])  # beyond the action's own bounds
