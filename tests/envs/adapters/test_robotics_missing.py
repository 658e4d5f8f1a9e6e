"""What a person reads who lacks gymnasium-robotics or gym-pusht; it needs neither of them."""

from pathlib import Path

import gymnasium as gym
import pytest

from diffusion_policy_envs.adapters.needs import needed
from tests.cli.running import dp
from tests.envs.adapters.missing import hide

NEEDS = {
    "AdroitDoor-v0": ("gymnasium_robotics", "robotics"),
    "Fetch-v0": ("gymnasium_robotics", "robotics"),
    "PymunkPushT-v0": ("gym_pusht", "pusht"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_an_environment_whose_package_is_missing_says_which_extra_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, extra = NEEDS[name]
    hide(package, monkeypatch)
    with pytest.raises(gym.error.DependencyNotInstalled, match=rf"'diffusion-policy\[{extra}\]'"):
        gym.make(f"diffusion_policy_envs:{name}")


def test_a_package_that_lacks_something_itself_says_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_a_package.py").write_text("import no_such_package_of_theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_of_theirs"):
        needed("half_a_package", "extra")


@pytest.mark.parametrize("name", NEEDS)
def test_dp_collect_ends_with_2_and_one_line(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    package, extra = NEEDS[name]
    hide(package, monkeypatch)
    words = [f"env.id=diffusion_policy_envs:{name}", "collect=null", "episodes=1", "out=demos.zarr"]
    done = dp("collect", *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 2
    missing = f"{package} is not installed: pip install 'diffusion-policy[{extra}]'"
    assert done.err == f"error: environment 'diffusion_policy_envs:{name}': {missing}\n"
    assert not (tmp_path / "demos.zarr").exists()
