"""Workers that die, environments that raise, Ctrl-C: the result is the same, or what is finished is handed over."""

import multiprocessing
import os

import numpy as np
import pytest

from diffusion_policy.errors import DiffusionPolicyError, EnvironmentFailedError, ObservationError, WorkerError
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.rollout.evaluate import EvaluationInterrupted
from tests.rollout.evaluations import TROUBLE, run
from tests.rollout.toys import ToyPolicy


def film_of(**settings):
    """Returns (episodes, the film's frames) of an evaluation with a film of four."""
    grid = VideoGrid(episodes=4, tile=32)
    settings["env_kwargs"] = {"render_size": 50, **settings.get("env_kwargs", {})}  # larger than a tile
    result = run(film=grid, **settings)
    return result.per_episode, np.stack(list(grid.frames()))


@pytest.mark.parametrize(("accident", "timeout_s"), [("kill", 60), ("hang", 3)])
def test_worker_lost_in_mid_episode_changes_neither_result_nor_film(accident, timeout_s, tmp_path, caplog):
    expected, frames = film_of(workers=0)
    kwargs = {"accident": accident, "once": str(tmp_path / "happened")}
    episodes, filmed = film_of(env_id=TROUBLE, env_kwargs=kwargs, worker_timeout_s=timeout_s)
    assert (tmp_path / "happened").exists()
    assert "it is replaced" in caplog.text
    assert "102" in caplog.text
    assert episodes == expected
    np.testing.assert_array_equal(filmed, frames)
    assert multiprocessing.active_children() == []


def test_worker_killed_between_steps_is_replaced(caplog):
    class Killer(ToyPolicy):
        def predict(self, obs, noise):
            if len(self.batches) == 2:
                victim = multiprocessing.active_children()[0]
                victim.kill()
                victim.join()
            return super().predict(obs, noise)

    assert run(Killer()).per_episode == run(workers=0).per_episode
    assert "killed by signal 9" in caplog.text


def test_worker_that_dies_again_and_again_ends_the_evaluation_by_seed_and_environment():
    with pytest.raises(WorkerError, match=r"ended 3 times at the episode with seed 102 of toys/Trouble-v0.*code 7"):
        run(env_id=TROUBLE, env_kwargs={"accident": "exit"}, workers=1)
    assert multiprocessing.active_children() == []


def test_exception_in_a_worker_arrives_with_its_traceback_and_workers_are_frugal(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with pytest.raises(WorkerError) as caught:
        run(env_id=TROUBLE, env_kwargs={"accident": "raise"}, workers=1)
    message = str(caught.value)
    assert "toys/Trouble-v0 raised RuntimeError in the episode with seed 102: oh dear" in message
    assert 'toys.py", line' in message
    assert "1 thread, torch False" in message
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_interrupt_hands_over_the_complete_prefix_and_ends_the_workers():
    class Interrupted(ToyPolicy):
        def predict(self, obs, noise):
            if len(self.batches) == 9:
                raise KeyboardInterrupt
            return super().predict(obs, noise)

    with pytest.raises(EvaluationInterrupted) as caught:
        run(Interrupted())
    partial = caught.value.partial
    assert 1 <= partial.episodes < 9
    assert partial.per_episode == run(workers=0).per_episode[: partial.episodes]
    assert multiprocessing.active_children() == []


def test_exception_in_this_process_says_where_it_came_from():
    with pytest.raises(
        EnvironmentFailedError, match=r"Trouble-v0, step 4 of the episode with seed 102, raised Runtime"
    ):
        run(env_id=TROUBLE, env_kwargs={"accident": "raise"}, workers=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_exception_in_an_episode_hands_over_the_complete_prefix(workers):
    kwargs = {"accident": "raise", "seed": 107}
    with pytest.raises(DiffusionPolicyError) as caught:
        run(env_id=TROUBLE, env_kwargs=kwargs, num_envs=3, workers=workers)
    partial = caught.value.partial
    assert 1 <= partial.episodes <= 7
    assert partial.requested == run(workers=0).episodes
    assert "cut short" in partial.summary()
    assert partial.per_episode == run(workers=0).per_episode[: partial.episodes]


def test_refused_observation_hands_over_the_complete_prefix():
    class Broken(ToyPolicy):
        def predict(self, obs, noise):
            if len(self.batches) == 30:
                raise ObservationError("observation 'pos' must be finite")
            return super().predict(obs, noise)

    with pytest.raises(ObservationError) as caught:
        run(Broken(), num_envs=1, workers=0)
    partial = caught.value.partial
    assert partial.episodes >= 1
    assert partial.per_episode == run(workers=0).per_episode[: partial.episodes]
