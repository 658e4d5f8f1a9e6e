"""Reads a pickle without running it: what it names is never looked up, what it would call is never called.

Python's own unpickler imports and calls whatever a file says. This one is a small machine over the same instructions
(`pickletools` takes them apart) that knows data only. A class or a function stays its name, `Named`; a call stays a
note of it, `Inert`; calls of names that the caller has a stand-in for are answered by that. There is no import in it.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from diffusion_policy.errors import CheckpointError
from diffusion_policy.policies.imports.inert import Inert, Named

MAX_BYTES = 64 * 2**20  # of a pickle, without its tensors; published checkpoints have less than 1 MiB

StandIns = Mapping[str, Callable[..., Any]]
"""What answers a call of a name, "module.function"."""


def read_pickle(data: bytes, what: str, *, stand_ins: StandIns, persistent: Callable[[Any], Any]) -> Any:
    """Returns the content of a pickle, without running anything of it.

    Args:
        data: the pickle.
        what: how to call it in messages.
        stand_ins: for calls that are known and harmless.
        persistent: turns the id of something that is stored outside the pickle into what stands for it.

    Raises:
        CheckpointError: damaged, too large, or with instructions that no checkpoint has.
    """
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"{what} has a pickle of {len(data)} bytes, expected at most {MAX_BYTES}; refused")
    try:
        return _Machine(stand_ins, persistent).run(data)
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{what} is damaged, or no checkpoint ({said}); copy it again") from error


_VALUES = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
    ]
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The unpickler's stack and memo, over data only."""

    def __init__(self, stand_ins: StandIns, persistent: Callable[[Any], Any]) -> None:
        self.stand_ins, self.persistent = stand_ins, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Returns what the pickle ends with."""
        for opcode, arg, _ in pickletools.genops(data):
            name = opcode.name
            if name == "STOP":
                return self.pop()
            if name in _VALUES:
                self.stack.append(arg)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name in _TUPLES:
                self.stack.append(self.last(_TUPLES[name]))
            elif name in _INSTRUCTIONS:
                _INSTRUCTIONS[name](self, arg)
            else:
                raise CheckpointError(f"its pickle has the instruction {name}, which no checkpoint needs; refused")
        raise ValueError("it has no end")

    def pop(self) -> Any:
        """Removes the top of the stack, within the last mark."""
        return self.last(1)[0]

    def last(self, count: int) -> tuple[Any, ...]:
        """Removes as many from the top of the stack, within the last mark, in their order."""
        begin = len(self.stack) - count
        if begin < (self.marks[-1] if self.marks else 0):
            raise ValueError("its stack is empty")
        found = tuple(self.stack[begin:])
        del self.stack[begin:]
        return found

    def marked(self) -> list[Any]:
        """Removes what lies above the last mark, and the mark."""
        begin = self.marks.pop()
        found = self.stack[begin:]
        del self.stack[begin:]
        return found

    def top(self) -> Any:
        """Returns the top of the stack."""
        self.stack.append(self.pop())
        return self.stack[-1]

    def made(self, maker: object, args: object) -> object:
        """Returns what stands for the result of a call."""
        if not isinstance(args, tuple):
            raise ValueError("it calls something without a list of arguments")  # noqa: TRY004
        stand_in = self.stand_ins.get(maker.path) if isinstance(maker, Named) else None
        return Inert(maker, args) if stand_in is None else stand_in(*args)

    def put(self, key: Any) -> None:
        """Remembers the top of the stack."""
        self.memo[int(key)] = self.top()

    def extend(self, items: list[Any]) -> None:
        """Adds items to the list, set or inert object on top of the stack."""
        target = self.top()
        if isinstance(target, set):
            target.update(_key(item) for item in items)
        elif isinstance(target, (list, Inert)):
            (target.items if isinstance(target, Inert) else target).extend(items)
        else:
            raise ValueError("it adds items to something that has none")  # noqa: TRY004

    def assign(self, flat: list[Any]) -> None:
        """Sets keys and values, in turn, in the dict or inert object on top of the stack."""
        target = self.top()
        pairs = list(zip(flat[::2], flat[1::2], strict=True))
        if isinstance(target, dict):
            target.update((_key(key), value) for key, value in pairs)
        elif isinstance(target, Inert):
            target.items.extend(pairs)
        else:
            raise ValueError("it sets keys of something that has none")  # noqa: TRY004

    def build(self) -> None:
        """Notes the state of an inert object; that of a dict (attributes of an OrderedDict) is left out."""
        state, target = self.pop(), self.top()
        if isinstance(target, Inert):
            target.state = state

    def drop(self) -> None:
        """Removes the top of the stack, be it a mark."""
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.pop()

    def call_marked(self, named: str | None) -> None:
        """Calls, of what is marked, the first with the others, or a name with all."""
        items = self.marked()
        maker = items.pop(0) if named is None else _named(*named.split(" ", 1))
        self.stack.append(self.made(maker, tuple(items)))

    def call(self, with_names: bool = False) -> None:
        """Calls what lies below its arguments."""
        named = self.pop() if with_names else None
        args, maker = self.pop(), self.pop()
        made = self.made(maker, args)
        if named and isinstance(made, Inert):
            made.items.append(named)
        self.stack.append(made)


def _named(module: object, name: object) -> Named:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("it names something by other things than words")  # noqa: TRY004
    return Named(f"{module}.{name}")


def _key(value: object) -> Any:
    """Returns what may be a key: hashing tuples in tuples in tuples overflows the interpreter's own stack."""
    parts = value if isinstance(value, tuple) else (value,)
    if all(part is None or isinstance(part, (str, bytes, int, float, Named, Inert)) for part in parts) and not any(
        isinstance(part, float) and math.isnan(part) for part in parts
    ):
        return value
    raise ValueError(f"a {type(value).__name__} cannot be a key")


def _put_next(machine: _Machine, arg: Any) -> None:
    machine.put(len(machine.memo))


def _push_dict(machine: _Machine, arg: Any) -> None:
    items = machine.marked()
    machine.stack.append({})
    machine.assign(items)


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, arg: None,
    "FRAME": lambda machine, arg: None,
    "MARK": lambda machine, arg: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, arg: machine.drop(),
    "POP_MARK": lambda machine, arg: machine.marked().clear(),
    "DUP": lambda machine, arg: machine.stack.append(machine.top()),
    "LIST": lambda machine, arg: machine.stack.append(machine.marked()),
    "TUPLE": lambda machine, arg: machine.stack.append(tuple(machine.marked())),
    "DICT": _push_dict,
    "FROZENSET": lambda machine, arg: machine.stack.append(frozenset(map(_key, machine.marked()))),
    "APPEND": lambda machine, arg: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, arg: machine.extend(machine.marked()),
    "ADDITEMS": lambda machine, arg: machine.extend(machine.marked()),
    "SETITEM": lambda machine, arg: machine.assign(list(machine.last(2))),
    "SETITEMS": lambda machine, arg: machine.assign(machine.marked()),
    "PUT": lambda machine, arg: machine.put(arg),
    "BINPUT": lambda machine, arg: machine.put(arg),
    "LONG_BINPUT": lambda machine, arg: machine.put(arg),
    "MEMOIZE": _put_next,
    "GET": lambda machine, arg: machine.stack.append(machine.memo[int(arg)]),
    "BINGET": lambda machine, arg: machine.stack.append(machine.memo[arg]),
    "LONG_BINGET": lambda machine, arg: machine.stack.append(machine.memo[arg]),
    "GLOBAL": lambda machine, arg: machine.stack.append(_named(*arg.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, arg: machine.stack.append(_named(*machine.last(2))),
    "INST": lambda machine, arg: machine.call_marked(arg),
    "OBJ": lambda machine, arg: machine.call_marked(None),
    "REDUCE": lambda machine, arg: machine.call(),
    "NEWOBJ": lambda machine, arg: machine.call(),
    "NEWOBJ_EX": lambda machine, arg: machine.call(with_names=True),
    "BUILD": lambda machine, arg: machine.build(),
    "BINPERSID": lambda machine, arg: machine.stack.append(machine.persistent(machine.pop())),
}
