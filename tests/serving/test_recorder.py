"""What a controller did is a data set: it is whole, it opens like any other, and it is training data."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.config import ActionSpec, Horizons, ObsField
from diffusion_policy.control.timed import TimedController
from diffusion_policy.data.dataset import WindowDataset
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, DataError, OutputExistsError
from diffusion_policy.serving.recorder import Recorder
from tests.control.clocks import STEP, Telling, seen

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def tick(recorder, controller, now):
    controller.action_at(now)
    recorder.tick()


def run(recorder, controller, ticks, success=None):
    controller.reset(0)
    for number in range(ticks):
        now = number * STEP
        controller.observe(seen(now), now)
        if controller.is_due(now):
            controller.plan(now)
        tick(recorder, controller, now)
    return recorder.end(success)


@pytest.fixture
def controller():
    return TimedController(Telling(), step_s=STEP)


def test_each_tick_is_a_row_with_what_it_rested_on(controller, tmp_path):
    with Recorder(tmp_path / "ran.zarr", controller, {"robot": "toy"}) as recorder:
        assert run(recorder, controller, 9, success=True) == 9
        assert run(recorder, controller, 5, success=False) == 5
    with ReplayBuffer.open(tmp_path / "ran.zarr") as buffer:
        assert buffer.verify()
        first, second = buffer.get_episode(0), buffer.get_episode(1)
        assert buffer.attrs["provenance"] == {"actor": "controller", "step_s": STEP, "robot": "toy"}
    times = np.arange(9) * STEP
    assert np.allclose(first["time_s"], times)
    assert np.allclose(first["observed_s"], times)
    assert np.allclose(first["now"][:, 0], times)
    assert np.allclose(first["action"][:, 0], times, atol=1e-6)
    assert np.allclose(first["plan_start_s"], [0] * 4 + [0.4] * 4 + [0.8])
    assert np.allclose(first["plan"][5, :, 0], 0.4 + np.arange(7) * STEP)
    assert first["success"].all()
    assert second["labelled"].all()
    assert not second["success"].any()
    assert not first["starved"].any()


def test_recordings_are_training_data(controller, tmp_path):
    with Recorder(tmp_path / "ran.zarr", controller) as recorder:
        run(recorder, controller, 20)
    with ReplayBuffer.open(tmp_path / "ran.zarr") as buffer:
        spec = {"now": ObsField("low_dim", (1,))}
        windows = WindowDataset.from_buffer(buffer, spec, ActionSpec((1,)), Horizons(2, 4, 8))
        assert windows.batch(np.array([3])).action.shape == (1, 8, 1)


def test_ticks_without_a_plan_and_starved_and_stopped_ones_are_marked(tmp_path):
    controller = TimedController(Telling(), step_s=STEP, safe_action=np.zeros(1))
    with Recorder(tmp_path / "ran.zarr", controller) as recorder:
        tick(recorder, controller, -1.0)  # before the first observation there is nothing to show
        controller.observe(seen(-0.5), -0.5)
        tick(recorder, controller, -0.5)
        controller.observe(seen(0.0), 0.0)
        controller.plan(0.0)
        for now in (0.0, 0.6, 0.9):
            tick(recorder, controller, now)
        controller.guard.stopped = "somebody pressed the button"
        tick(recorder, controller, 1.0)
        recorder.end()
        found = recorder.buffer.get_episode(0)
    assert found["planned"].tolist() == [False, True, True, True, True]
    assert found["starved"].tolist() == [True, False, False, True, True]
    assert found["stopped"].tolist() == [False, False, False, False, True]


def interrupted(path, controller):
    with Recorder(path, controller) as recorder:
        run(recorder, controller, 4, success=True)
        controller.reset(1)
        for now in (1.0, 1.1):
            controller.observe(seen(now), now)
            controller.plan(now)
            tick(recorder, controller, now)
        with pytest.raises(OutputExistsError):
            Recorder(path, controller)
        raise KeyboardInterrupt


def test_episode_that_does_not_end_is_kept_and_marked_and_later_ones_are_appended(controller, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "ran.zarr", controller)
    with Recorder(tmp_path / "ran.zarr", controller) as recorder:
        assert recorder.end() == 0
        run(recorder, controller, 3)
    with ReplayBuffer.open(tmp_path / "ran.zarr") as buffer:
        assert buffer.verify()
        assert buffer.episode_ends.tolist() == [4, 6, 9]
        assert np.allclose(buffer.get_episode(1)["time_s"], [1.0, 1.1])
        assert not buffer.get_episode(1)["labelled"].any()
        assert np.flatnonzero(buffer["truncated"]).tolist() == [5]


def test_episode_that_does_not_end_is_forgotten_where_that_is_wanted(controller, tmp_path):
    with Recorder(tmp_path / "ran.zarr", controller, keep_unfinished=False) as recorder:
        run(recorder, controller, 4)
        controller.observe(seen(1.0), 1.0)
        tick(recorder, controller, 1.0)
    with ReplayBuffer.open(tmp_path / "ran.zarr") as buffer:
        assert buffer.episode_ends.tolist() == [4]
        assert not buffer["truncated"].any()


KILLED = """
import os, signal, sys
from diffusion_policy.control.timed import TimedController
from diffusion_policy.serving.recorder import Recorder
from tests.control.clocks import STEP, Telling, seen
controller = TimedController(Telling(), step_s=STEP)
recorder = Recorder("ran.zarr", controller)
for number in range(9):
    controller.observe(seen(number * STEP), number * STEP)
    if controller.is_due(number * STEP):
        controller.plan(number * STEP)
    controller.action_at(number * STEP)
    recorder.tick()
    if number == 5:
        recorder.end(True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_the_episodes_before_and_nobody_locked_out(controller, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env={**os.environ, "PYTHONPATH": PATH})
    assert done.returncode == -signal.SIGKILL
    with Recorder(tmp_path / "ran.zarr", controller) as recorder:
        run(recorder, controller, 3)
    with ReplayBuffer.open(tmp_path / "ran.zarr") as buffer:
        assert buffer.verify()
        assert buffer.episode_ends.tolist() == [6, 9]


def test_a_row_is_what_its_action_rested_on_though_more_was_seen_since(controller, tmp_path):
    with Recorder(tmp_path / "ran.zarr", controller) as recorder:
        controller.observe(seen(0.0), 0.0)
        controller.plan(0.0)
        controller.action_at(0.1)
        controller.observe(seen(0.1), 0.1)
        controller.plan(0.1)
        recorder.tick()
        recorder.end()
        found = recorder.buffer.get_episode(0)
    assert (found["now"][0, 0], found["plan_start_s"][0]) == (0.0, 0.0)
    assert found["labelled"].tolist() == [False]


def test_a_tick_is_one_row_however_often_it_is_recorded(controller, tmp_path):
    with Recorder(tmp_path / "ran.zarr", controller) as recorder:
        run(recorder, controller, 3)
        recorder.tick()  # nothing was sent since
        assert len(recorder) == 0
        controller.observe(seen(1.0), 1.0)
        controller.action_at(1.0)
        recorder.tick()
        recorder.tick()
        assert len(recorder) == 1


def test_a_reset_controller_begins_another_episode(controller, tmp_path):
    with Recorder(tmp_path / "ran.zarr", controller) as recorder:
        for _ in range(2):
            controller.reset(0)
            controller.observe(seen(0.0), 0.0)
            controller.plan(0.0)
            for now in (0.0, 0.1, 0.2):
                tick(recorder, controller, now)
        recorder.end(True)
        assert recorder.buffer.episode_ends.tolist() == [3, 6]


def test_an_episode_that_cannot_be_written_is_not_lost(controller, tmp_path, monkeypatch):
    with Recorder(tmp_path / "ran.zarr", controller) as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(recorder.buffer, "add_episode", lambda episode: (_ for _ in ()).throw(DataError("full")))
            with pytest.raises(DataError):
                run(recorder, controller, 4)
        assert recorder.end(True) == 4
    policy = Telling()
    policy.obs_spec = {"then": ObsField("low_dim", (1,))}
    with pytest.raises(DataError, match="expected a recording with"):
        Recorder(tmp_path / "ran.zarr", TimedController(policy, step_s=STEP))


def test_observations_must_not_take_a_recordings_names(tmp_path):
    policy = Telling()
    policy.obs_spec = {"plan": ObsField("low_dim", (1,))}
    with pytest.raises(ConfigError, match="must not be called plan"):
        Recorder(tmp_path / "ran.zarr", TimedController(policy, step_s=STEP))
