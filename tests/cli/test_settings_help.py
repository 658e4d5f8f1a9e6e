"""--help says what the settings mean, in the words that stand beside them in the configuration's files."""

import re
from pathlib import Path

import pytest

from diffusion_policy.cli.settings_help import with_words
from diffusion_policy.paths import config_dir
from tests.cli.running import dp


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (
            "train",
            ["init: null # fine-tune this policy.pt", "  val_ratio: 0.02 # share of", "  val_every: 1000 # loss on"],
        ),
        ("eval", ["film: 16 # episodes in the video", "overlay: false # true: twelve sampled chunks"]),
        ("collect", ["keep: auto # auto (success, or all", "teleop: false # true: you act"]),
        ("render", ["workers: auto # processes that draw"]),
        ("serve", ["control_hz: null # actions a second", "  rate: null # greatest change a second"]),
        ("record_eval", ["control_hz: null # actions a second"]),
    ],
)
def test_help_explains_settings(command, lines, tmp_path, monkeypatch, capsys):
    done = dp(command, "--help", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 0
    shown = [
        f"{before.rstrip()} #{after}" for before, _, after in (line.partition("#") for line in done.out.splitlines())
    ]
    for line in lines:
        assert any(each.startswith(line) for each in shown), line


def test_words_belong_to_a_setting_and_not_to_its_namesake(tmp_path: Path):
    (tmp_path / "net").mkdir()
    (tmp_path / "task").mkdir()
    (tmp_path / "command.yaml").write_text("size: 1  # of the film\nworkers:\n  size: 2 # of each\n")
    (tmp_path / "net" / "default.yaml").write_text("size: 3  # of the network\ndepth: 4\n")
    (tmp_path / "net" / "small.yaml").write_text("size: 3  # of the small network\n")
    (tmp_path / "task" / "mine.yaml").write_text("# @package _global_\nsize: 5  # chosen for this task\n")
    help_text = (
        "Examples:\n  size: 9\n\nSettings (KEY=VALUE):\nsize: 1\nworkers:\n  size: 2\nnet:\n  size: 3\n  depth: 4\n"
    )
    shown = with_words(help_text, "command", tmp_path).splitlines()
    words = [line.partition("# ")[2] for line in shown]
    assert words == ["", "", "", "", "of the film", "", "of each", "", "of the network", ""]


def test_help_shows_how_to_take_a_token_from_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DP_TOKEN", raising=False)
    done = dp("serve", "--help", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert "DP_TOKEN=$(openssl rand -hex 16) dp-serve" in done.out
    assert "'token=${oc.env:DP_TOKEN}'" in done.out


@pytest.mark.parametrize("words", ["preset=nope", "trainign.batch_size=3"])
def test_help_of_what_cannot_be_composed_is_the_error_alone(words, tmp_path, monkeypatch, capsys):
    done = dp("train", words, "--help", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")


def test_comments_list_all_values_whatever_the_present_one_is():
    for file in config_dir().rglob("*.yaml"):
        for line in file.read_text().splitlines():
            assert not re.search(r"\S.*# or \w", line), f"{file.name}: {line}"


@pytest.mark.parametrize(
    ("command", "shown", "hidden"),
    [
        ("train", ["policy", "task"], ["suite"]),
        ("collect", ["task"], ["suite", "policy"]),
        ("benchmark", ["suite"], ["task"]),
    ],
)
def test_help_lists_the_groups_that_a_command_chooses_from(command, shown, hidden, tmp_path, monkeypatch, capsys):
    done = dp(command, "--help", folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    listed = re.findall(
        r"^(\w+): ", done.out.partition("Groups (GROUP=NAME):")[2].partition("Settings")[0], re.MULTILINE
    )
    assert set(shown) <= set(listed)
    assert not set(hidden) & set(listed)
