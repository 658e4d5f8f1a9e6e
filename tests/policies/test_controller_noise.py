"""A controller's noise: a stream of each slot's own, by its seed."""

import numpy as np

from diffusion_policy.policies.controller import RecedingHorizonController
from tests.policies.step_policy import StepPolicy, Ta, Tp, at


def test_noise_of_a_slot_depends_on_its_seed_only():
    def noise_of(seeds):
        policy = StepPolicy(noise_shape=(2, Tp, 2))
        control = RecedingHorizonController(policy, seeds=seeds)
        for _ in range(2 * Ta):
            control.act(at(*[0] * len(seeds)))
        return [np.stack([noise[slot] for noise in policy.noise_seen]) for slot in range(len(seeds))]

    alone, (_, beside) = noise_of([7])[0], noise_of([3, 7])
    np.testing.assert_array_equal(alone, beside)
    assert alone.shape == (2, 2, Tp, 2)
    assert alone.dtype == np.float32
    assert not np.array_equal(alone[0], alone[1])  # a new prediction draws new noise
    assert not np.array_equal(noise_of([8])[0], alone)
    assert abs(np.concatenate(noise_of(range(50))).std() - 1) < 0.05


def test_noise_is_not_the_stream_an_env_of_the_same_seed_draws_from():
    policy = StepPolicy()
    RecedingHorizonController(policy, seeds=7).act(at(0))
    env_stream = np.random.default_rng(7).standard_normal((Tp, 2), dtype=np.float32)
    assert not np.array_equal(policy.noise_seen[0][0], env_stream)


def test_reset_with_seeds_repeats_an_episode_and_without_does_not():
    policy = StepPolicy(noise_gain=1.0)
    control = RecedingHorizonController(policy)
    taken = []
    for seeds in ([5], [5], None, None):
        control.reset(seeds=seeds)
        taken.append(control.act(at(0)))
    np.testing.assert_array_equal(taken[0], taken[1])
    assert len({action.tobytes() for action in taken}) == 3


def test_reset_mask_with_seeds_repeats_that_slot():
    control = RecedingHorizonController(StepPolicy(noise_gain=1.0), seeds=[1, 2])
    first = control.act(at(0, 0))
    control.reset([False, True], seeds=[99, 2])
    np.testing.assert_array_equal(control.act(at(1, 0))[1], first[1])
