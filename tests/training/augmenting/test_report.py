"""The report: dynamics by re-simulation tell right transitions from wrong ones, and it says what it cannot measure."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_policy.augment.reading import read_transitions
from diffusion_policy.augment.transitions import Columns, Transitions
from diffusion_policy.cli.compose import compose_config
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError, StorageError
from diffusion_policy.rollout.actors import RandomActor
from diffusion_policy.rollout.collect import collect
from diffusion_policy.training.augmenting import run as augment_run
from diffusion_policy.training.augmenting.dynamics import TerminalAgreement, dynamics_errors, open_simulator, scales
from diffusion_policy.training.augmenting.run import augment
from tests.training.augmenting.test_run import TINY, recorded


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hopper") / "hopper.zarr"
    collect("Hopper-v5", RandomActor(), steps=600, seed=0, out=out, keep="all", progress=False)
    return out


def test_recorded_transitions_have_no_dynamics_error_and_others_have(hopper: Path) -> None:
    with ReplayBuffer.open(hopper) as buffer:
        real = read_transitions(buffer)
    simulator, close = open_simulator({"env_id": "Hopper-v5"}, real.columns)
    scale = scales(real)
    right = dynamics_errors(simulator, real, scale, rows=200)
    moved = Transitions(real.columns, real.rows.copy())
    moved.rows[:, real.columns.action_at] = np.roll(real.action, 1, axis=0)
    wrong = dynamics_errors(simulator, moved, scale, rows=200)
    shifted = Transitions(real.columns, real.rows.copy())
    shifted.rows[:, real.columns.next_obs_at] += scale[:-1].astype(np.float32)
    one = dynamics_errors(simulator, shifted, scale, rows=200)
    close()
    assert right.rows.max() < 1e-3
    assert right.reward.max() < 1e-3
    assert wrong.median > 0.1
    np.testing.assert_allclose(one.rows, 1.0, rtol=1e-3)  # each number off by its deviation
    assert len(right.rows) + right.left_out == 200


def test_agreement_about_ends_is_of_the_environments_own_rule(hopper: Path) -> None:
    with ReplayBuffer.open(hopper) as buffer:
        real = read_transitions(buffer)
    simulator, close = open_simulator({"env_id": "Hopper-v5"}, real.columns)

    def agreement(terminal: np.ndarray) -> TerminalAgreement:
        table = Transitions(real.columns, real.rows.copy())
        table.rows[:, real.columns.terminal_at] = terminal
        return dynamics_errors(simulator, table, scales(real)).terminals

    right, ends = agreement(real.terminated), np.flatnonzero(real.terminated)
    assert right.told == right.simulated == right.both > 10
    assert (right.precision, right.recall) == (1.0, 1.0)
    half = real.terminated.copy()
    half[ends[::2]] = False
    forgotten = agreement(half)
    assert forgotten.precision == 1.0
    assert forgotten.recall == forgotten.both / right.simulated < 0.6
    early = agreement(np.roll(real.terminated, -1))  # the same rate, a step before each fall
    assert early.told == pytest.approx(right.told, abs=1)
    assert early.recall == early.precision == 0.0
    never = agreement(np.zeros(len(real), bool))
    assert np.isnan(never.precision)
    assert never.recall == 0.0
    close()


def test_environments_that_cannot_be_set_are_named() -> None:
    columns = Columns({"observation": (3,)}, (1,))
    for provenance, given, said in (
        ({}, columns, "names no environment"),
        ({"env_id": "Pendulum-v1"}, columns, "cannot be put into a recorded state"),
        ({"env_id": "Hopper-v5"}, columns, "observes 11 numbers, but the table has 3"),
        ({"env_id": "Hopper-v5"}, Columns({"pos": (11,)}, (3,)), "expected the field 'observation'"),
        ({"env_id": "Nowhere-v0"}, columns, "Nowhere"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_simulator(provenance, given)


def test_report_compares_models_and_measures_dynamics(hopper: Path, tmp_path: Path) -> None:
    config = compose_config("augment", f"dataset={hopper}", *TINY, "samples=200", f"out={tmp_path / 'more.zarr'}")
    done = augment(config | {"report": True})
    assert done.report == tmp_path / "more.fit/report.html"
    told = json.loads((tmp_path / "more.fit/report.json").read_text())
    assert set(told["models"]) == {"synther", "noise", "vae", "gaussian"}
    synther, noise = told["models"]["synther"], told["models"]["noise"]
    assert synther["samples"] == 200
    assert noise["nearest"] == pytest.approx(synther["nearest"], rel=0.15)
    assert told["models"]["gaussian"]["correlation_mean"] > 0.9
    assert all(each["dynamics_median"] > 100 * told["simulator_floor"] for each in told["models"].values())
    assert (told["real"]["terminal_precision"], told["real"]["terminal_recall"]) == (1.0, 1.0)
    assert {"terminals_told", "terminals_simulated", "terminal_precision", "terminal_recall"} <= set(synther)
    assert told["notes"] == []
    page = done.report.read_text()
    assert "ends, precision" in page
    assert "report.png" in page
    assert "by re-simulation" in page
    assert (tmp_path / "more.fit/report.png").stat().st_size > 10_000


def test_report_of_a_fitted_model_says_that_it_learned_from_others(hopper: Path, tmp_path: Path) -> None:
    config = compose_config("augment", f"dataset={hopper}", *TINY, f"run={tmp_path / 'fit'}", "data.episodes=8")
    augment(config)
    model = f"fitted={tmp_path / 'fit/augmenter.pt'}"
    words = (f"dataset={hopper}", *TINY, "samples=60", model, "report=true")
    augment(compose_config("augment", *words, f"out={tmp_path / 'a.zarr'}"))
    assert "learned from other transitions" in json.loads((tmp_path / "fit/report.json").read_text())["notes"][0]
    augment(compose_config("augment", *words, f"out={tmp_path / 'b.zarr'}", "data.episodes=8"))
    assert json.loads((tmp_path / "fit/report.json").read_text())["notes"] == []
    other = recorded(tmp_path / "other.zarr")
    with pytest.raises(ConfigError, match="has other columns than the model learned from"):
        augment(compose_config("augment", *words, f"out={tmp_path / 'c.zarr'}") | {"dataset": str(other)})
    assert not (tmp_path / "c.zarr").exists()  # before hours of drawing


def test_report_compares_with_all_models_on_fewer_rows_than_a_batch(tmp_path: Path) -> None:
    """And of a single sample: nothing of it may lie in the pictures, and it has no correlations."""
    data = recorded(tmp_path / "data.zarr")
    words = ("augmenter=noise", "training.batch_size=256", "samples=1")
    done = augment(
        compose_config("augment", f"dataset={data}", *TINY, *words, f"out={tmp_path / 'a.zarr'}", "report=true")
    )
    assert done.report is not None
    told = json.loads(done.report.with_suffix(".json").read_text())
    assert told["real"]["transitions"] == 129
    assert set(told["models"]) == {"noise", "vae", "gaussian"}


def test_report_that_cannot_be_written_is_one_error_and_leaves_no_half_of_it(tmp_path: Path, monkeypatch) -> None:
    data = recorded(tmp_path / "data.zarr")
    config = compose_config("augment", f"dataset={data}", *TINY, f"run={tmp_path / 'fit'}", "report=true")
    monkeypatch.setattr(augment_run, "_REPORTED", 50)
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "report.html":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(StorageError, match=r"cannot write the report into .*No space left"):
            augment(config)
    left = {each.name for each in (tmp_path / "fit").iterdir()}
    assert "augmenter.pt" in left
    assert not [each for each in left if "html" in each or "tmp" in each]
    assert augment(config | {"resume": True}).report == tmp_path / "fit/report.html"


def test_report_says_why_dynamics_were_not_measured(tmp_path: Path) -> None:
    data = recorded(tmp_path / "data.zarr")
    config = compose_config("augment", f"dataset={data}", *TINY, f"out={tmp_path / 'more.zarr'}")
    done = augment(config | {"report": True})
    assert done.report is not None
    notes = json.loads(done.report.with_suffix(".json").read_text())["notes"]
    assert len(notes) == 1
    assert "2 terminal steps are left out" in notes[0]
    assert "collect again with dp-collect next_obs=true" in done.report.read_text()
    assert "names no environment" in json.loads(done.report.with_suffix(".json").read_text())["dynamics"]
    assert "not measured: the data set names no environment" in done.report.read_text()
