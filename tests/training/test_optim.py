"""Learning rate and data order are functions of the step."""

import numpy as np
import pytest

from diffusion_policy.errors import ConfigError
from diffusion_policy.training.optim import EpochOrder, OptimConfig, lr_factor


def test_lr_factor_warms_up_linearly_then_follows_a_cosine_to_zero() -> None:
    config = OptimConfig(warmup_steps=10)
    assert [lr_factor(s, 110, config) for s in (0, 4, 9)] == pytest.approx([0.0, 0.4, 0.9])
    assert lr_factor(60, 110, config) == pytest.approx(0.5)
    assert lr_factor(110, 110, config) == pytest.approx(0.0)
    assert lr_factor(60, 110, OptimConfig(warmup_steps=10, lr_schedule="constant")) == 1.0


def test_epoch_order_shows_every_window_once_an_epoch_in_a_new_order() -> None:
    order = EpochOrder(20, 4, seed=3)
    epochs = [np.concatenate([order.batch(e * 5 + i) for i in range(5)]) for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(20))
    assert not np.array_equal(epochs[0], epochs[1])


def test_epoch_order_is_a_function_of_seed_and_step_alone() -> None:
    walked, fresh = EpochOrder(20, 4, seed=3), EpochOrder(20, 4, seed=3)
    for step in range(13):
        walked.batch(step)
    np.testing.assert_array_equal(walked.batch(13), fresh.batch(13))
    assert not np.array_equal(EpochOrder(20, 4, seed=4).batch(13), fresh.batch(13))


def test_epoch_order_ends_an_epoch_with_what_is_left() -> None:
    order = EpochOrder(10, 4, seed=0)
    assert [len(order.batch(step)) for step in range(4)] == [4, 4, 2, 4]


def test_epoch_order_uses_small_sets_whole() -> None:
    order = EpochOrder(3, 256, seed=0)
    assert (order.batch_size, order.steps_per_epoch) == (3, 1)
    with pytest.raises(ConfigError, match="at least one training window"):
        EpochOrder(0, 4, seed=0)


@pytest.mark.parametrize(
    "bad", [{"lr": 0.0}, {"betas": (0.9, 1.0)}, {"lr_schedule": "linear"}, {"grad_clip": -1.0}, {"weight_decay": -1.0}]
)
def test_optim_config_refuses_nonsense(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        OptimConfig(**bad)  # type: ignore[arg-type]
