"""dp-serve serves what it is given, ends by Ctrl-C, and answers bad input with one line."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from diffusion_policy.cli.deployed import control_hz
from diffusion_policy.policies.info import CheckpointInfo
from diffusion_policy_client import RemoteController
from tests.cli.running import dp
from tests.policies.test_diffusion_policy import make_policy

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    make_policy().save(tmp_path / "policy.pt")
    return tmp_path / "policy.pt"


def test_serve_plans_for_a_robot_until_ctrl_c(checkpoint: Path) -> None:
    program = "import sys\nfrom diffusion_policy.cli.entry import serve\nsys.exit(serve())"
    words = ["policy.pt", "port=0", "control_hz=20", "safe_action=[100,100]", "safety={rate: 50, stale_s: 9}"]
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program, *words],
        cwd=checkpoint.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            line = process.stdout.readline()  # type: ignore[union-attr]
            found = re.fullmatch(r"serving  policy\.pt at (ws://127\.0\.0\.1:\d+), 20 actions.*Ctrl-C ends\n", line)
            assert found, line or process.stderr.read()  # type: ignore[union-attr]
            with RemoteController(found[1], planning="asked", patience_s=60.0, prompt_s=None) as controller:
                assert controller.step_s == 0.05
                assert controller.welcome["server"].startswith("diffusion-policy ")
                assert len(controller.welcome["policy"]["sha256"]) == 64
                assert np.array_equal(controller.action_at(0.0), [100, 100])
                controller.observe({"pos": np.zeros(2), "points": np.zeros((3, 2))}, 0.0)
                controller.plan(0.0)
                tick = controller.tick(0.05)
                assert tick.plan_start_s == 0.0
                assert np.abs(tick.action - 100).max() <= 2.5 + 1e-3  # 50 a second
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 130
            assert process.stderr.read() == ""  # type: ignore[union-attr]
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "checkpoint: expected a value"),
        (["none.pt"], "policy file none.pt does not exist"),
        (["policy.pt", "host=0.0.0.0"], "token= is required"),
        (["policy.pt", "port=many"], "serve.port: expected a whole number"),
        (["policy.pt", "control_hz=0"], "control_hz must be a positive number"),
        (["policy.pt", "strategy=none"], "expected one of chunking, ensembling, real_time"),
        (["policy.pt", "safety.speed=3"], "unknown setting 'safety.speed'"),
        (["policy.pt", "safe_action=[1,2,3]"], "safe_action must be (2,) numbers"),
        (["policy.pt", "safe_action=[-9,2]"], "within the action's bounds"),
        (["policy.pt", "hots=1"], "did you mean host"),
    ],
)
def test_bad_input_is_one_line(checkpoint: Path, monkeypatch, capsys, words, said) -> None:
    done = dp("serve", *words, folder=checkpoint.parent, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_without_the_extra_it_says_what_to_install(checkpoint: Path, monkeypatch, capsys) -> None:
    for name in [name for name in sys.modules if name.startswith("diffusion_policy.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "msgpack", None)
    done = dp("serve", "policy.pt", folder=checkpoint.parent, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 2
    assert "dp-serve needs msgpack: pip install 'diffusion-policy[serve]'" in done.err


@pytest.mark.parametrize(("trained", "said", "expected"), [(50, None, 50.0), (50, 20, 20.0), (None, None, 10.0)])
def test_rate_is_what_the_policy_was_trained_at_unless_told(trained, said, expected):
    kwargs = {} if trained is None else {"control_hz": trained}
    policy = SimpleNamespace(info=CheckpointInfo(env={"kwargs": kwargs}, dataset={}))
    assert control_hz({"control_hz": said}, policy) == expected


@pytest.mark.parametrize(
    "dataset",
    [
        {"provenance": {"control_hz": 30}},
        {"provenance": {}, "sets": {"a": {"provenance": {}}, "b": {"provenance": {"step_s": 1 / 30}}}},
    ],
)
def test_rate_is_that_of_the_demonstrations_before_that_of_an_environment(dataset):
    policy = SimpleNamespace(info=CheckpointInfo(env={"kwargs": {"control_hz": 50}}, dataset=dataset))
    assert control_hz({"control_hz": None}, policy) == pytest.approx(30)


def test_a_rate_that_nothing_tells_is_said_to_be_taken(caplog):
    policy = SimpleNamespace(info=CheckpointInfo(env={}, dataset={"provenance": {}}))
    assert control_hz({"control_hz": None}, policy) == 10
    assert "10 actions a second are taken: control_hz=HZ says another rate" in caplog.text


@pytest.mark.parametrize("command", ["serve", "record_eval"])
def test_commands_leave_the_rate_to_the_policy(command):
    assert OmegaConf.load(CONF / f"{command}.yaml")["control_hz"] is None
