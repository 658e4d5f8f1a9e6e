"""Where console scripts begin: modules in the current folder, installations that lack something, an early Ctrl-C."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from diffusion_policy.cli import entry
from diffusion_policy.installation import DEPENDENCIES, needs_full_install
from tests.cli.running import script

PACKAGE = """
import gymnasium as gym

class Reach(gym.Env):
    observation_space = gym.spaces.Dict({"pos": gym.spaces.Box(-9, 9, (3,))})
    action_space = gym.spaces.Box(-1, 1, (1,))

gym.register("Reach-v0", entry_point=Reach)
"""
ABSENT = "for name in ('zarr', 'hydra', 'yaml', 'gymnasium', 'rich'): sys.modules[name] = None"
REMEDY = "pip install diffusion-policy; a robot that only acts needs torch and numpy"


def test_entry_finds_the_users_package_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "my_pkg.py").write_text(PACKAGE)
    (tmp_path / "zarr.py").write_text("raise SystemExit('the installed zarr was shadowed')")
    policy = Path(__file__).parents[1] / "fixtures" / "policy_format1.pt"
    words = [f"checkpoint={policy}", "env.id=my_pkg:Reach-v0", "plugins=[my_pkg]", "film=0", "out=x"]
    done = script("evaluate", *words, folder=tmp_path)
    assert done.code == 2
    assert done.err.startswith("error: the policy reads"), done.err  # it was found, and does not fit


@pytest.mark.parametrize("name", ["train", "evaluate", "collect", "inspect"])
def test_entry_of_an_installation_without_dependencies_is_one_line(name: str, tmp_path: Path) -> None:
    done = script(name, "demos.zarr", folder=tmp_path, before=ABSENT)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: dp-")
    assert done.err.endswith(REMEDY + "\n")


def test_entry_answers_ctrl_c_during_imports_in_one_line(tmp_path: Path) -> None:
    before = """
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == "hydra":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Press())
"""
    done = script("train", folder=tmp_path, before=before)
    assert (done.code, done.err) == (130, "interrupted\n")


@pytest.mark.parametrize("name", ["ReplayBuffer", "train", "evaluate"])
def test_package_without_dependencies_says_what_an_attribute_needs(name: str, tmp_path: Path) -> None:
    program = f"import sys\n{ABSENT}\nfrom diffusion_policy import {name}"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: diffusion_policy.{name} needs the full install, but there is no ")
    assert last.endswith(REMEDY)


def test_installation_knows_the_modules_of_all_dependencies() -> None:
    modules = packages_distributions()
    for requirement in requires("diffusion-policy") or []:
        name, _, extra = requirement.partition(";")
        if "extra" in extra:
            continue
        name = re.split(r"[<>=! ]", name)[0].lower()
        assert any(name in map(str.lower, modules.get(module, [])) for module in DEPENDENCIES), name


def test_installation_leaves_other_missing_modules_to_speak_for_themselves() -> None:
    assert needs_full_install(ModuleNotFoundError("no my_pkg", name="my_pkg"), "dp-train") is None
    assert needs_full_install(ImportError("broken", name="zarr"), "dp-train") is None


def test_entry_has_a_function_for_each_console_script() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for name, place in project["scripts"].items():
        module, _, function = place.partition(":")
        assert module == "diffusion_policy.cli.entry", name
        assert callable(getattr(entry, function)), name
