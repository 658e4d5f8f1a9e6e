import pytest

from diffusion_policy.rates import told_rate


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"control_hz": 30}, 30.0),
        ({"kwargs": {"control_hz": 50}}, 50.0),
        ({"control_hz": 25, "kwargs": {"control_hz": 50}}, 25.0),  # resampled after it was collected
        ({"control_hz": None, "kwargs": None, "step_s": 0.02}, 50.0),
        ({"control_hz": "fast", "kwargs": {}}, None),
        ({"control_hz": True}, None),
        ({"step_s": 0}, None),
        ({"step_s": "short"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_rate_is_the_one_that_a_record_tells_first(record, expected):
    assert told_rate(record) == expected
