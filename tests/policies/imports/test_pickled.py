"""A pickle is read, never run: nothing is imported, nothing called, whatever it says."""

import os
import pickle
import pickletools
import struct
import sys
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from diffusion_policy.errors import CheckpointError
from diffusion_policy.policies.imports import pickled
from diffusion_policy.policies.imports.inert import Inert, Named, plain
from diffusion_policy.policies.imports.pickled import read_pickle


def read(data: bytes, **stand_ins: Any) -> Any:
    return read_pickle(data, "x.ckpt", stand_ins=stand_ins, persistent=lambda identity: ("stored", identity))


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    """Would run code when given its state."""

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("it ran")

    def __getstate__(self) -> Any:
        return {"a": [1]}


DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.sets(st.integers(), max_size=3)
        | st.frozensets(st.text(), max_size=3)
    ),
    max_leaves=12,
)


@given(value=DATA, protocol=st.integers(0, 5))
def test_pickled_data_come_back_as_python_reads_them(value: Any, protocol: int) -> None:
    data = pickle.dumps([value, value], protocol)  # twice: references, too
    named: dict[str, Any] = {"_codecs.encode": lambda text, coding: text.encode(coding)}
    for home in ("builtins", "__builtin__"):  # old protocols write Python 2's name
        named |= {f"{home}.{each.__name__}": each for each in (set, frozenset, bytes)}
    assert read_pickle(data, "x", stand_ins=named, persistent=str) == [value, value]


def hostile(folder: Path) -> dict[str, bytes]:
    """Pickles that would make `ran` in a folder, or import a module that does."""
    command = f"touch {folder / 'ran'}"
    asked = f"__import__('os').mkdir({str(folder / 'ran')!r})"
    word = struct.pack("<I", len(command)) + command.encode()
    return {
        "system by REDUCE": pickle.dumps(Calls(os.system, command)),
        "eval by REDUCE": pickle.dumps(Calls(eval, asked)),
        "exec, old protocol": pickle.dumps(Calls(exec, asked), 0),
        "STACK_GLOBAL": pickle.dumps({"state_dicts": Calls(os.mkdir, str(folder / "ran"))}, 4),
        "INST": b"(S'" + command.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nX" + word + b"o.",
        "NEWOBJ": b"\x80\x02cos\nsystem\nX" + word + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\nsystem\nX" + word + b"\x85}\x92.",
        "BUILD of a class": pickle.dumps(Stateful()),
        "BUILD by REDUCE": b"\x80\x02ctests.hostile\nStateful\n)R}X\x01\x00\x00\x00aK\x01sb.",
        "import of a module": b"\x80\x02cimports_and_runs\nthing\n.",
        "attribute by attribute": b"cbuiltins\ngetattr\n(cos\npath\nS'os'\ntR.",
        "a pickle in a pickle": pickle.dumps({"pickles": {"x": pickle.dumps(Calls(os.system, command))}}),
        "loads by REDUCE": pickle.dumps(Calls(pickle.loads, pickle.dumps(Calls(os.system, command)))),
        "a reducer inside a key's value": pickle.dumps(OrderedDict(a=Calls(os.system, command))),
    }


NAMES = list(hostile(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickle_runs_nothing_and_imports_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = hostile(tmp_path)[name]
    (tmp_path / "imports_and_runs.py").write_text("from pathlib import Path\n(Path(__file__).parent / 'ran').mkdir()\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    content = read(data)
    assert set(sys.modules) == before
    assert [path.name for path in tmp_path.iterdir()] == ["imports_and_runs.py"]
    assert isinstance(content, (dict, Inert, Named))


@pytest.mark.parametrize("name", ["system by REDUCE", "eval by REDUCE", "INST", "OBJ", "loads by REDUCE"])
def test_hostile_pickle_is_one_that_python_would_run(name: str, tmp_path: Path) -> None:
    """What the test above feeds is live."""
    pickle.loads(hostile(tmp_path)[name])
    assert (tmp_path / "ran").exists()


def test_inert_object_keeps_what_it_was_to_be_made_of() -> None:
    made = read(pickle.dumps(Stateful()))
    assert made.kind.endswith(".Stateful" if made.kind != "copyreg._reconstructor" else "_reconstructor")
    assert made.state == {"a": [1]}
    called = read(pickle.dumps(Calls(os.system, "ls")))
    assert called.kind in ("posix.system", "nt.system")
    assert called.args == ("ls",)


def test_configuration_of_omegaconf_is_read_without_it() -> None:
    settings = {"policy": {"horizon": 16, "crop_shape": [76, 76], "steps": None, "x": 0.5, "on": True}, "name": "a"}
    made = read(pickle.dumps(OmegaConf.create(settings), 2))
    assert isinstance(made, Inert)

    def unfold(inert: Inert) -> object:
        state = inert.state
        assert isinstance(state, dict)
        return state["_content"] if "_content" in state else state["_val"]

    assert plain(made, unfold, "cfg") == settings


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x02", "damaged"),
        (b"\x80\x02}q\x00", "damaged"),
        (b"garbage", "damaged"),
        (b"\x80\x02K\x01R.", "damaged"),  # a call on an empty stack
        (b"\x80\x02h\x05.", "damaged"),  # a reference to nothing
        (b"\x80\x02)}R.", "damaged"),  # arguments that are no list of such
        (b"\x80\x02]K\x01K\x02s.", "damaged"),  # a key of a list
        (b"\x80\x02}]K\x01s.", "cannot be a key"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),  # the registry of extensions
        (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
        (b"Pid\n.", "instruction PERSID"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "damaged"),  # says it is larger than memory
        (b"\x80\x02" + b"(" * 10 + b"1.", "damaged"),
    ],
)
def test_damaged_or_odd_pickle_is_one_line(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_data(data: bytes) -> None:
    before = set(sys.modules)
    with suppress(CheckpointError):
        read(b"\x80\x04" + data)
    assert set(sys.modules) == before


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_flipped_byte_of_a_pickle_is_refused_or_data(place: int, value: int) -> None:
    data = bytearray(pickle.dumps({"cfg": OmegaConf.create({"a": [1, {"b": "c"}]}), "x": OrderedDict(a=1)}, 2))
    data[place % len(data)] = value
    before = set(sys.modules)
    with suppress(CheckpointError):
        read(bytes(data))
    assert set(sys.modules) == before


def test_pickle_that_claims_a_huge_memo_takes_no_memory() -> None:
    """Python's own reader would reserve 32 GiB for this place."""
    assert read(b"\x80\x02K\x01r" + struct.pack("<I", 2**31 - 1) + b".") == 1


def test_deep_key_is_refused_before_it_is_hashed() -> None:
    """Hashing it would overflow the interpreter's stack and end the process."""
    with pytest.raises(CheckpointError, match="a tuple cannot be a key"):
        read(b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.")


def test_configuration_of_references_to_references_is_refused() -> None:
    """Forty lines that spell 2^40 values."""
    lines = b"".join(b"h%c" % n + b"h%c" % n + b"\x86q%c" % (n + 1) for n in range(40))
    content = read(b"\x80\x02K\x01q\x00" + lines + b".")
    with pytest.raises(CheckpointError, match="too large"):
        plain(content, lambda inert: inert.state, "cfg")


def test_configuration_that_holds_itself_is_refused() -> None:
    content: list[Any] = []
    content.append(content)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        plain(read(pickle.dumps(content)), lambda inert: inert.state, "cfg")
    with pytest.raises(CheckpointError, match="holds a Named, expected plain values"):
        plain(read(b"cos\nsystem\n."), lambda inert: inert.state, "cfg")


def test_pickle_larger_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MAX_BYTES", 100)
    with pytest.raises(CheckpointError, match=r"a pickle of \d+ bytes, expected at most 100"):
        read(pickle.dumps("x" * 200))


def test_every_instruction_of_python_is_known_or_refused_by_name() -> None:
    refused = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "PERSID"}
    known = pickled._VALUES | set(pickled._CONSTANTS) | set(pickled._EMPTY) | set(pickled._TUPLES)
    known |= set(pickled._INSTRUCTIONS) | {"STOP"}
    assert {opcode.name for opcode in pickletools.opcodes} - known == refused


def test_torch_is_not_among_what_a_pickle_can_reach() -> None:
    made = read(pickle.dumps(torch.float32))
    assert made == Named("torch.float32") or isinstance(made, (Inert, str, Named))
