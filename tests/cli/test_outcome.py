"""How commands with arguments of argparse refuse a command line."""

import pytest

from tests.cli.running import dp


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("convert", ["a", "b", "--format", "umo"], "argument --format: invalid choice: 'umo'"),
        ("inspect", [], "the following arguments are required: dataset; dp-inspect --help shows how"),
        ("imports", ["a"], "the following arguments are required: out; dp-import --help shows how"),
        ("export", ["a", "b", "--nope"], "unrecognized arguments: --nope"),
    ],
)
def test_a_command_line_that_is_wrong_is_answered_in_one_line(name, words, message, tmp_path, monkeypatch, capsys):
    done = dp(name, *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"error: {message}")
