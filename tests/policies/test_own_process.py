"""A policy in a process of its own is the same policy, whatever becomes of the process."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffusion_policy.control.timed import TimedController
from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError, ObservationError, PolicyLostError
from diffusion_policy.policies import own_process_work
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.own_process import PolicyProcess
from diffusion_policy.policies.own_process_words import answered, question
from tests.policies.test_diffusion_policy import make_policy
from tests.policies.test_guided import KnownActions
from tests.policies.test_trained_ranges import trained_ranges

NOISE = np.random.default_rng(1).standard_normal((1, 8, 2)).astype(np.float32)


def observed():
    rng = np.random.default_rng(0)
    pos, points = rng.uniform(0, 400, (1, 2, 2)), rng.uniform(0, 500, (1, 2, 3, 2))
    return {"pos": pos.astype(np.float32), "points": points.astype(np.float32)}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.pt"
    make_policy().save(path)
    return path


@pytest.fixture(scope="module")
def made(file):
    with PolicyProcess(file) as found:
        yield found


@pytest.fixture
def here(file):
    return RecedingHorizonController.load(file, batch_size=1).policy


def test_says_of_itself_what_the_policy_says(made, here):
    for name in ("obs_spec", "action_spec", "horizons", "noise_shape", "info", "sampling"):
        assert getattr(made, name) == getattr(here, name)
    for key, (low, high) in trained_ranges(here).items():
        np.testing.assert_array_equal(trained_ranges(made)[key], (low, high))


def test_chunks_are_those_of_the_policy_in_this_process(made, here):
    before = made.computed_s
    found, expected = made.predict(observed(), NOISE), here.predict(observed(), NOISE)
    np.testing.assert_array_equal(found.prediction, expected.prediction)
    np.testing.assert_array_equal(found.actions, expected.actions)
    assert made.computed_s > before


def test_guided_chunks_are_those_of_the_policy_in_this_process(made, here):
    known = KnownActions(np.full((1, 8, 2), 200, np.float32), np.linspace(1, 0, 8, dtype=np.float32)[None])
    found, expected = (each.predict_guided(observed(), NOISE, known).prediction for each in (made, here))
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, here.predict(observed(), NOISE).prediction)


def test_raises_what_the_policy_raises_and_says_where_and_goes_on(made):
    with pytest.raises(ObservationError, match="expected observations pos, points") as raised:
        made.predict({}, NOISE)
    assert "check_windows" in "".join(raised.value.__notes__)
    made.predict(observed(), NOISE)


def test_another_process_takes_the_place_of_one_that_died(made, caplog):
    expected = made.predict(observed(), NOISE).prediction
    made._process.kill()
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(made.predict(observed(), NOISE).prediction, expected)
    assert "ended with code -9 (killed, for memory perhaps)" in caplog.text


def test_a_process_that_was_told_to_end_is_replaced_at_the_next_question(made):
    expected = made.predict(observed(), NOISE).prediction
    made._process.terminate()
    with pytest.raises(PolicyLostError, match="ended with code -15"):
        made.predict(observed(), NOISE)
    np.testing.assert_array_equal(made.predict(observed(), NOISE).prediction, expected)


def test_a_closed_process_stays_closed(file):
    made = PolicyProcess(file)
    process = made._process
    made.close()
    assert not process.is_alive()
    with pytest.raises(PolicyLostError, match="was closed"):
        made.predict(observed(), NOISE)
    made.close()


def test_a_file_that_was_written_anew_is_no_stand_in(tmp_path):
    path = tmp_path / "policy.pt"
    make_policy().save(path)
    with PolicyProcess(path) as made:
        torch.save({}, path)
        made.predict(observed(), NOISE)
        made._process.kill()
        with pytest.raises(CheckpointError, match="is another file than the one that was loaded"):
            made.predict(observed(), NOISE)


def test_a_process_that_dies_at_once_is_said(file, tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PolicyLostError, match="ended with code 3"):
        PolicyProcess(file, plugins=["deadly"])


def test_what_cannot_be_loaded_is_refused_as_in_this_process(file, tmp_path):
    with pytest.raises(MissingFileError, match="does not exist"):
        PolicyProcess(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="no engine runs a policy file of kind"):
        PolicyProcess(tmp_path / "policy.zip")
    with pytest.raises(ConfigError, match="precision must be"):
        PolicyProcess(file, precision="float8")


def test_a_controller_acts_the_same_with_its_policy_in_another_process(file):
    actions = []
    obs = {key: values[0, 0] for key, values in observed().items()}
    for own_process in (True, False):
        controller = TimedController.load(file, step_s=0.1, own_process=own_process, seed=0)
        controller.observe(obs, 1.0)
        controller.plan(1.0)
        actions.append([controller.action_at(1.0 + 0.1 * step) for step in range(4)])
        if isinstance(controller.policy, PolicyProcess):
            controller.policy.close()
    np.testing.assert_array_equal(*actions)


def test_a_controller_that_cannot_be_made_leaves_no_process(file, monkeypatch):
    made = []
    begin = PolicyProcess._begin
    monkeypatch.setattr(PolicyProcess, "_begin", lambda self: (begin(self), made.append(self._process))[0])
    with pytest.raises(ConfigError, match="give step_s"):
        TimedController.load(file, own_process=True)
    assert [process.is_alive() for process in made] == [False]


class Odd:
    """Predicts no numbers at first, as a plugin's engine may; then a list."""

    description = "of a policy"

    def __init__(self):
        self._predictions = [np.array([[[None]]]), [[[1.0]]]]

    def predict(self, obs, noise):
        return SimpleNamespace(prediction=self._predictions.pop(0))


def test_a_prediction_that_is_none_is_said_and_ends_no_process(monkeypatch):
    monkeypatch.setattr(own_process_work, "settle", lambda: None)
    monkeypatch.setattr(own_process_work, "_loaded", lambda job: Odd())
    here, there = multiprocessing.Pipe()
    worker = threading.Thread(target=own_process_work.work, args=(there,), daemon=True)
    worker.start()
    here.send("a job")
    assert here.recv() == "of a policy"
    here.send_bytes(question(observed(), NOISE))
    assert "arrays of numbers, but got one of object" in str(here.recv())
    here.send_bytes(question(observed(), NOISE))
    assert answered(here.recv())[0] == 1.0
    known = KnownActions(np.zeros((1, 8, 2), np.float32), np.zeros((1, 8), np.float32))
    here.send_bytes(question(observed(), NOISE, known))
    assert "Odd cannot be guided" in str(here.recv())
    here.close()
    worker.join(30)
    assert not worker.is_alive()


SCRIPT = """
import sys, time
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.policies.own_process import PolicyProcess

if __name__ == "__main__":
    made = PolicyProcess(sys.argv[1])
    print(made._process.pid, "torch" in sys.modules, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_who_asks_needs_no_torch_and_takes_the_process_along_when_killed(file, tmp_path):
    script = tmp_path / "asks.py"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, script, file], stdout=subprocess.PIPE, text=True) as asks:
        try:
            pid, torch_is_there = asks.stdout.readline().split()
        finally:
            asks.send_signal(signal.SIGKILL)
    assert torch_is_there == "False"
    ends = time.monotonic() + 30
    while _lives(int(pid)):
        assert time.monotonic() < ends
        time.sleep(0.05)


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
