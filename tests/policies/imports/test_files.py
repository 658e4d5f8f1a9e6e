"""Containers of weights: torch's and safetensors' come back exactly; damaged and hostile ones are one line."""

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diffusion_policy.errors import CheckpointError, MissingFileError
from diffusion_policy.policies.imports.inert import Inert
from diffusion_policy.policies.imports.safetensors_file import read_safetensors
from diffusion_policy.policies.imports.torch_file import StoredTensor, open_torch_file

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]


def tensors() -> dict[str, torch.Tensor]:
    made = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    base = torch.randn(4, 5)
    return {**made, "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3), "turned": base.mT, "part": base[1:3, ::2]}


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("ran",))


def test_torch_file_gives_each_tensor_as_saved(tmp_path: Path) -> None:
    saved = tensors()
    torch.save({"state_dicts": {"model": OrderedDict(saved)}, "n": 3}, tmp_path / "x.ckpt")
    with open_torch_file(tmp_path / "x.ckpt") as file:
        found = file.content["state_dicts"]["model"]
        assert list(found) == list(saved)
        for name, value in saved.items():
            assert isinstance(found[name], StoredTensor)
            read = file.load(found[name])
            assert (read.dtype, read.shape) == (value.dtype, value.shape)
            assert torch.equal(read, value)
        assert file.content["n"] == 3


def test_torch_file_keeps_modules_and_parameters_apart_from_code(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "module": layer,
        "weight": layer.weight,
        "optimizer": optimizer.state_dict(),
        "model": layer.state_dict(),
    }
    torch.save(content, tmp_path / "x.ckpt")
    with open_torch_file(tmp_path / "x.ckpt") as file:
        assert isinstance(file.content["module"], Inert)
        for name in (file.content["weight"], file.content["model"]["weight"]):
            assert torch.equal(file.load(name), layer.weight)
        assert torch.equal(
            file.load(file.content["optimizer"]["state"][0]["exp_avg"]), optimizer.state[layer.weight]["exp_avg"]
        )


def test_torch_file_with_code_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil(), "w": torch.ones(2)}, tmp_path / "x.ckpt")
    before = set(sys.modules)
    with open_torch_file(tmp_path / "x.ckpt") as file:
        assert torch.equal(file.load(file.content["w"]), torch.ones(2))
    assert set(sys.modules) == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.ckpt"]


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None], packed: bool = False) -> None:
    """Writes a torch file again with changed entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def entry(name: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    def changed(entries: dict[str, bytes]) -> None:
        full = next(each for each in entries if each.endswith(name))
        entries[full] = change(entries[full])

    return changed


def replaced(old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    return entry("data.pkl", lambda data: data.replace(old, new))


def removed(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda entries: [entries.pop(each) for each in list(entries) if each.endswith(name)].clear()


@pytest.mark.parametrize(
    ("change", "packed", "message"),
    [
        (removed("data.pkl"), False, "holds 0 data.pkl"),
        (removed("data/0"), False, "lacks data/0"),
        (entry("data/0", lambda data: data[:-4]), False, "a tensor has 20 bytes, expected 24"),
        (entry("data/0", lambda data: data + b"0000"), False, "expected at most 24"),
        (entry("byteorder", lambda data: b"big"), False, "another byte order"),
        (entry("data.pkl", lambda data: data[:40]), False, "damaged"),
        (replaced(b"FloatStorage", b"OtherStorage"), False, "way that is not known"),
        (replaced(b"K\x02K\x03\x86", b"K\x7fK\x7f\x86"), False, "outside its storage"),  # a larger shape
        (replaced(b"K\x03K\x01\x86", b"K\x09K\x01\x86"), False, "outside its storage"),  # longer strides
        (replaced(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x00/"), False, "names a file"),
        (lambda entries: None, True, "expected at most"),  # packed: may be a bomb
    ],
)
def test_torch_file_that_is_not_whole_is_one_line(
    change: Callable[[dict[str, bytes]], None], packed: bool, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"w": torch.arange(6.0).reshape(2, 3)}, path)
    rewritten(path, change, packed)
    with pytest.raises(CheckpointError, match=message) as caught, open_torch_file(path) as file:
        file.load(file.content["w"])
    assert "\n" not in str(caught.value)


def test_torch_file_with_a_flipped_bit_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"w": torch.arange(600.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(600.0).numpy().tobytes()) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged"), open_torch_file(path) as file:
        file.load(file.content["w"])
    path.write_bytes(data[:500])
    with pytest.raises(CheckpointError, match="cut short"), open_torch_file(path):
        pass
    torch.save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="since torch 1"), open_torch_file(path):
        pass
    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(CheckpointError, match="since torch 1"), open_torch_file(path):
        pass
    with pytest.raises(MissingFileError, match="does not exist, or is a folder"), open_torch_file(tmp_path):
        pass


def test_tensor_of_repeated_numbers_is_refused(tmp_path: Path) -> None:
    """Four bytes that stand for a tensor of a terabyte."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(1).expand(2**38)}, buffer)
    (tmp_path / "x.ckpt").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="outside its storage of 1"), open_torch_file(tmp_path / "x.ckpt"):
        pass


def test_safetensors_file_gives_each_tensor_as_saved(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    saved = {name: value.contiguous() for name, value in tensors().items()}
    library.save_file(saved, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "x.safetensors")
    assert set(found) == set(saved)
    for name, value in saved.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert torch.equal(found[name], value)


def header(data: bytes = b"\0" * 8, **entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(dtype: str = "F32", shape: Any = (2,), place: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": place}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short, or no .safetensors"),
        (b"abc", "cut short, or no .safetensors"),
        (struct.pack("<Q", 2**63) + b"{}", "cut short, or no .safetensors"),
        (struct.pack("<Q", 2) + b"[]", "header cannot be read"),
        (struct.pack("<Q", 5) + b"{oops", "header cannot be read"),
        (struct.pack("<Q", 200_000) + b"[" * 200_000, "header cannot be read"),
        (header(w=one("F33")), "header cannot be read"),
        (header(w=one(shape=(3,))), "header cannot be read"),
        (header(w=one(shape=(-2,), place=(8, 0))), "header cannot be read"),
        (header(w={}), "header cannot be read"),
        (header(w=one(), x=one()), "overlap or leave gaps"),
        (header(w=one(place=(8, 16)), data=b"\0" * 16), "overlap or leave gaps"),
        (header(w=one(), data=b"\0" * 4), "take 8 bytes, but it has 4"),
    ],
)
def test_safetensors_file_that_is_not_whole_is_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_safetensors(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingFileError, match="do not exist"):
        read_safetensors(tmp_path / "y.safetensors")
