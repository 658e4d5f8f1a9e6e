"""What a person reads who wrote a command line, or a task, that Hydra cannot read."""

import shlex
from pathlib import Path

import pytest
import yaml

from tests.cli.running import dp

TASK = """\
dataset: mine.zarr
env: {id: "my_pkg:MyEnv-v0", kwargs: {}}
obs:
  tip: {type: low_dim, shape: [3]}
action: {shape: [7]}
"""
MINE = ["--config-dir=my_conf", "task=mine"]


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("eval", ["runs/a"], "settings are KEY=VALUE, but got 'runs/a'; e.g. checkpoint=runs/a/p"),
        ("eval", ["runs/a"], "e.g. checkpoint=runs/a/policy.pt"),
        ("train", ["demos.zarr"], "e.g. dataset=demos.zarr"),
        ("train", ["runs/a/policy.pt"], "e.g. init=runs/a/policy.pt"),
        ("collect", ["pusht"], "e.g. task=pusht"),
        (
            "train",
            ["policy=mlp", "diffusion.num_train_timesteps=50"],
            "unknown setting 'diffusion.num_train_timesteps': policy 'mlp' has no section diffusion; --help",
        ),
        ("train", ["obs.tip.source=stat[7:10]"], """write 'obs.tip.source="stat[7:10]"'"""),
        ("eval", ["runs/a/policy.pt"], "policy checkpoint runs/a/policy.pt does not exist"),
        (
            "benchmark",
            ["suite=offline", "out=x"],
            "the environment lacks OFFLINE_SETS, from which a setting takes its value",
        ),
        (
            "train",
            ["agent=diffusion_qll"],
            "unknown agent 'diffusion_qll', did you mean diffusion_ql? known: diffusion_ql",
        ),
        ("train", ["--dataset", "x"], "unknown option --dataset; settings are KEY=VALUE: dataset=x"),
        ("eval", ["--num-envs=3"], "unknown option --num-envs; settings are KEY=VALUE: num_envs=3"),
        ("train", ["--resume"], "unknown option --resume; settings are KEY=VALUE: resume=..."),
        (
            "train",
            ["--config-dir=my_conf", "task=torn"],
            "my_conf/task/torn.yaml, line 3, column 1: while parsing a fl",
        ),
        ("train", [*MINE, "out=x"], "task=mine: the first line of task/mine.yaml must be '# @package _global_'"),
        ("collect", [*MINE, "out=x"], "task=mine: the first line of task/mine.yaml must be '# @package _global_'"),
        ("train", [*MINE, "dataset=a.zarr"], "does its file begin with '# @package _global_'?"),
    ],
)
def test_command_line_that_cannot_be_read_is_answered_with_one_that_can(
    command: str, words: list[str], message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "my_conf" / "task").mkdir(parents=True)
    (tmp_path / "my_conf" / "task" / "mine.yaml").write_text(TASK)
    (tmp_path / "my_conf" / "task" / "torn.yaml").write_text("# @package _global_\naction: {shape: [7\n")
    done = dp(command, *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert done.err.startswith("error: ")


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("[policy=mlp,optim.lr=0.01]", ["policy=mlp", "optim.lr=0.01"]),
        ("[policy=mlp, optim.betas=[0.9,0.95]]", ["policy=mlp", "optim.betas=[0.9,0.95]"]),
        ("""["policy=mlp",'a,b',c=d]""", ["policy=mlp", "a,b", "c=d"]),
        ("[{words: [a=b, 3]}]", [{"words": ["a=b", 3]}]),
        ("policy=mlp", "policy=mlp"),
        ('it\'s="quoted"', 'it\'s="quoted"'),
    ],
)
def test_advised_quotes_give_what_was_meant_when_they_are_pasted(value, meant, tmp_path, monkeypatch, capsys):
    def run(*words):
        return dp("benchmark", *words, folder=tmp_path, monkeypatch=monkeypatch, capsys=capsys)

    advised = shlex.split(run(f"suite.methods.mlp={value}").err.partition("; write ")[2])
    shown = run(*advised, "--cfg", "job", "--package", "suite.methods").out
    assert yaml.safe_load(shown.partition("\n")[2])["mlp"] == meant
