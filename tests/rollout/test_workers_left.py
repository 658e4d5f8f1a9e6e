"""Whatever ends an evaluation in workers, nothing of it is left behind: no process, no open file, no shared memory."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion_policy.rollout.workers import WorkerSlots
from tests.rollout.evaluations import TROUBLE, run


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


SCRIPT = """
import multiprocessing
from diffusion_policy.rollout.evaluate import EvaluationInterrupted
from tests.rollout.evaluations import run
from tests.rollout.toys import ToyPolicy

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


def test_workers_that_cannot_be_started_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(WorkerSlots, "_listen", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run()
    assert multiprocessing.active_children() == []
