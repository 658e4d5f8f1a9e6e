"""dp-collect by hand, as a person types it; a scripted person is at the window."""

import sys
from pathlib import Path

import pytest

from diffusion_policy import ReplayBuffer
from diffusion_policy.cli.collect import main
from diffusion_policy.rollout.teleop import Hand


class Person:
    """Leads the agent for two steps, keeps that, and quits."""

    hands = (Hand((100, 200), clicked=True), Hand((110, 210)), Hand(commands=("next",)), *[Hand()] * 8)

    def __init__(self) -> None:
        self.left = list(self.hands)

    def __enter__(self) -> "Person":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, frame: object, lines: object) -> None:
        pass

    def poll(self) -> Hand:
        return self.left.pop(0) if self.left else Hand(commands=("quit",))


def dp_collect(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dp-collect", "task=pusht", *words])
    return main()


def test_collect_by_hand_keeps_what_the_person_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("diffusion_policy.rollout.pygame_window.PygameWindow", Person)
    monkeypatch.chdir(tmp_path)
    words = ["teleop=true", "keep=all", "+env.kwargs.renderer=draw2d", "+env.kwargs.control_hz=50"]
    assert dp_collect(monkeypatch, *words, "out=mine.zarr") == 0
    assert "kept     1 of 1 attempts" in capsys.readouterr().out
    with ReplayBuffer.open(tmp_path / "mine.zarr") as buffer:
        assert buffer["action"].tolist() == [[100, 200], [110, 210]]
        ends = ["success", "terminated", "truncated"]
        assert buffer.keys() == sorted(["action", "agent_pos", "keypoints", "reward", "state", *ends])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["checkpoint=policy.pt"], "teleop=true and checkpoint= exclude each other"),
        ([], "pygame is not installed"),
    ],
)
def test_collect_by_hand_says_in_one_line_what_is_wrong(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    monkeypatch.chdir(tmp_path)
    assert dp_collect(monkeypatch, "teleop=true", "out=mine.zarr", *words) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
