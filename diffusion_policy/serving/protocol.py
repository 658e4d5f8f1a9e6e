"""What a policy server and its clients say to each other: websocket messages of msgpack, arrays as they lie in memory.

This file stands twice, byte for byte: in the server's package and in the client's, which knows nothing of the other.

One connection is one robot. Every message is a map with `type`; a question has an `id`, which its answer repeats.
Times are seconds on the client's clock, which only goes forward. A token travels as `Authorization: Bearer TOKEN`.

    client                                            server
    hello    protocol, client, obs, step_s, planning  welcome  protocol, server, obs, action, horizons, step_s, ...
                                                      refused  message; the connection is then closed
    observe  time_s, obs {key: array}                 (nothing)
    tick     id, time_s, sent, sent_s, stopped        action   id, time_s, action, observed_s, plan_start_s, starved,
                                                               stopped, failed, slow
                                                      ahead    of, time_s, observed_s, plan_start_s, next_s, next
    plan     id, time_s                               done     id, once the plan is there
    reset    id, seed, at, moved, stopped             done     id
    release  id                                       done     id
                                                      error    id, kind, message: what was asked is not possible

`hello.obs` {key: {type, shape}} and `hello.step_s` are what the client takes for granted, None for whatever there is;
`planning` is `auto` (the server plans as its strategy wants) or `asked` (on `plan` alone). `welcome.limits` are the
rules that the client keeps by itself where there is no answer: `low`, `high`, `rate` (a second), and the seconds since
the last action, `elapsed_s`, for which the rate permits change at most. `reset.at` is the action that leaves the robot
where it is: so a client carries it over to a new connection; None: it stands where the last action left it, unless it
was `moved`, and nobody knows where to. `stopped` says why the robot stands still, if it does, though nobody told the
server: a stop stands until `release`, whichever side it began on. `tick.sent` is there where the last tick had no
answer in time: what the robot did, at `sent_s`.
`action.stopped` says why nothing but the safe action is sent, `action.failed` why there will be no plan, `action.slow`
that a plan came too late for the robot to go on. Behind each `action`, so that nobody waits for it, comes an `ahead` of
the same tick's number: `next` (N, *Da), at most `MOST_SAID`, is what is wanted for the step that runs, from `next_s`
on, and for those after it if the server hears and plans nothing else until then, within its limits; with it the client
goes on where an answer comes late, and keeps the rate. None: nothing is left of the plan, or the server would hold or
stop the robot. `tick` and `plan` tell what time it is for the robot, `observe` only
when something was measured. An episode's first plan, for which the robot waits, begins with the tick after it, unless
something was sent before. An `error` without an id is of an observation.

What is no such message ends the connection. A change of any of this raises `PROTOCOL`.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

PROTOCOL = 4
"""Both sides must speak the same."""
MOST_SAID = 9
"""Actions that may be told ahead: of the step that runs, and eight more."""
ARRAY = 1
"""msgpack's number for an array: [dtype, shape, bytes], C order, little-endian."""
DTYPES = ("|b1", "|u1", "<i4", "<i8", "<f4", "<f8")
MOST_AXES = 8
LARGEST = 1e15
"""Of a number: beyond, differences of times would overflow when they are counted in steps."""

REFUSED = 4400
"""Code of a closed connection: the two sides do not fit; the reason says why."""


class ProtocolError(ValueError):
    """What came is no message of this protocol."""


def pack(message: Mapping[str, Any]) -> bytes:
    """Returns a message as bytes."""
    packed: bytes = msgpack.packb(message, default=_packed_array)
    return packed


def unpack(data: bytes | str) -> dict[str, Any]:
    """Returns a message; arrays in it cannot be written to.

    Raises:
        ProtocolError: it is none.
    """
    if isinstance(data, str):
        raise ProtocolError("expected a binary message, but got text")
    try:
        message = msgpack.unpackb(data, ext_hook=_unpacked_array)
    except ProtocolError:
        raise
    except Exception as error:  # msgpack raises many kinds, and none of them may reach further
        raise ProtocolError(f"expected msgpack, but got something else: {error or type(error).__name__}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError(f"expected a map with 'type', but got {type(message).__name__}")
    return message


def number(message: Mapping[str, Any], name: str) -> float:
    """Returns a number of a message, at most `LARGEST`.

    Raises:
        ProtocolError: there is none.
    """
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ProtocolError(f"{message['type']}.{name}: expected a number up to {LARGEST:g}, but got {_short(value)}")
    return float(value)


def whole(message: Mapping[str, Any], name: str) -> int:
    """Returns a whole number of a message, 0 or more.

    Raises:
        ProtocolError: there is none.
    """
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ProtocolError(f"{message['type']}.{name}: expected a whole number, 0 or more, but got {_short(value)}")
    return value


def mapping(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a map of a message, whose keys are words.

    Raises:
        ProtocolError: there is none.
    """
    value = message.get(name)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ProtocolError(f"{message['type']}.{name}: expected a map of words, but got {_short(value)}")
    return value


def text(message: Mapping[str, Any], name: str) -> str | None:
    """Returns a word or sentence of a message, or None.

    Raises:
        ProtocolError: it is something else.
    """
    value = message.get(name)
    if value is not None and not isinstance(value, str):
        raise ProtocolError(f"{message['type']}.{name}: expected text or nothing, but got {_short(value)}")
    return value


def array(message: Mapping[str, Any], name: str) -> Any:
    """Returns an array of a message, or None.

    Raises:
        ProtocolError: it is something else.
    """
    value = message.get(name)
    if value is not None and not isinstance(value, np.ndarray):
        raise ProtocolError(f"{message['type']}.{name}: expected an array or nothing, but got {_short(value)}")
    return value


def described(obs: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns an observation schema {key: {type, shape}} as people read it."""
    return ", ".join(f"{key} {field.get('type')} {tuple(field.get('shape') or ())}" for key, field in obs.items())


def _packed_array(value: Any) -> msgpack.ExtType:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"a message holds plain values and arrays, but got {type(value).__name__}")
    if value.dtype.str not in DTYPES:
        value = value.astype(value.dtype.newbyteorder("<"))
    if value.dtype.str not in DTYPES:
        raise TypeError(f"an array of a message is one of {', '.join(DTYPES)}, but got {value.dtype}")
    return msgpack.ExtType(ARRAY, msgpack.packb([value.dtype.str, list(value.shape), value.tobytes()]))


def _unpacked_array(code: int, data: bytes) -> Any:
    if code != ARRAY:
        raise ProtocolError(f"expected arrays as extension {ARRAY}, but got extension {code}")
    parts = msgpack.unpackb(data)
    if not (isinstance(parts, list) and len(parts) == 3 and isinstance(parts[2], bytes)):
        raise ProtocolError("an array is [dtype, shape, bytes], but got something else")
    dtype, shape, content = parts
    if dtype not in DTYPES:
        raise ProtocolError(f"an array is one of {', '.join(DTYPES)}, but got {_short(dtype)}")
    if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise ProtocolError(f"an array's shape is a list of at most {MOST_AXES} sizes, but got {_short(shape)}")
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if expected != len(content):
        raise ProtocolError(f"an array of shape {_short(shape)} has {expected} bytes, but got {len(content)}")
    return np.frombuffer(content, dtype).reshape(shape)


def _short(value: Any) -> str:
    said = repr(value) if isinstance(value, (str, int, float, bool, type(None), list)) else type(value).__name__
    return said if len(said) <= 60 else f"{said[:57]}..."
