"""The range of training comes back out of the normalisers."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffusion_policy.cli.deployed import deployed_rules
from diffusion_policy.control.guard import Guard
from diffusion_policy.errors import ConfigError
from diffusion_policy.policies.engines.description import Description
from diffusion_policy.policies.engines.eager import prepared
from diffusion_policy.policies.policy_config import NormalizationConfig
from diffusion_policy.policies.trained_ranges import trained_ranges
from tests.control.clocks import Telling
from tests.policies.test_diffusion_policy import CONFIG, make_policy


def fitted(mode="limits"):
    policy = make_policy(replace(CONFIG, normalization=NormalizationConfig(obs=mode)))
    data = {key: 100 + 50 * torch.rand(200, *policy.obs_spec[key].shape) for key in policy.normalized_keys}
    data["pos"][:, 1] = 7.0  # never changed
    policy.fit_normalizers(data, torch.rand(200, policy.action_spec.size))
    return policy, data


def test_ranges_are_those_of_the_data():
    policy, data = fitted()
    found = trained_ranges(policy)
    assert list(found) == policy.normalized_keys
    for key, (low, high) in found.items():
        expected = data[key].amin(0).numpy().copy(), data[key].amax(0).numpy().copy()
        if key == "pos":
            expected[0][1], expected[1][1] = 6.0, 8.0
        np.testing.assert_allclose(low, expected[0], rtol=1e-5)
        np.testing.assert_allclose(high, expected[1], rtol=1e-5)


def test_rules_of_a_command_admit_what_training_had_and_count_the_rest():
    policy, data = fitted()
    guard = Guard(deployed_rules({"safety": {"observed": "trained"}}, policy), policy.obs_spec, policy.action_spec)
    for row in range(200):
        assert guard.admits({key: values[row].numpy() for key, values in data.items()})
    assert guard.counts.range == 0
    guard.admits({key: 2 * values[0].numpy() for key, values in data.items()})
    assert guard.counts.range == 1


def test_policies_that_do_not_know_their_ranges_are_refused():
    with pytest.raises(ConfigError, match="this Telling knows no ranges of training"):
        trained_ranges(Telling())
    with pytest.raises(ConfigError, match=r"kept with normalization\.obs=limits"):
        trained_ranges(fitted("gaussian")[0])


def test_engines_know_what_their_policy_knew_and_so_do_exported_files():
    policy, _ = fitted()
    engine = prepared(policy)
    read = Description.from_json(engine.description.to_json(), "a file")
    for found in (engine, read):
        assert list(trained_ranges(found)) == policy.normalized_keys
        for key, expected in trained_ranges(policy).items():
            np.testing.assert_array_equal(trained_ranges(found)[key], expected)
