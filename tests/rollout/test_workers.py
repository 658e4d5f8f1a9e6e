"""Worker processes change nothing but the time: not the numbers, not the film, not what is left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import diffusion_policy_envs  # noqa: F401  (its ids must be known before a fixture takes down what a test registers)
from diffusion_policy.config import ActionSpec, ObsField
from diffusion_policy.errors import (
    ConfigError,
    DiffusionPolicyError,
    EnvironmentFailedError,
    EnvironmentIdError,
    ObservationError,
    RenderError,
    WorkerError,
)
from diffusion_policy.film.video import VideoGrid
from diffusion_policy.policies.chunk import ActionChunk
from diffusion_policy.policies.controller import RecedingHorizonController
from diffusion_policy.rollout.evaluate import EvaluationInterrupted, evaluate
from diffusion_policy.rollout.workers import WorkerSlots
from tests.rollout.toys import ToyPolicy

TROUBLE = "toys/Trouble-v0"
LENGTH = 20  # of the longest episode


def run(policy=None, env_id="toys/Chaos-v0", env_kwargs=None, **settings):
    settings = {"episodes": 9, "seed": 100, "num_envs": 4, "workers": 2, "progress": False, **settings}
    settings |= {"env_kwargs": {"length": LENGTH, **(env_kwargs or {})}, "plugins": ["tests.rollout.toys"]}
    return evaluate(RecedingHorizonController(policy or ToyPolicy()), env_id, **settings)


def film_of(**settings):
    """Returns (episodes, the film's frames) of an evaluation with a film of four."""
    grid = VideoGrid(episodes=4, tile=32)
    settings["env_kwargs"] = {"render_size": 50, **settings.get("env_kwargs", {})}  # larger than a tile
    result = run(film=grid, **settings)
    return result.per_episode, np.stack(list(grid.frames()))


def all_ended(pids, patience_s=60.0):
    """Returns whether all processes end in time; a zombie that nobody has buried yet has ended."""

    def lives(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + patience_s
    while any(lives(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(lives(pid) for pid in pids)


@pytest.mark.parametrize(("num_envs", "workers"), [(1, 1), (4, 2), (16, 3)])
def test_workers_episodes_and_policy_calls_are_those_of_one_process(num_envs, workers):
    here, there = ToyPolicy(), ToyPolicy()
    alone = run(here, episodes=20, num_envs=num_envs, workers=0)
    spread = run(there, episodes=20, num_envs=num_envs, workers=workers)
    assert spread.per_episode == alone.per_episode == run(episodes=20, num_envs=3, workers=0).per_episode
    assert there.batches == here.batches  # all predictions of a round in one call
    assert multiprocessing.active_children() == []


def test_policy_predicts_full_batches_while_workers_are_busy_and_changes_nothing(monkeypatch):
    held = []

    class Held(WorkerSlots):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            held.append(self)

    class Watching(ToyPolicy):
        def predict(self, obs, noise):
            busy.append(bool(held[-1].busy))
            filled.append(len(np.unique(noise, axis=0)))
            return super().predict(obs, noise)

    busy, filled = [], []
    monkeypatch.setattr("diffusion_policy.rollout.evaluate.WorkerSlots", Held)
    spread = run(Watching(), episodes=40, num_envs=8, workers=2, batch_size=4)
    assert spread.per_episode == run(episodes=40, num_envs=1, workers=0, batch_size=4).per_episode
    assert sum(busy) > len(busy) / 3
    assert {rows for rows, meanwhile in zip(filled, busy, strict=True) if meanwhile} == {4}


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


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (EnvironmentIdError, {"env_id": "toys/Choas-v0"}),
        (EnvironmentIdError, {"env_kwargs": {"lenght": 3}}),
        (ObservationError, {"policy": ToyPolicy("velocity")}),
        (RenderError, {"film": VideoGrid(), "env_kwargs": {"render_mode": None}}),
    ],
)
def test_refusals_are_the_same_in_workers(kind, settings):
    messages = []
    for workers in (0, 1):
        with pytest.raises(kind) as caught:
            run(workers=workers, num_envs=1, **settings)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_plugins_are_imported_by_workers_and_a_missing_one_is_named():
    with pytest.raises(ConfigError, match="plugins: cannot import no_such_module"):
        evaluate(
            RecedingHorizonController(ToyPolicy()), "toys/Chaos-v0", episodes=1, seed=0, workers=1, progress=False,
            plugins=["no_such_module"],
        )  # fmt: skip


def test_environment_arguments_that_cannot_be_sent_are_refused():
    with pytest.raises(ConfigError, match=r"env_kwargs must be values that can be sent.*use workers=0"):
        run(env_kwargs={"says": lambda: None})


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_of_another_renderer_are_refused_if_the_policy_reads_them(workers):
    policy = ToyPolicy("image", (8, 8, 3))
    policy.obs_spec = {"image": ObsField("rgb", (8, 8, 3))}
    policy.info = SimpleNamespace(env={"renderer": "mujoco"})
    settings = {"env_kwargs": {"obs_keys": ("image",)}, "episodes": 1, "workers": workers}
    with pytest.raises(ObservationError, match=r"pictures by 'mujoco', but this environment draws with 'toy'; expec"):
        run(policy, **settings)
    policy.info = SimpleNamespace(env={"renderer": "toy"})
    assert run(policy, **settings).episodes == 1


@pytest.mark.parametrize("env", [{}, {"renderer": None}, None])
def test_renderer_that_nobody_recorded_or_looks_at_is_no_matter(env):
    policy = ToyPolicy("image", (8, 8, 3))
    policy.obs_spec = {"image": ObsField("rgb", (8, 8, 3))}
    policy.info = SimpleNamespace(env=env)
    assert run(policy, env_kwargs={"obs_keys": ("image",)}, episodes=1, workers=0).episodes == 1
    blind = ToyPolicy()
    blind.info = SimpleNamespace(env={"renderer": "mujoco"})
    assert run(blind, episodes=1, workers=0).episodes == 1


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


SCRIPT = """
import multiprocessing
from diffusion_policy.rollout.evaluate import EvaluationInterrupted
from tests.rollout.test_workers import ToyPolicy, run

class Telling(ToyPolicy):
    def predict(self, obs, noise):
        if not self.batches:
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        return super().predict(obs, noise)

if __name__ == "__main__":
    try:
        run(Telling(), **{settings})
    except EvaluationInterrupted as interrupt:
        print("partial", interrupt.partial.episodes, multiprocessing.active_children())
"""


def started(tmp_path, **settings):
    """Returns a process that evaluates, and the ids of its workers."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("{settings}", repr(settings)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    pids = [int(word) for word in process.stdout.readline().split()]
    if len(pids) != 2:
        pytest.fail(process.communicate(timeout=60)[1])
    return process, pids


def test_ctrl_c_on_a_terminal_shows_no_traceback_and_leaves_no_process(tmp_path):
    process, pids = started(tmp_path, episodes=10**6)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all processes of the group
    out, err = process.communicate(timeout=60)
    assert out.startswith("partial ")
    assert out.rstrip().endswith("[]")
    assert err == ""
    assert process.returncode == 0
    assert all_ended(pids)


def test_workers_end_by_themselves_when_their_parent_is_killed_even_if_they_hang(tmp_path):
    process, pids = started(tmp_path, env_id=TROUBLE, env_kwargs={"accident": "hang"}, worker_timeout_s=600)
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=60)
    assert all_ended(pids)


def left_behind():
    """Returns how many files this process has open, and its children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return (
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        sorted(children.read_text().split()) if children.exists() else [],
    )


def shared_memory():
    """Returns the names of the machine's shared memory: also that of other tests, which run beside this one."""
    memory = Path("/dev/shm")
    return {file.name for file in memory.iterdir()} if memory.is_dir() else set()


def stays(names, seconds=120.0):
    """Returns which of `names` stay in shared memory: what other tests made goes with them, a leak does not."""
    end = time.monotonic() + seconds
    while names and time.monotonic() < end:
        time.sleep(0.1)
        names &= shared_memory()
    return names


def check_nothing_is_left_behind(evaluations):
    run(episodes=1, workers=1)  # Python starts its own resource tracker, one for its lifetime
    before, memory = left_behind(), shared_memory()
    for _ in range(evaluations):
        run(episodes=2, num_envs=2, workers=2)
    assert left_behind() == before
    assert stays(shared_memory() - memory) == set()
    assert multiprocessing.active_children() == []


def test_shared_memory_that_is_never_given_back_is_found():
    from multiprocessing.shared_memory import SharedMemory

    memory = shared_memory()
    leak = SharedMemory(create=True, size=8)
    try:
        assert leak.name.lstrip("/") in stays(shared_memory() - memory, seconds=0.5)
    finally:
        leak.close()
        leak.unlink()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_workers_leave_nothing_behind():
    check_nothing_is_left_behind(2)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_workers_of_twenty_evaluations_leave_nothing_behind():
    check_nothing_is_left_behind(20)


@pytest.mark.slow
@pytest.mark.parametrize("renderer", ["draw2d", "mujoco"])
def test_pictures_drawn_in_workers_are_those_of_this_process(renderer):
    """Every pixel goes into the policy's actions, and these into contacts."""
    from diffusion_policy_envs import gl

    if renderer == "mujoco" and not gl.can_draw():
        pytest.skip("needs a GL that draws")
    seen = {"image": ObsField("rgb", (96, 96, 3)), "agent_pos": ObsField("low_dim", (2,))}

    class Looking(ToyPolicy):
        def predict(self, obs, noise):
            chunk = super().predict({"image": obs["image"] / np.float32(255)}, noise)
            return ActionChunk(256 * (1 + chunk.actions), 256 * (1 + chunk.prediction))

    def episodes(**settings):
        policy = Looking()
        policy.obs_spec, policy.action_spec = seen, ActionSpec((2,), low=0, high=512)
        kwargs = {"obs_keys": list(seen), "renderer": renderer}
        controller = RecedingHorizonController(policy)
        return evaluate(
            controller, "diffusion_policy_envs:PushT-v0", episodes=3, seed=0, env_kwargs=kwargs, progress=False,
            **settings,
        ).per_episode  # fmt: skip

    assert episodes(num_envs=3, workers=2) == episodes(num_envs=1, workers=0)


def test_workers_that_cannot_be_started_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(WorkerSlots, "_listen", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run()
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
