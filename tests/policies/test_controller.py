import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError, ObservationError
from diffusion_policy.policies import controller as controller_module
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.policies.controller import RecedingHorizonController

To, Ta, Tp = 3, 4, 8


@dataclass
class StepPolicy:
    """Predicts the number of the step each action is for: the newest observation's value, plus the offset."""

    horizons: Horizons = field(default_factory=lambda: Horizons(To, Ta, Tp))
    obs_spec: dict = field(default_factory=lambda: {"step": ObsField("low_dim", (1,))})
    action_spec: ActionSpec = field(default_factory=lambda: ActionSpec((2,)))
    noise_shape: tuple = (Tp, 2)
    noise_gain: float = 0.0
    obs_seen: list = field(default_factory=list)
    noise_seen: list = field(default_factory=list)

    def predict(self, obs, noise):
        self.obs_seen.append({key: value.copy() for key, value in obs.items()})
        self.noise_seen.append(noise.copy())
        now = obs["step"][:, -1, :1]  # (B, 1)
        steps = now + np.arange(Tp, dtype=np.float32) - self.horizons.start  # (B, Tp)
        prediction = np.repeat(steps[..., None], 2, axis=-1)
        if self.noise_gain:
            prediction = prediction + self.noise_gain * noise
        start = self.horizons.start
        return ActionChunk(actions=prediction[:, start : start + Ta], prediction=prediction)


def at(*steps):
    """An observation of E envs, each at its own step."""
    return {"step": np.array(steps, dtype=np.float32)[:, None]}


def batch_sizes(policy):
    return [len(noise) for noise in policy.noise_seen]


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


def test_load_names_the_kinds_it_knows(tmp_path):
    with pytest.raises(CheckpointError, match=r"kind '.xyz' .*known: .pt"):
        RecedingHorizonController.load(tmp_path / "policy.xyz")
    with pytest.raises(MissingFileError, match="does not exist"):
        RecedingHorizonController.load(tmp_path / "policy.pt")


def test_load_names_the_package_that_an_engine_lacks(tmp_path, monkeypatch):
    monkeypatch.setitem(controller_module.ENGINES, ".toy", "engine_that_nobody_has:load")
    (tmp_path / "policy.toy").touch()
    with pytest.raises(ConfigError, match="needs engine_that_nobody_has: pip install"):
        RecedingHorizonController.load(tmp_path / "policy.toy")


def test_load_picks_the_engine_by_the_kind_of_file_and_warms_it_up(tmp_path, monkeypatch):
    asked, policy = [], StepPolicy()

    def load(*arguments):
        asked.append(arguments)
        return policy

    module = ModuleType("engine_for_test")
    module.load = load
    monkeypatch.setitem(sys.modules, "engine_for_test", module)
    monkeypatch.setitem(controller_module.ENGINES, ".toy", "engine_for_test:load")
    file = tmp_path / "policy.toy"
    file.touch()
    control = RecedingHorizonController.load(file, device="cuda:1", precision="bfloat16", num_envs=2, batch_size=5)
    assert asked == [(file, "cuda:1", "bfloat16")]
    assert (control.path, control.num_envs, control.batch_size) == (file, 2, 5)
    assert set(batch_sizes(policy)) == {5}
    assert not control.latencies_ms


def test_controller_imports_numpy_and_the_standard_library_only():
    code = (
        "import sys, numpy.random; before = set(sys.modules); import diffusion_policy.policies.controller\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert set(out.stdout.split()) <= {"diffusion_policy", "numpy"}
