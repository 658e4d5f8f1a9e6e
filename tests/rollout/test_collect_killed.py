"""A collection that is killed while its store is made is gone on with as if nothing had happened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.rollout.actors import ExpertActor
from diffusion_policy.rollout.collect import collect
from tests.rollout import toys  # noqa: F401 (the script below imports this module to know the environment)

SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.rollout.test_collect_killed import Ended, gather

place, changes, limit = Path(sys.argv[1]), 0, None

def watch(event, args):
    global changes
    if limit is None or event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        return
    if not isinstance(args[0], (str, os.PathLike)) or str(place) not in os.fspath(args[0]):
        return
    if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    changes += 1
    if changes > limit:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
for number in range(1000):
    child = os.fork()
    if not child:
        limit = number
        gather(place / str(number) / "a.zarr", Ended())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != -signal.SIGKILL:
        sys.exit(code)
"""


class Ended(ExpertActor):
    """An expert whose process ends as soon as it is to act: the store is made."""

    def begin(self, env, seed):
        os._exit(0)


def gather(out, actor=None, **settings):
    settings = {"episodes": 2, "seed": 100, "keep": "all", "progress": False, **settings}
    return collect("toys/Count-v0", actor or ExpertActor(), out=out, **settings)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_collection_killed_at_any_moment_while_its_store_is_made_is_resumed(tmp_path):
    whole = gather(tmp_path / "whole.zarr").digest
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    killed = tmp_path / "killed"
    subprocess.run([sys.executable, "-c", SCRIPT, str(killed)], env=environment, check=True, timeout=600)
    assert len(list(killed.iterdir())) > 10  # each before one more change of the disk, the last one before none
    left = {tuple(sorted(file.name for file in folder.glob("a.zarr/**/*"))): folder for folder in killed.iterdir()}
    for folder in left.values():
        assert gather(folder / "a.zarr", resume=True).digest == whole, folder.name
        assert ReplayBuffer.open(folder / "a.zarr").attrs["provenance"]["seeds"] == [100, 101]
