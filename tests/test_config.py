"""The ground floor: schemas, horizons, registry, errors."""

import pytest

from diffusion_policy.config import ActionSpec, Horizons, ObsField, action_spec_from, obs_spec_from
from diffusion_policy.errors import ConfigError, DiffusionPolicyError
from diffusion_policy.registry import Registry
from diffusion_policy.settings import build, difference, plain


def test_horizons_executed_actions_start_now() -> None:
    assert Horizons(2, 8, 16).start == 1
    assert Horizons(1, 1, 1).start == 0


def test_horizons_draws_the_timeline() -> None:
    assert Horizons(2, 3, 6).timeline().splitlines() == [
        "step         -1  0  1  2  3  4",
        "observation   o  o",
        "action        p  A  A  A  p  p",
    ]


def test_horizons_error_says_range_and_draws_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"action_horizon must be in \[1, 15\] .* but got 16") as caught:
        Horizons(2, 16, 16)
    assert str(caught.value).splitlines()[-1].endswith("!")


@pytest.mark.parametrize("bad", [(0, 1, 1), (2, 1, 1), (1, 0, 4), (1.5, 1, 4)])
def test_horizons_refuses_nonsense(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError):
        Horizons(*bad)


def test_build_names_unknown_and_missing_settings() -> None:
    with pytest.raises(ConfigError, match=r"obs\.x: unknown setting shap, known: type, shape, unit, source"):
        build(ObsField, {"type": "low_dim", "shap": [2]}, "obs.x")
    with pytest.raises(ConfigError, match=r"obs\.x: missing setting shape"):
        build(ObsField, {"type": "low_dim"}, "obs.x")


def test_difference_names_what_differs_and_nothing_else() -> None:
    before = {"optim": {"lr": 0.1, "betas": [0.9, 0.99]}, "noise": {}, "seed": 0}
    assert difference(before, {"seed": 0, "noise": {}, "optim": {"betas": [0.9, 0.99], "lr": 0.1}}) == ""
    assert difference(before, {**before, "optim": {"lr": 0.2, "betas": [0.9, 0.99]}}) == "optim.lr 0.1, but got 0.2"
    assert difference(before, {**before, "horizons": {"obs_horizon": 2}}) == "horizons.obs_horizon None, but got 2"
    many = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert difference(many, {}) == "a 1, but got None; b 2, but got None; c 3, but got None; 2 more differ"


def test_specs_survive_plain_values() -> None:
    obs = {"k": ObsField("low_dim", (9, 2), "px", "keypoint"), "img": ObsField("rgb", (96, 96, 3))}
    action = ActionSpec((2,), low=0.0, high=(512.0, 500.0), unit="px", names=("x", "y"))
    assert obs_spec_from(plain(obs)) == obs
    assert action_spec_from(plain(action)) == action
    assert action.bounds() == ([0.0, 0.0], [512.0, 500.0])


def test_action_spec_refuses_bounds_of_another_length() -> None:
    with pytest.raises(ConfigError, match=r"action\.low must have 2 entries"):
        ActionSpec((2,), low=(0.0,))
    with pytest.raises(ConfigError, match="absolute or delta"):
        ActionSpec((2,), kind="relative")  # type: ignore[arg-type]


def test_registry_lists_known_names_and_refuses_a_second_owner() -> None:
    registry: Registry[type] = Registry("thing")
    registry.register("a")(int)
    registry.register("a")(int)  # importing a module twice is no clash
    with pytest.raises(ConfigError, match="already registered"):
        registry.register("a")(str)
    with pytest.raises(KeyError, match="unknown thing 'b', known: a") as caught:
        registry.get("b")
    assert isinstance(caught.value, DiffusionPolicyError)
    assert str(caught.value).startswith("unknown thing")  # not the repr that KeyError prints
