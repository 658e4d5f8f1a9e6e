"""What goes through the pipe of a policy's process comes out as it was."""

import pickle

import numpy as np
import pytest

from diffusion_policy.errors import ObservationError
from diffusion_policy.policies.chunk import KnownActions
from diffusion_policy.policies.own_process_words import answer, answered, asked, question


def test_a_question_is_read_as_it_was_asked():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (1, 2, 4, 4, 3), dtype=np.uint8)[:, :, ::-1]  # no copy: it lies backwards
    obs = {"picture": picture, "pos": rng.normal(size=(1, 2, 2)).astype(np.float32)}
    noise = rng.standard_normal((1, 8, 2), dtype=np.float32)
    known = KnownActions(noise + 1, np.ones((1, 8), np.float32))
    found_obs, found_noise, found_known = asked(question(obs, noise, known))
    assert list(found_obs) == list(obs)
    for found, expected in (
        *((found_obs[key], obs[key]) for key in obs), (found_noise, noise),
        (found_known.actions, known.actions), (found_known.weight, known.weight),
    ):  # fmt: skip
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        found[...] = 0  # a policy may write where it could before
    assert asked(question(obs, None))[1:] == (None, None)


def test_an_answer_is_read_as_it_was_given_and_its_time_with_it():
    prediction = np.random.default_rng(0).normal(size=(1, 8, 2)).astype(np.float32)
    found, seconds = answered(pickle.loads(answer(prediction, 0.25)))
    np.testing.assert_array_equal(found, prediction)
    assert seconds == 0.25
    np.testing.assert_array_equal(answered(pickle.loads(answer([[[1.0]]], 0.5)))[0], [[[1.0]]])  # a plugin's engine


def test_what_is_not_of_numbers_is_refused_before_it_is_asked():
    for odd in (np.array([[None]]), np.zeros(2, [("a", "<f4")])):
        with pytest.raises(ObservationError, match="arrays of numbers, but got one of"):
            question({"pos": odd}, None)
