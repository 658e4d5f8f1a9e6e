"""Whitening and models: what is exact stays exact, the same seed gives the same rows, and formats round-trip."""

import numpy as np
import pytest
import torch

from diffusion_policy.augment.augmenter import ROWS, batch_seed
from diffusion_policy.augment.baselines import GaussianAugmenter, NoiseAugmenter, VaeAugmenter, VaeConfig
from diffusion_policy.augment.synther import TERMINAL_SCALE, SamplingConfig, SyntherAugmenter, SyntherConfig
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.augment.whitening import Whitening
from diffusion_policy.diffusion.edm import Churn
from diffusion_policy.errors import ConfigError, DataError
from diffusion_policy.models.residual_net import ResidualNetConfig
from tests.augment.tables import COLUMNS, table

BOUNDS = ((-1.0, -0.5), (1.0, 0.5))
SMALL = SyntherConfig(ResidualNetConfig(16, 1, 8, 4), sampling=SamplingConfig(steps=4))


def trained(model: object, real: Transitions) -> None:
    pass


def test_whitened_columns_have_unit_variance_but_the_terminal() -> None:
    whitening = Whitening(COLUMNS)
    real = table(500)
    whitening.fit(real)
    rows = whitening.whiten(real.rows)
    others = [i for i in range(COLUMNS.size) if i != COLUMNS.terminal_at]
    torch.testing.assert_close(rows[:, others].std(0, correction=0), torch.ones(len(others)), atol=1e-4, rtol=0)
    assert set(rows[:, COLUMNS.terminal_at].unique().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(whitening.settled(rows).rows, real.rows, atol=1e-6)


def test_constant_columns_come_back_bit_for_bit_whatever_a_model_says() -> None:
    real = table(50)
    real.rows[:, 1] = np.float32(0.1)  # no float32 is 0.1, and a mean of many is not this one
    real.rows[:, COLUMNS.terminal_at] = 0
    whitening = Whitening(COLUMNS)
    whitening.fit(real)
    found = whitening.settled(whitening.whiten(real.rows) + torch.randn(50, COLUMNS.size))
    assert (found.rows[:, 1] == np.float32(0.1)).all()
    assert (found.rows[:, COLUMNS.terminal_at] == 0).all()


def test_small_changes_beside_large_numbers_are_not_lost() -> None:
    real = table(400)
    real.rows[:, 0] = (1000 + 1e-2 * np.random.default_rng(0).standard_normal(400)).astype(np.float32)
    whitening = Whitening(COLUMNS)
    whitening.fit(real)
    again = whitening.settled(whitening.whiten(real.rows))
    np.testing.assert_allclose(again.rows[:, 0], real.rows[:, 0], atol=1e-4, rtol=0)


def test_declared_columns_actions_and_terminals_are_what_they_must_be() -> None:
    columns = Columns({"pos": (2,), "speed": ()}, (2,), rounded=(2, 8), one_hot=((0, 2), (6, 8)))
    whitening = Whitening(columns, BOUNDS)
    whitening.fit(table(100, columns=columns))
    found = whitening.settled(3 * torch.randn(1000, columns.size, generator=torch.Generator().manual_seed(0)))
    assert (found.rows[:, [2, 8]] == np.round(found.rows[:, [2, 8]])).all()
    for start, stop in columns.one_hot:
        assert (np.sort(found.rows[:, start:stop], axis=1) == [0, 1]).all()
    assert (np.abs(found.action) <= BOUNDS[1]).all()
    assert (np.abs(found.action) == BOUNDS[1]).any()
    assert set(found.rows[:, columns.terminal_at]) == {0.0, 1.0}


def test_whitening_refuses_nan_and_single_rows_by_name() -> None:
    real = table(10)
    real.rows[3, 1] = np.nan
    with pytest.raises(DataError, match=r"pos\[1\] hold NaN"):
        Whitening(COLUMNS).fit(real)
    with pytest.raises(DataError, match="at least 2 transitions"):
        Whitening(COLUMNS).fit(table(1))
    with pytest.raises(DataError, match="expected 2 numbers each"):
        Whitening(COLUMNS, ((0.0,), (1.0,)))


@pytest.fixture(params=["synther", "vae", "gaussian", "noise"])
def model(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    made = {
        "synther": lambda: SyntherAugmenter(COLUMNS, BOUNDS, SMALL, trained),
        "vae": lambda: VaeAugmenter(COLUMNS, BOUNDS, VaeConfig(8, 2), trained),
        "gaussian": lambda: GaussianAugmenter(COLUMNS, BOUNDS),
        "noise": lambda: NoiseAugmenter(COLUMNS, BOUNDS),
    }[request.param]()
    made.fit(table())
    return made


def test_every_augmenter_draws_the_same_for_the_same_seed_and_permitted_rows(model) -> None:
    first, again, other = (model.sample(50, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, other.rows)
    assert (np.abs(first.action) <= BOUNDS[1]).all()
    assert np.isfinite(first.rows).all()
    many = model.sample(ROWS + 5, seed=3)
    np.testing.assert_array_equal(many.rows[ROWS:], model.sample_batch(5, seed=3, batch=1).rows)


def test_neighbouring_seeds_share_no_batches(model) -> None:
    mine, theirs = (model.sample(2 * ROWS, seed=seed).rows for seed in (0, 1))
    same = {row.tobytes() for row in mine} & {row.tobytes() for row in theirs}
    assert len(same) < 20  # some by chance; `seed + batch` would share 2048
    drawn = {batch_seed(seed, batch) for seed in range(20) for batch in range(500)}
    assert len(drawn) > 20 * 500 - 3


def test_augmented_rows_are_the_real_ones_and_the_share_that_was_asked(model) -> None:
    real = table(90)
    both = model.augment(real, 0.25, seed=0)
    assert len(both) == 120
    np.testing.assert_array_equal(both.rows[:90], real.rows)
    assert model.augment(real, 0.0, seed=0) is real
    with pytest.raises(ConfigError, match="ratio"):
        model.augment(real, 1.0, seed=0)


def test_gaussian_has_the_datas_correlations() -> None:
    model = GaussianAugmenter(COLUMNS)
    real = table(2000)
    model.fit(real)
    changing = slice(0, COLUMNS.terminal_at)  # a terminal is thresholded
    mine, theirs = (np.corrcoef(rows[:, changing].T) for rows in (real.rows, model.sample(20_000, seed=0).rows))
    assert np.abs(mine - theirs).max() < 0.03


def test_noise_of_no_scale_copies() -> None:
    model = NoiseAugmenter(COLUMNS, scale=0.0)
    real = table(30)
    model.fit(real)
    found = model.sample(100, seed=0)
    apart = np.abs(found.rows[:, None] - real.rows).max(axis=2).min(axis=1)
    assert apart.max() < 1e-6


def test_synther_reads_its_own_settings_and_refuses_others() -> None:
    model = SyntherAugmenter(COLUMNS, None, SMALL)
    assert SyntherConfig.from_plain(model.plain_config()) == SMALL
    with pytest.raises(ConfigError, match="model: unknown setting widht"):
        SyntherConfig.from_plain({"model": {"widht": 3}})
    with pytest.raises(ConfigError, match="trained by a loop"):
        model.fit(table())
    still = SyntherConfig(SMALL.model, sampling=SamplingConfig(4, Churn(0.0), bf16=False))
    assert SyntherConfig.from_plain(SyntherAugmenter(COLUMNS, None, still).plain_config()) == still


def test_rare_terminal_has_a_quarter_of_the_distance_and_its_own_deviation() -> None:
    model = SyntherAugmenter(COLUMNS, None, SMALL, trained)
    real = table()
    model.fit(real)
    rate = real.terminated.mean()
    ones = torch.ones(COLUMNS.size - 1)
    assert torch.equal(model.unit, torch.cat([ones, torch.tensor([TERMINAL_SCALE])]))
    expected = torch.tensor([TERMINAL_SCALE * float(np.sqrt(rate * (1 - rate)))])
    torch.testing.assert_close(model.deviation, torch.cat([ones, expected]))
    rare = table(4000)
    rare.rows[:, COLUMNS.terminal_at] = np.arange(4000) < 3
    model.fit(rare)
    assert model.deviation[-1].item() == pytest.approx(TERMINAL_SCALE * 0.05)  # or targets would be of any size
    for always in (0.0, 1.0):
        real.rows[:, COLUMNS.terminal_at] = always
        constant = SyntherAugmenter(COLUMNS, None, SMALL, trained)
        constant.fit(real)
        assert torch.equal(torch.stack([constant.unit, constant.deviation]), torch.ones(2, COLUMNS.size))
        assert (constant.sample(20, seed=0).rows[:, COLUMNS.terminal_at] == always).all()


def test_network_sees_a_rare_terminal_at_unit_variance_as_any_other_column(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SyntherAugmenter(COLUMNS, None, SMALL, trained)
    real = table(4000)
    real.rows[:, COLUMNS.terminal_at] = np.random.default_rng(1).random(4000) < 0.02
    model.fit(real)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(type(model.network), "forward", lambda self, x, t: seen.append(x) or 0 * x)
    rows = model.whitening.whiten(real.rows)
    rows -= rows.mean(0)
    model.losses(rows, model.draw(4000, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(seen[0].std(0), torch.ones(COLUMNS.size), atol=0.1, rtol=0)


def test_a_model_that_holds_another_network_leaves_its_own() -> None:
    torch.manual_seed(0)
    model = SyntherAugmenter(COLUMNS, None, SMALL, trained)
    model.fit(table())
    other = SyntherAugmenter(COLUMNS, None, SMALL).network
    held = model.holding(other)
    assert held.network is other
    assert model.network is not other
    assert held.whitening is model.whitening
    assert not np.array_equal(held.sample(5, seed=0).rows, model.sample(5, seed=0).rows)
