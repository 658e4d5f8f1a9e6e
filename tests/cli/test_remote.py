"""Commands on data sets behind addresses: they read them as local ones, and refuse to write there."""

# ruff: noqa: F811 - fixtures of other files

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diffusion_policy.cli import convert, inspect
from diffusion_policy.data.replay_buffer import ReplayBuffer
from diffusion_policy.errors import ConfigError
from diffusion_policy.training.run import train
from tests.training.conftest import dataset, make_config  # noqa: F401  (fixtures)
from tests.training.runs import weights

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def address(dataset: Path) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    memory.put(str(dataset), "/commands/demos.zarr", recursive=True)
    yield "memory://commands/demos.zarr"
    memory.rm("/commands", recursive=True)


def test_commands_read_an_address(address: str, dataset: Path, tmp_path: Path, capsys) -> None:
    assert inspect.main([address]) == inspect.main([str(dataset)])
    told = capsys.readouterr().out.replace(address, "demos.zarr").replace(str(dataset), "demos.zarr")
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    assert convert.main([address, str(tmp_path / "copy.zarr")]) == 0
    with ReplayBuffer.open(tmp_path / "copy.zarr") as copy, ReplayBuffer.open(dataset) as original:
        assert copy.digest() == original.digest()


def test_run_on_an_address_is_that_on_the_local_copy_and_resumes(
    address: str,
    tmp_path: Path,
    make_config: Callable[..., dict[str, Any]],
) -> None:
    def config(name: str, steps: int) -> dict[str, Any]:
        made = make_config(tmp_path / name, num_grad_steps=steps, val_every=0)
        made["optim"]["lr_schedule"] = "constant"  # of 10 steps, cosine would be another
        return made

    train(config("local", 20))
    train({**config("remote", 10), "dataset": address})
    train({"resume": str(tmp_path / "remote"), "training": {"num_grad_steps": 20}})
    one, other = weights(tmp_path / "remote"), weights(tmp_path / "local")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["memory://nothing/x.zarr", "{out}"], "data set memory://nothing/x.zarr does not exist"),
        (["memory://nothing/x.zip", "{out}"], "data set memory://nothing/x.zip does not exist"),
        (["nobody://x.zarr", "{out}"], "Protocol not known: nobody"),
        (
            ["memory://x.hdf5", "{out}", "--format", "robomimic"],
            "from addresses our own zarr is read only, not robomimic",
        ),
        (["{data}", "s3://bucket/x.zarr"], "DST=s3:/bucket/x.zarr: expected a local path to write to"),
        (["{data}", "s3://bucket/x.zarr", "--trim"], "DST=s3:/bucket/x.zarr: expected a local path to write to"),
    ],
)
def test_convert_exits_2_with_one_line(
    arguments: list[str], message: str, dataset: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "copy.zarr"
    assert convert.main([word.format(out=out, data=dataset) for word in arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_run_is_not_written_to_an_address(tmp_path: Path, make_config: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"out=memory://runs/a: expected a local path"):
        train({**make_config(tmp_path), "out": "memory://runs/a"})
