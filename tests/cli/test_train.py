"""What dp-train says when it ends, by itself or by a Ctrl-C that does not wait for a step."""

from types import SimpleNamespace

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


@pytest.mark.parametrize(("env", "named"), [({"id": "a:B-v0"}, ""), ({}, " env.id=PACKAGE:ENV-v0")])
def test_advice_to_evaluate_asks_for_the_environment_that_the_task_lacks(env, named, tmp_path, monkeypatch, capsys):
    policy = SimpleNamespace(info=SimpleNamespace(env=env), action_spec=SimpleNamespace(unit="m"))
    run = SimpleNamespace(rank=0, finished=True, policy=policy, out=tmp_path / "a")
    monkeypatch.setattr("diffusion_policy.training.run.train", lambda config: run)
    monkeypatch.setattr("diffusion_policy.training.reporting.run_summary", lambda *_: [])
    done = dp("train", "task=pusht", "out=a", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    advice = f"next     dp-eval checkpoint={run.out / 'policy.pt'}{named} episodes=100 out={run.out / 'eval'}"
    assert (done.code, done.out.splitlines()[-1]) == (0, advice)
