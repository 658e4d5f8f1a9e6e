"""dp-augment as a person runs it."""

from pathlib import Path

import pytest
import torch

from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.rollout.actors import RandomActor
from diffusion_policy.rollout.collect import collect
from tests.cli.running import dp
from tests.training.augmenting.test_run import TINY, recorded
from tests.training.augmenting.test_windows import recorded as demonstrations


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys):
    recorded(tmp_path / "data.zarr")

    def command(*words: str, name: str = "augment"):
        return dp(name, *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)

    return command


def test_command_fits_draws_and_says_what_is_next(run, tmp_path: Path) -> None:
    done = run("dataset=data.zarr", "out=more.zarr", *TINY)
    assert done.code == 0, done.err
    assert "model    more.fit/augmenter.pt" in done.out
    assert "dataset  more.zarr (digest" in done.out
    assert "learned  from 129 transitions, 0 of them terminal; 6 left out, nobody saw what followed" in done.out
    shown = run("more.zarr", name="inspect")
    assert shown.code == 0, shown.out
    assert "50 episodes, 50 steps" in shown.out
    assert "return" not in shown.out  # of single transitions there is none
    again = run("fitted=more.fit/augmenter.pt", "samples=20", "seed=7", "out=others.zarr")
    assert again.code == 0
    assert "model" not in again.out


def test_demonstrations_are_augmented_by_windows(run, tmp_path: Path) -> None:
    demonstrations(tmp_path / "demos.zarr")
    words = ("augment=demonstrations", "horizons.action_horizon=2", "horizons.pred_horizon=4", *TINY)
    done = run("dataset=demos.zarr", "out=more.zarr", *words)
    assert done.code == 0, done.err
    assert "learned  from 81 windows of 6 episodes" in done.out
    assert "next     dp-train task=... dataset=demos.zarr seed=0 data.val_ratio=0 data.synthetic=more.zarr" in done.out
    shown = run("more.zarr", name="inspect")
    assert shown.code == 0, shown.out
    done = run("dataset=demos.zarr", "out=other.zarr", *TINY)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "augment windows: augment=demonstrations" in done.err


def test_sampler_of_a_fitted_model_is_its_own_but_for_what_is_typed(run, tmp_path: Path) -> None:
    assert run("dataset=data.zarr", "out=more.zarr", *TINY).code == 0

    def told(*words: str) -> dict:
        out = f"other{len(words)}.zarr"
        assert run("fitted=more.fit/augmenter.pt", "samples=8", f"out={out}", *words).code == 0
        with ReplayBuffer.open(tmp_path / out) as buffer:
            return buffer.attrs["provenance"]["augmenter"]["sampling"]

    assert told()["steps"] == 3  # as fitted, not the default
    typed = told("sampling.steps=5", "sampling.churn.amount=0")
    assert (typed["steps"], typed["churn"]["amount"], typed["churn"]["noise"]) == (5, 0.0, 1.003)
    done = run("fitted=more.fit/augmenter.pt", "model.width=3", "out=a.zarr")
    assert done.code == 2
    assert "fitted= brings its own model and fits nothing; drop model.width" in done.err
    done = run("fitted=more.fit/augmenter.pt", "dataset=data.zarr", "augmenter=vae", "run=b", "out=a.zarr")
    assert "drop dataset, augmenter, run" in done.err
    done = run("fitted=more.fit/augmenter.pt", "noise.scale=2", "out=a.zarr")
    assert "drop noise.scale" in done.err


def test_physics_of_synthetic_data_are_told_and_no_problem(run, tmp_path: Path) -> None:
    collect("Hopper-v5", RandomActor(), steps=300, seed=0, out=tmp_path / "hop.zarr", keep="all", progress=False)
    assert run("dataset=hop.zarr", "out=more.zarr", *TINY).code == 0
    shown = run("more.zarr", "--physics", name="inspect")
    assert shown.code == 0, shown.out
    assert "these are the model's errors" in shown.out


def test_mistakes_are_one_line(run) -> None:
    for words, said in (
        (("out=a.zarr",), "dataset: expected a zarr folder"),
        (("dataset=data.zarr",), "out: expected a path"),
        (("dataset=data.zarr", "out=data.zarr"), "data.zarr exists"),
        (("dataset=data.zarr", "out=a.zarr", "samples=0"), "samples must be a whole number"),
        (("dataset=data.zarr", "out=a.zarr.zip"), "expected a folder to append to, but got a .zip; give out=a.zarr"),
        (("dataset=data.zarr", "out=a.zarr", "model.widht=3"), "did you mean model.width"),
        (("dataset=data.zarr", "out=a.zarr", "augment=gan"), "unknown augment 'gan', known:"),
        (("fitted=none.pt", "out=a.zarr"), "none.pt does not exist"),
    ):
        done = run(*words)
        assert done.code == 2, words
        assert said in done.err
        assert done.err.count("\n") == 1


def test_ctrl_c_while_drawing_tells_how_to_go_on(run, monkeypatch) -> None:
    from diffusion_policy.augment.augmenter import TransitionModel

    draw = TransitionModel.sample_batch

    def stopped(self, count: int, *, seed: int, batch: int = 0):
        if batch:
            raise KeyboardInterrupt
        return draw(self, count, seed=seed, batch=batch)

    with monkeypatch.context() as patch:
        patch.setattr(TransitionModel, "sample_batch", stopped)
        done = run("dataset=data.zarr", "out=more.zarr", *TINY)
    assert done.code == 130
    assert "interrupted with 16 of 50 transitions kept in more.zarr; go on with: dp-augment" in done.err
    assert run("dataset=data.zarr", "out=more.zarr", "resume=true", *TINY).code == 0


def test_ctrl_c_while_fitting_tells_how_to_go_on(run, monkeypatch) -> None:
    from diffusion_policy.training.interrupt import Interrupt

    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "requested", property(lambda _: True, lambda *_: None), raising=False)
        done = run("dataset=data.zarr", "out=more.zarr", *TINY)
    assert done.code == 130
    assert "resume=true" in done.err
    assert run("dataset=data.zarr", "out=more.zarr", "resume=true", *TINY).code == 0
    assert torch.load("more.fit/augmenter.pt", weights_only=True)["info"]["training"]["grad_steps"] == 12


def test_second_ctrl_c_while_fitting_tells_that_the_fit_is_saved(run, monkeypatch) -> None:
    from diffusion_policy.training.augmenting.fitting import ModelObjective

    losses, seen = ModelObjective.loss, []

    def stopped(self, *args):
        seen.append(1)
        if len(seen) == 8:  # saved at step 5
            raise KeyboardInterrupt
        return losses(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(ModelObjective, "loss", stopped)
        done = run("dataset=data.zarr", "out=more.zarr", "data.episodes=5", *TINY)
    assert done.code == 130
    assert "interrupted; what was fitted is saved in more.fit; go on with: dp-augment dataset=data.zarr" in done.err
    assert "data.episodes=5" in done.err
    assert run("dataset=data.zarr", "out=more.zarr", "data.episodes=5", *TINY, "resume=true").code == 0


def test_ctrl_c_between_fit_and_samples_or_in_the_report_keeps_the_fit(run, monkeypatch) -> None:
    from diffusion_policy.training.augmenting import run as stages

    def stopped(*_):
        raise KeyboardInterrupt

    for stage, words in (("_streamed", ["out=more.zarr"]), ("_reported", ["run=fit", "report=true"])):
        with monkeypatch.context() as patch:
            patch.setattr(stages, stage, stopped)
            done = run("dataset=data.zarr", *words, *TINY)
        assert done.code == 130
        assert "interrupted; what was fitted is saved in" in done.err
        assert done.err.strip().endswith("resume=true")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "read_real", stopped)
        done = run("dataset=data.zarr", "out=other.zarr", *TINY)
    assert done.err == "interrupted; nothing was written\n"


def test_ctrl_c_while_drawing_repeats_the_command_as_it_was_typed(run, monkeypatch) -> None:
    from diffusion_policy.augment.augmenter import TransitionModel

    draw = TransitionModel.sample_batch

    def stopped(self, count: int, *, seed: int, batch: int = 0):
        if batch:
            raise KeyboardInterrupt
        return draw(self, count, seed=seed, batch=batch)

    monkeypatch.setattr(TransitionModel, "sample_batch", stopped)
    done = run("dataset=data.zarr", "out=episodes.zarr", "data.episodes=5", *TINY)
    assert "interrupted with 16 of 50 transitions kept in episodes.zarr" in done.err
    assert "data.episodes=5" in done.err


def test_finished_run_is_told_to_be_finished(run) -> None:
    words = ("dataset=data.zarr", "out=more.zarr", *TINY)
    assert "finished earlier" not in run(*words).out
    assert run(*words, "resume=true").out.startswith("finished earlier: nothing was left to fit or to draw\n")


def test_help_has_examples_and_words(run) -> None:
    done = run("--help")
    assert "dp-augment dataset=hopper.zarr samples=100000 out=synthetic.zarr" in done.out
    assert "# synthetic transitions to draw" in done.out
    assert "augment: demonstrations, small, synther, synther_paper" in done.out
