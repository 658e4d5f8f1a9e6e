"""Messages come back as they were, and nothing else passes for one."""

from contextlib import suppress
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from diffusion_policy.serving import protocol
from diffusion_policy.serving.protocol import ProtocolError, pack, unpack

ROOT = Path(__file__).parents[2]


@given(st.sampled_from(protocol.DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=4))))
def test_arrays_come_back_bit_for_bit(array):
    found = unpack(pack({"type": "observe", "obs": {"a": array}}))["obs"]["a"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


def test_arrays_of_any_order_and_scalars_are_sent():
    turned = np.arange(6, dtype=">f4").reshape(2, 3).T
    found = unpack(pack({"type": "x", "a": turned, "b": np.float32(2)}))
    assert np.array_equal(found["a"], turned)
    assert found["b"].shape == ()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data):
    with suppress(ProtocolError):
        assert isinstance(unpack(data)["type"], str)


def test_half_a_message_is_refused_at_every_length():
    whole = pack({"type": "observe", "time_s": 1.0, "obs": {"a": np.arange(4.0)}})
    for length in range(len(whole)):
        with pytest.raises(ProtocolError):
            unpack(whole[:length])


@pytest.mark.parametrize(
    "parts",
    [
        ["<f4", [3], b"1234"],
        ["|O8", [1], b"12345678"],
        ["<f4", [-1], b"1234"],
        ["<f4", [1] * 9, b"1234"],
        ["<f4", 1, b"1234"],
        ["<f4", [2**40, 2**40], b""],
        ["<f4", [True], b"1234"],
        ["<f4", [1]],
        {"a": 1},
    ],
)
def test_arrays_that_are_none_are_refused(parts):
    data = msgpack.packb({"type": "x", "a": msgpack.ExtType(protocol.ARRAY, msgpack.packb(parts))})
    with pytest.raises(ProtocolError):
        unpack(data)


@pytest.mark.parametrize(
    "message", ["text", msgpack.packb([1]), msgpack.packb({"kind": "x"}), msgpack.packb({1: 2}), b"\x91" * 100_000]
)
def test_what_is_no_map_with_a_type_is_refused(message):
    with pytest.raises(ProtocolError):
        unpack(message)


def test_server_and_client_have_the_same_protocol_byte_for_byte():
    ours = ROOT / "diffusion_policy/serving/protocol.py"
    assert ours.read_bytes() == (ROOT / "client/diffusion_policy_client/protocol.py").read_bytes()
