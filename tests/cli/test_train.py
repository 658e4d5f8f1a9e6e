"""What dp-train says when Ctrl-C does not wait for a step."""

import pytest

from tests.cli.running import dp


@pytest.mark.parametrize("began", [False, True])
def test_interruption_that_waits_for_no_step_says_what_is_left(began, tmp_path, monkeypatch, capsys):
    def interrupted(config):
        if began:
            (tmp_path / "a").mkdir()
            (tmp_path / "a" / "config.yaml").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusion_policy.training.run.train", interrupted)
    done = dp("train", "task=pusht", "out=a", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    left = "go on from what was saved with: dp-train resume=a" if began else "nothing was written"
    assert (done.code, done.err) == (130, f"interrupted; {left}\n")
