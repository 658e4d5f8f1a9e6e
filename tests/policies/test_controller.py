"""A controller executes the part of each chunk that is for now, slot by slot, and asks again when it is used up."""

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec, Horizons
from diffusion_policy.errors import CheckpointError, ConfigError, ObservationError
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.policies.controller import RecedingHorizonController
from tests.policies.step_policy import StepPolicy, Ta, To, Tp, at, batch_sizes


@pytest.mark.parametrize("horizons", [Horizons(1, 8, 8), Horizons(2, 4, 8), Horizons(3, 1, 8), Horizons(3, 6, 8)])
def test_controller_executes_exactly_the_actions_meant_for_now(horizons):
    class Policy(StepPolicy):
        def predict(self, obs, noise):
            chunk = super().predict(obs, noise)
            start = horizons.start
            return ActionChunk(chunk.prediction[:, start : start + horizons.action_horizon], chunk.prediction)

    policy = Policy(horizons=horizons)
    control = RecedingHorizonController(policy)
    actions = [control.act({"step": [float(step)]}) for step in range(20)]
    np.testing.assert_array_equal(np.stack(actions)[:, 0], np.arange(20))  # step k is given the action for step k
    assert len(policy.obs_seen) == -(-20 // horizons.action_horizon)


def test_controller_executes_prediction_from_index_obs_horizon_minus_one():
    policy = StepPolicy(noise_gain=1.0)
    control = RecedingHorizonController(policy, seeds=3)
    actions = np.stack([control.act({"step": [0.0]}) for _ in range(Ta)])
    np.testing.assert_array_equal(actions, control.last_chunk.prediction[0, To - 1 : To - 1 + Ta])


def test_window_is_filled_by_the_first_observation_then_holds_the_last_ones_in_order():
    policy = StepPolicy()
    control = RecedingHorizonController(policy)
    for step in range(Ta + 1):
        control.act(at(step, 100 + step))
    first, second = (seen["step"][..., 0] for seen in policy.obs_seen)
    np.testing.assert_array_equal(first, [[0, 0, 0], [100, 100, 100]])
    np.testing.assert_array_equal(second, [[2, 3, 4], [102, 103, 104]])


def test_window_holds_observations_between_predictions_not_only_those_at_predictions():
    policy = StepPolicy(horizons=Horizons(3, 4, 8))
    control = RecedingHorizonController(policy)
    for step in (0, 7, 8, 9, 10):
        control.act({"step": np.array([step], np.float32)})
    np.testing.assert_array_equal(policy.obs_seen[1]["step"][0, :, 0], [8, 9, 10])


def test_reset_mask_begins_anew_only_in_its_slots():
    policy = StepPolicy()
    control = RecedingHorizonController(policy)
    control.act(at(0, 0, 0))
    control.act(at(1, 1, 1))
    control.reset(np.array([False, True, False]))
    np.testing.assert_array_equal(control.queued, [Ta - 2, 0, Ta - 2])
    actions = control.act(at(2, 50, 2))
    np.testing.assert_array_equal(actions[:, 0], [2, 50, 2])
    np.testing.assert_array_equal(policy.obs_seen[-1]["step"][..., 0], [[50, 50, 50]])  # asked for slot 1 only
    np.testing.assert_array_equal(control.last_chunk_slots, [1])


def test_reset_without_mask_allows_another_number_of_envs():
    control = RecedingHorizonController(StepPolicy())
    assert control.act(at(0, 0, 0)).shape == (3, 2)
    with pytest.raises(ObservationError, match="3 envs, but got 1"):
        control.act(at(1))
    control.reset()
    assert control.act(at(0)).shape == (1, 2)
    control.reset()
    assert control.act({"step": [0.0]}).shape == (2,)
    with pytest.raises(ObservationError, match="no leading env axis"):
        control.act(at(1))


def test_inactive_slots_cost_nothing_and_keep_their_state():
    policy = StepPolicy()
    control = RecedingHorizonController(policy)
    control.act(at(0, 0))
    only_first = np.array([True, False])
    for step in range(1, Ta + 1):
        bad = at(step, np.nan)  # whatever an inactive env holds is not looked at
        np.testing.assert_array_equal(control.act(bad, active=only_first), [[step] * 2, [0, 0]])
    assert batch_sizes(policy) == [2, 1]
    np.testing.assert_array_equal(control.act(at(Ta + 1, 1))[:, 0], [Ta + 1, 1])  # slot 1 goes on where it was


def test_inactive_slot_begins_with_its_own_first_observation():
    policy = StepPolicy()
    control = RecedingHorizonController(policy)
    control.act(at(0, 77), active=[True, False])
    control.act(at(1, 5))
    np.testing.assert_array_equal(policy.obs_seen[-1]["step"][..., 0], [[5, 5, 5]])


@pytest.mark.parametrize(("envs", "size", "calls"), [(1, 4, 1), (3, 4, 1), (4, 4, 1), (9, 4, 3), (3, 1, 3)])
def test_policy_calls_have_the_batch_size_whatever_the_number_of_envs(envs, size, calls):
    policy = StepPolicy()
    control = RecedingHorizonController(policy, batch_size=size)
    actions = control.act(at(*range(envs)))
    assert batch_sizes(policy) == [size] * calls
    np.testing.assert_array_equal(actions[:, 0], np.arange(envs))
    assert control.last_chunk.actions.shape == (envs, Ta, 2)
    np.testing.assert_array_equal(policy.obs_seen[-1]["step"][-1, -1], [envs - 1])  # padded with the last row
    assert len(control.latencies_ms) == calls
    assert min(control.latencies_ms) > 0


def test_actions_are_clipped_to_bounds_only_where_there_are_both():
    bounded = StepPolicy(action_spec=ActionSpec((2,), low=-1.0, high=(3.0, 5.0)))
    assert RecedingHorizonController(bounded).act({"step": [9.0]}).tolist() == [3.0, 5.0]
    half = StepPolicy(action_spec=ActionSpec((2,), high=3.0))
    assert RecedingHorizonController(half).act({"step": [9.0]}).tolist() == [9.0, 9.0]


def test_upcoming_actions_are_those_that_act_gives_next():
    controller = RecedingHorizonController(StepPolicy(), num_envs=2, batch_size=2)
    assert controller.upcoming(1).shape == (0, 2)
    for step in range(Ta):
        controller.act(at(step, 10 + step))
        expected = np.repeat(10.0 + np.arange(step + 1, Ta)[:, None], 2, axis=1)
        np.testing.assert_array_equal(controller.upcoming(1), expected)


def test_act_returns_a_copy_that_the_caller_may_change():
    control = RecedingHorizonController(StepPolicy())
    control.act(at(0))[:] = 99
    assert control.act(at(1))[0, 0] == 1


def test_action_with_several_axes_keeps_them():
    class Hands(StepPolicy):
        def predict(self, obs, noise):
            prediction = np.arange(Tp * 6, dtype=np.float32).reshape(1, Tp, 2, 3).repeat(len(noise), 0)
            return ActionChunk(prediction[:, 2:6], prediction)

    policy = Hands(action_spec=ActionSpec((2, 3), low=-1e3, high=1e3))
    assert RecedingHorizonController(policy).act(at(0, 1))[1].tolist() == [[12, 13, 14], [15, 16, 17]]


def test_non_finite_prediction_is_refused():
    with pytest.raises(CheckpointError, match="not finite"):
        RecedingHorizonController(StepPolicy(noise_gain=np.inf)).act(at(0))


def test_failed_prediction_can_be_asked_for_again():
    policy = StepPolicy()
    control = RecedingHorizonController(policy)
    working, policy.predict = policy.predict, None
    with pytest.raises(TypeError):
        control.act(at(0))
    policy.predict = working
    assert control.act(at(0))[0, 0] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.reset(seeds=[1, 2, 3]) or c.act(at(0)), "3 envs, but got 1"),
        (lambda c: c.reset([True]), "running episodes"),
        (lambda c: c.act(at(0, 0)) is c.reset([True]), "mask must be 2 bools"),
        (lambda c: c.act(at(0, 0)) is c.reset([0, 1]), "mask must be 2 bools"),
        (lambda c: c.act(at(0, 0)) is c.reset([True, False], seeds=[1]), "each of the 2 envs, but got 1"),
        (lambda c: c.act(at(0, 0), active=[True]), "active must be 2 bools"),
        (lambda c: c.reset(seeds=-1), "whole numbers >= 0"),
        (lambda c: c.reset(seeds=[True]), "whole numbers >= 0"),
        (lambda c: RecedingHorizonController(c.policy, num_envs=2, seeds=[1]), "each of the 2 envs"),
        (lambda c: RecedingHorizonController(c.policy, batch_size=0), "batch_size must be at least 1"),
    ],
)
def test_controller_refuses_what_does_not_fit_the_number_of_envs(call, message):
    with pytest.raises((ConfigError, ObservationError), match=message):
        call(RecedingHorizonController(StepPolicy()))
