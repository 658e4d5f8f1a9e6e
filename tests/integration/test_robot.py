"""A robot controller has torch and numpy and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.policies.test_diffusion_policy import make_policy

FORBIDDEN = ("hydra", "omegaconf", "zarr", "gymnasium", "mujoco", "imageio", "diffusers", "scipy", "matplotlib", "rich")

PROGRAM = """
import sys
import numpy as np
from diffusion_policy import RecedingHorizonController

controller = RecedingHorizonController.load(sys.argv[1])
controller.reset(seeds=0)
for _ in range(5):
    action = controller.act({"pos": np.zeros(2, np.float32), "points": np.zeros((3, 2), np.float32)})
    assert action.shape == (2,)
print(*sorted(m for m in sys.modules if m.split(".")[0] in sys.argv[2:]))
"""


def test_fresh_process_that_loads_and_acts_imports_nothing_of_the_workshop(tmp_path: Path) -> None:
    make_policy().save(tmp_path / "policy.pt")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "policy.pt"), *FORBIDDEN]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, diffusion_policy; print(*[m for m in sys.argv[1:] if m in sys.modules])"
    command = [sys.executable, "-c", program, "torch", "numpy", *FORBIDDEN]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == []


@pytest.mark.parametrize("module", ["policies.controller", "control.planner"])
def test_controller_module_needs_numpy_alone(module: str) -> None:
    program = f"import sys, diffusion_policy.{module}; print(*[m for m in sys.argv[1:] if m in sys.modules])"
    command = [sys.executable, "-c", program, "torch", *FORBIDDEN]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == []


def test_example_runs_a_policy_by_the_clock(tmp_path: Path) -> None:
    make_policy().save(tmp_path / "policy.pt")
    example = Path(__file__).parents[2] / "examples/robot_controller.py"
    done = subprocess.run(
        [sys.executable, str(example), str(tmp_path / "policy.pt"), "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 actions; PlanCounts(accepted=")
    assert "starved=0" in done.stdout
