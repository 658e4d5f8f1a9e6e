"""A controller of a file: by the engine of its kind, which alone it imports."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from diffusion_policy.errors import CheckpointError, ConfigError, MissingFileError
from diffusion_policy.policies import controller as controller_module
from diffusion_policy.policies.controller import RecedingHorizonController
from tests.policies.step_policy import StepPolicy, batch_sizes


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
