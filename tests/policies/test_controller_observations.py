"""What a controller takes for an observation, and what it hands to the policy."""

import numpy as np
import pytest

from diffusion_policy.config import ObsField
from diffusion_policy.errors import ObservationError
from diffusion_policy.policies.controller import RecedingHorizonController
from tests.policies.step_policy import StepPolicy, Ta, To, at

BAD_OBSERVATIONS = {
    "not a dict": (np.zeros(1), "must be a dict with step"),
    "missing key": ({"stop": np.zeros(1)}, r"lacks step: expected step \(1,\), but got stop"),
    "shape": ({"step": np.zeros(3)}, r"shape \(1,\) or \(num_envs, 1\), but got \(3,\)"),
    "history": ({"step": np.zeros((1, 3, 1))}, "one time step"),
    "bool": ({"step": np.zeros(1, bool)}, "dtype bool"),
    "str": ({"step": np.array(["1"])}, "astype"),
    "object": ({"step": np.array([None])}, "dtype object"),
    "complex": ({"step": np.zeros(1, complex)}, "dtype complex"),
    "ragged": ({"step": [[1.0], [1.0, 2.0]]}, "must be an array"),
    "nan": ({"step": np.array([np.nan])}, "finite"),
    "overflow": ({"step": np.array([1e300])}, r"finite .* \(in float32\)"),
    "other envs": (at(1, 2), "expected observations of 1 envs, but got 2"),
    "no envs": ({"step": np.zeros((0, 1))}, "leading axis"),
}


@pytest.mark.parametrize("case", BAD_OBSERVATIONS)
def test_refused_observation_leaves_the_state_unchanged(case):
    bad, message = BAD_OBSERVATIONS[case]
    policy, untouched = StepPolicy(noise_gain=1.0), StepPolicy(noise_gain=1.0)
    controls = [RecedingHorizonController(each, seeds=1) for each in (policy, untouched)]
    for step in range(2 * Ta + 1):
        with pytest.raises(ObservationError, match=message):
            controls[0].act(bad)
        first, second = (control.act({"step": [float(step)]}) for control in controls)
        np.testing.assert_array_equal(first, second)
    assert policy.obs_seen[-1]["step"].tolist() == untouched.obs_seen[-1]["step"].tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.uint8])
def test_numbers_reach_the_policy_as_float32(dtype):
    policy = StepPolicy()
    RecedingHorizonController(policy).act({"step": np.array([3], dtype), "camera": "ignored"})
    assert policy.obs_seen[0]["step"].dtype == np.float32
    assert list(policy.obs_seen[0]) == ["step"]


def camera_policy():
    return StepPolicy(obs_spec={"step": ObsField("low_dim", (1,)), "front": ObsField("rgb", (8, 6, 3))})


def test_images_stay_uint8_and_keep_their_window():
    policy = camera_policy()
    control = RecedingHorizonController(policy)
    for step in range(Ta + 1):
        control.act({"step": [0.0], "front": np.full((8, 6, 3), step, np.uint8)})
    seen = policy.obs_seen[1]["front"]
    assert seen.dtype == np.uint8
    assert seen.shape == (1, To, 8, 6, 3)
    assert seen[0, :, 0, 0, 0].tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 6, 3), np.float32), r"dtype float32; if it lies in \[0, 1\], send \(255 \* image\)"),
        (np.zeros((8, 6, 3), np.int64), r"astype\(np.uint8\)"),
        (np.zeros((3, 8, 6), np.uint8), r"np.moveaxis\(image, -3, -1\)"),
        (np.zeros((2, 8, 6, 3), np.uint8), "step has none, front has one"),
    ],
)
def test_image_of_another_kind_is_refused_with_the_remedy(image, message):
    with pytest.raises(ObservationError, match=message):
        RecedingHorizonController(camera_policy()).act({"step": [0.0], "front": image})
