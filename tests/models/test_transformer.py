"""The transformer denoiser sees what it may see, and its optimiser decays what it should."""

import pytest
import torch

from diffusion_policy.errors import ConfigError
from diffusion_policy.models.transformer import ConditionalTransformer
from diffusion_policy.training.optim import OptimConfig, make_optimizer

Tp, To, Da = 6, 2, 3


def make(**changes: object) -> ConditionalTransformer:
    torch.manual_seed(0)
    settings = {"action_dim": Da, "cond_dim": 8, "pred_horizon": Tp, "obs_tokens": To, "embed_dim": 16, "layers": 2}
    net = ConditionalTransformer(**{**settings, "heads": 2, **changes}).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for each in net.parameters():  # as if trained: the first weights are so small that hardly anything is passed on
            each.add_(0.3 * torch.randn_like(each))
    return net


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, Tp, Da, generator=generator), torch.tensor([3, 40]), torch.randn(2, 8, generator=generator)


def test_action_does_not_see_later_actions() -> None:
    net, (x, t, cond) = make(), inputs()
    later = x.clone()
    later[:, 3:] += 1
    before, after = net(x, t, cond), net(later, t, cond)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amax(-1).min() > 1e-6
    free = make(causal=False)
    assert not torch.allclose(free(x, t, cond)[:, :3], free(later, t, cond)[:, :3])


def test_action_does_not_see_observations_of_its_future_but_always_the_timestep() -> None:
    net, (x, t, cond) = make(), inputs()
    newest = cond.clone()
    newest[:, 4:] += 1  # the second of two observations
    before, after = net(x, t, cond), net(x, t, newest)
    torch.testing.assert_close(before[:, :1], after[:, :1])
    assert (before[:, 1:] - after[:, 1:]).abs().amax(-1).min() > 1e-6
    assert (before - net(x, t + 20, cond)).abs().amax(-1).min() > 1e-6


def test_actions_are_told_apart_by_their_place() -> None:
    net, (_, t, cond) = make(causal=False), inputs()
    out = net(torch.zeros(2, Tp, Da), t, cond)
    assert (out[:, 0] - out[:, 1]).abs().max() > 1e-6


def test_weight_decay_spares_all_but_matrices() -> None:
    net = make()
    decayed, spared = make_optimizer(net, OptimConfig(weight_decay=0.1)).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    names = {id(each): name for name, each in net.named_parameters()}
    assert all(each.ndim == 2 for each in decayed["params"])
    said = {names[id(each)] for each in spared["params"]}
    assert {"action_place", "memory_place", "norm.weight", "head.bias"} <= said
    assert "head.weight" not in said
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_networks_without_a_wish_are_decayed_as_one() -> None:
    assert len(make_optimizer(torch.nn.Linear(2, 2), OptimConfig()).param_groups) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"obs_tokens": 3}, "must divide the condition's 8 numbers, but got 3"), ({"heads": 5}, "multiple of 2"),
     ({"dropout": 1.0}, "dropout")],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
