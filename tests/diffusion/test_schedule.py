import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffusion_policy.diffusion.schedule import BETA_SCHEDULES, Grid, make_alpha_bar, make_betas, make_timesteps
from diffusion_policy.errors import ConfigError, UnknownNameError

DIFFUSERS_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")


@pytest.mark.parametrize("T", [5, 50, 100, 1000])
@pytest.mark.parametrize("name", DIFFUSERS_SCHEDULES)
def test_betas_and_alpha_bar_equal_diffusers_bit_for_bit(name, T):
    oracle = DDPMScheduler(num_train_timesteps=T, beta_schedule=name, beta_start=1e-4, beta_end=0.02)
    betas = make_betas(name, T, 1e-4, 0.02)
    assert betas.dtype == torch.float32
    assert torch.equal(betas, oracle.betas)
    assert torch.equal(make_alpha_bar(betas), oracle.alphas_cumprod)


def test_vp_betas_are_those_of_diffusion_ql():
    torch.testing.assert_close(
        make_betas("vp", 5, 1e-4, 0.02), torch.tensor([0.196, 0.459, 0.636, 0.755, 0.835]), atol=6e-4, rtol=0
    )
    for T in (5, 10, 50, 100):
        assert make_alpha_bar(make_betas("vp", T, 1e-4, 0.02))[-1].item() == pytest.approx(0.0064, abs=5e-5)


@pytest.mark.parametrize("name", BETA_SCHEDULES.names())
def test_alpha_bar_falls_from_one_towards_zero(name):
    alpha_bar = make_alpha_bar(make_betas(name, 1000, 1e-4, 0.02))
    assert alpha_bar[0] > 0.99
    assert alpha_bar[-1] < 0.01
    assert (alpha_bar.diff() < 0).all()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("T", [5, 50, 100, 1000])
def test_timesteps_equal_diffusers_for_every_number_of_steps(T, spacing):
    oracle = DDIMScheduler(num_train_timesteps=T, timestep_spacing=spacing)
    for N in range(1 if spacing == "trailing" else 2, T + 1):
        oracle.set_timesteps(N)
        expected = oracle.timesteps.tolist()
        if expected[-1] == -1:  # numpy.arange yields one element too many for some N
            assert (spacing, len(expected)) == ("trailing", N + 1)
            expected.pop()
        assert list(make_timesteps(T, N, spacing)) == expected


def test_timesteps_of_trailing_spacing_begin_where_training_ends():
    assert all(make_timesteps(100, N)[0] == 99 for N in range(1, 101))
    assert make_timesteps(100, 50, "leading")[0] == 98
    assert make_timesteps(100, 16, "leading")[0] == 90


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_timesteps_refuse_one_step_from_timestep_zero(spacing):
    with pytest.raises(ConfigError, match="use trailing"):
        make_timesteps(100, 1, spacing)


@pytest.mark.parametrize("N", [0, 101, 2.0, True])
def test_timesteps_refuse_an_impossible_number_of_steps(N):
    with pytest.raises(ConfigError, match=r"\[1, 100\]"):
        make_timesteps(100, N)


def test_schedule_errors_list_what_would_have_worked():
    with pytest.raises(UnknownNameError, match="squaredcos_cap_v2"):
        make_betas("cosine", 100, 1e-4, 0.02)
    with pytest.raises(ConfigError, match="leading, trailing, linspace"):
        make_timesteps(100, 10, "uniform")
    with pytest.raises(ConfigError, match="num_train_timesteps"):
        make_betas("linear", 0, 1e-4, 0.02)
    with pytest.raises(ConfigError, match="beta_start"):
        make_betas("linear", 100, 0.02, 1e-4)


def test_grid_strided_equals_chain_exactly_where_steps_divide_timesteps():
    alpha_bar = make_alpha_bar(make_betas("squaredcos_cap_v2", 100, 1e-4, 0.02))
    for N in range(2, 101):
        for spacing in ("leading", "trailing"):
            timesteps = make_timesteps(100, N, spacing)
            chain, strided = Grid.chain(alpha_bar, timesteps), Grid.strided(alpha_bar, timesteps)
            assert chain.alpha_bar_next[-1] == 1
            assert torch.equal(chain.alpha_bar_next[:-1], chain.alpha_bar[1:])
            if 100 % N == 0:
                assert torch.equal(chain.alpha_bar_next, strided.alpha_bar_next)
