"""Flow matching against mathematics: the exact velocity of a mixture is the loss' minimum, and Euler follows it."""

import dataclasses
import itertools
import math

import torch

from diffusion_policy.diffusion.flow import flow_loss, integrate, interpolate


def _exact(mixture):
    """Returns E[x1 - noise | x_t] for samples (B, 1): the velocity whose paths carry noise to the mixture."""

    def velocity(x, t):
        a, s = t[:, None], 1 - t[:, None]
        x1 = mixture.x0_mean(x, a, s)
        noise = torch.where(s > 0, (x - a * x1) / s.clamp(min=1e-12), 0.0)  # at t = 1 the noise's share is gone
        return x1 - noise

    return velocity


def _runge_kutta(velocity, x, steps=2000):
    h = 1 / steps
    for i in range(steps):
        start, middle, end = (torch.full((len(x),), (i + part) * h, dtype=x.dtype) for part in (0, 0.5, 1))
        k1 = velocity(x, start)
        k2 = velocity(x + h / 2 * k1, middle)
        k3 = velocity(x + h / 2 * k2, middle)
        k4 = velocity(x + h * k3, end)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def _draws(mixture, count):
    generator = torch.Generator().manual_seed(0)
    which = torch.multinomial(mixture.weights, count, replacement=True, generator=generator)
    x1 = mixture.means[which] + mixture.std * torch.randn(count, generator=generator)
    noise, t = torch.randn(count, 1, generator=generator), torch.rand(count, generator=generator)
    return x1[:, None].double(), noise.double(), t.double()


def test_paths_begin_at_the_noise_and_end_at_the_sample(mixture):
    x1, noise, _ = _draws(mixture, 10)
    assert torch.equal(interpolate(x1, noise, torch.zeros(10).double()), noise)
    assert torch.equal(interpolate(x1, noise, torch.ones(10).double()), x1)


def test_loss_of_any_other_velocity_is_larger_by_its_square_distance(mixture):
    x1, noise, t = _draws(mixture, 200_000)
    exact = _exact(mixture)

    def off(x, t):
        return 0.5 * torch.sin(3 * x + 2 * t[:, None])

    least = flow_loss(exact, x1, noise=noise, t=t)
    other = flow_loss(lambda x, t: exact(x, t) + off(x, t), x1, noise=noise, t=t)
    apart = off(interpolate(x1, noise, t), t).square().mean(1)
    excess = other - least - apart  # mean zero exactly where `exact` is the conditional mean: Pythagoras
    assert abs(excess.mean()) < 4 * excess.std() / math.sqrt(len(t))
    assert apart.mean() > 20 * excess.std() / math.sqrt(len(t))  # or the line above would prove nothing


def test_euler_has_order_one_on_the_exact_velocity(mixture):
    velocity = _exact(dataclasses.replace(mixture, std=0.3))
    x = torch.randn(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    end = _runge_kutta(velocity, x)
    errors = [(integrate(velocity, x, steps) - end).abs().mean().item() for steps in (40, 80, 160, 320)]
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(abs(order - 1) < 0.1 for order in orders), orders


def test_exact_velocity_carries_noise_to_the_mixture(mixture):
    x = torch.randn(4000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = integrate(_exact(mixture), x, 100)
    assert mixture.distance(drawn.float()) < 0.05
    backwards = integrate(lambda x, t: -_exact(mixture)(x, t), x, 100)
    assert mixture.distance(backwards.float()) > 0.2
