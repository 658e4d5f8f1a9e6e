"""dp-eval decides by itself whether workers pay."""

import pytest

from diffusion_policy.cli.eval import _workers
from diffusion_policy.config import ObsField
from diffusion_policy.errors import ConfigError

PICTURE = {"image": ObsField("rgb", (96, 96, 3)), "agent_pos": ObsField("low_dim", (2,))}
NUMBERS = {"agent_pos": ObsField("low_dim", (2,))}


@pytest.mark.parametrize(
    ("setting", "obs_spec", "num_envs", "cores", "expected"),
    [
        ("auto", PICTURE, 25, 8, 8),
        ("auto", PICTURE, 1, 8, 0),
        ("auto", PICTURE, 25, 1, 0),
        ("auto", NUMBERS, 25, 8, 0),
        (3, NUMBERS, 25, 8, 3),
        (0, PICTURE, 25, 8, 0),
    ],
)
def test_workers_are_as_many_as_cores_only_where_pictures_are_drawn(
    setting, obs_spec, num_envs, cores, expected, monkeypatch
):
    monkeypatch.setattr("diffusion_policy.rollout.provenance.usable_cores", lambda: cores)
    assert _workers({"workers": setting, "num_envs": num_envs}, obs_spec) == expected


@pytest.mark.parametrize("setting", [-1, "many", 1.5, True, None])
def test_workers_of_another_kind_are_refused(setting):
    with pytest.raises(ConfigError, match="workers must be a whole number, 0 or more"):
        _workers({"workers": setting, "num_envs": 4}, PICTURE)
