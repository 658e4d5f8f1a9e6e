"""The wheel: installed alone it finds its configuration, environments and demonstrations, and litters nothing."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import pathlib, sys
import gymnasium
import diffusion_policy, diffusion_policy_envs
from diffusion_policy.paths import bundled_datasets, config_dir

site = pathlib.Path(sys.argv[1])
for found in (diffusion_policy.__file__, diffusion_policy_envs.__file__, config_dir(), bundled_datasets()["pusht"]):
    assert site in pathlib.Path(found).parents, found
assert (config_dir() / "train.yaml").is_file()
env = gymnasium.make("diffusion_policy_envs:PushT-v0")
env.reset(seed=0)
env.step(env.action_space.sample())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_the_two_packages_and_no_stray_top_level_names(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {"diffusion_policy", "diffusion_policy_envs"}
    assert "diffusion_policy/py.typed" in names
    assert any(name.startswith("diffusion_policy/conf/") for name in names)


def test_wheel_holds_every_template_beside_the_module_that_reads_it(wheel: Path) -> None:
    templates = {each.relative_to(ROOT).as_posix() for each in (ROOT / "diffusion_policy").rglob("*.j2")}
    assert "diffusion_policy/training/augmenting/report.html.j2" in templates
    assert templates <= set(zipfile.ZipFile(wheel).namelist())


def test_wheel_installed_alone_finds_everything(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # -P keeps the current folder off the path; the installed copy stands before the editable one
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, str(site)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


ROBOT = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.argv[3].split(","):
            raise ModuleNotFoundError(f"a robot has no {top}")
        return None


sys.meta_path.insert(0, Refuse())
import numpy as np
from diffusion_policy import RecedingHorizonController
import diffusion_policy

assert diffusion_policy.__file__.startswith(sys.argv[1])
controller = RecedingHorizonController.load(sys.argv[2])
controller.reset(seeds=0)
obs = {"pos": np.zeros(2, np.float32), "points": np.zeros((3, 2), np.float32)}
for _ in range(6):
    controller.act(obs)

from diffusion_policy import Planner, SafetyConfig, TimedController
import diffusion_policy.serving

timed = TimedController.load(sys.argv[2], step_s=0.1, safety=SafetyConfig(stale_s=1.0))
timed.observe(obs, 0.0)
timed.plan(0.0)
with Planner(timed, lambda: 0.1):
    assert np.isfinite(timed.action_at(0.1)).all()
"""


def test_wheel_without_dependencies_acts_on_a_machine_with_torch_and_numpy_alone(wheel: Path, tmp_path: Path) -> None:
    """`pip install torch numpy` + `pip install --no-deps <wheel>`: every other dependency of ours is refused."""
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    absent = "gymnasium,mujoco,zarr,hydra,omegaconf,diffusers,imageio,imageio_ffmpeg,PIL,rich,tensorboard,matplotlib"
    absent += ",shapely,scipy,yaml,numcodecs,diffusion_policy_envs,websockets,msgpack,diffusion_policy_client"
    policy = ROOT / "tests" / "fixtures" / "policy_format1.pt"
    done = subprocess.run(
        [sys.executable, "-P", "-c", ROBOT, str(site), str(policy), absent],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


CLIENT = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusion_policy", "zarr", "gymnasium", "hydra"):
            raise ModuleNotFoundError(f"a robot has no {name}")
        return None


sys.meta_path.insert(0, Refuse())
import diffusion_policy_client

assert diffusion_policy_client.__file__.startswith(sys.argv[1])
try:
    diffusion_policy_client.RemoteController("ws://127.0.0.1:9", connect_s=1.0)
except diffusion_policy_client.ServerLostError as error:
    print(error)
"""


def test_client_is_a_wheel_of_its_own_that_needs_no_torch(tmp_path: Path) -> None:
    site = tmp_path / "site"
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT / "client"),
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    made = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(made).namelist()
    assert {name.split("/")[0] for name in names} == {
        "diffusion_policy_client", "diffusion_policy_client-0.1.0.dist-info"
    }  # fmt: skip
    assert "diffusion_policy_client/py.typed" in names
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(made)]
    subprocess.run(install, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-P", "-c", CLIENT, str(site)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "no server at ws://127.0.0.1:9" in done.stdout
