"""The bytes of a pickle go in, a tree of what it describes comes out; nothing that it names is imported or called.

A pickle is a program for a small stack machine. This machine runs it on stand-ins: a name stays a `Global`, a call
stays a `Made` that says what would have been called. Values that need no code (numbers, text, lists, tuples) are
themselves; dictionaries are lists of pairs, so that no key of a stranger is ever hashed.
Opcodes are decoded by the standard library's pickletools; their meaning: https://docs.python.org/3/library/pickletools.html
"""

import encodings.ascii
import encodings.latin_1
import encodings.raw_unicode_escape  # noqa: F401  codecs that pickletools would import while it reads
import io
import pickletools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from maskfast.core.errors import BundleError

MAX_BYTES = 64 * 2**20
MAX_OPCODES = 500_000
MAX_DEPTH = 200
"""Nesting of what is opened with MARK; honest exports stay below 20."""
MAX_NAME = 300
MAX_NUMBER = 2**256

Value: TypeAlias = Any
"""A plain value, or one of the stand-ins below."""


@dataclass(eq=False, slots=True)
class Made:
    """What a call would have made: of `callee`, with what was put into it afterwards."""

    callee: Value
    args: Value = ()
    kwargs: Value = None
    state: Value = None
    items: list[Value] = field(default_factory=list)
    pairs: list[tuple[Value, Value]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The dotted name of what would have been called, "" where that is itself computed."""
        return self.callee.name if isinstance(self.callee, Global) else ""


@dataclass(eq=False, slots=True)
class Global:
    """A dotted name that the pickle refers to; never looked up."""

    name: str
    state: Value = None


@dataclass(eq=False, slots=True)
class Pairs:
    """A dictionary, as the pairs that were put into it."""

    pairs: list[tuple[Value, Value]] = field(default_factory=list)

    def get(self, key: str) -> Value:
        """Return the last value of the text `key`, None where there is none."""
        return next((value for name, value in reversed(self.pairs) if type(name) is str and name == key), None)


@dataclass(eq=False, slots=True)
class Stored:
    """A persistent id: how torch refers to bytes kept beside the pickle."""

    id: Value


@dataclass(frozen=True)
class Pickle:
    """A whole pickle: its value, how often each name is referred to, and how often each would have been called."""

    value: Value
    names: Counter[str]
    calls: Counter[str]
    opcodes: int


def read_pickle(content: bytes, *, name: str) -> Pickle:
    """Return what the pickle in `content` describes.

    Raises BundleError naming the file `name` for anything that is no pickle or is larger than an honest one.
    """
    if len(content) > MAX_BYTES:
        raise BundleError(f"{name}: its pickle has {len(content)} bytes, more than {MAX_BYTES}")
    machine = _Machine()
    try:
        for opcode, arg, place in pickletools.genops(io.BytesIO(content)):
            machine.step(opcode.name, arg, place or 0)
    except _RefusalError as refusal:
        raise BundleError(f"{name}: {refusal}") from refusal
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise BundleError(f"{name}: is no readable pickle: {reason}") from error
    if machine.stack or machine.marks:
        raise BundleError(f"{name}: is no readable pickle: it leaves values behind")
    return Pickle(machine.result, machine.names, machine.calls, machine.opcodes)


def walk(value: Value) -> Iterator[Value]:
    """Yield every stand-in and list below `value` once, without recursion."""
    waiting, seen = [value], set()
    while waiting:
        node = waiting.pop()
        if not isinstance(node, list | tuple | Made | Global | Pairs | Stored) or id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        waiting.extend(reversed(_list_children(node)))


def _list_children(node: Value) -> list[Value]:
    if isinstance(node, Made):
        return [
            node.callee,
            node.args,
            node.kwargs,
            node.state,
            *node.items,
            *(part for pair in node.pairs for part in pair),
        ]
    if isinstance(node, Global):
        return [node.state]
    if isinstance(node, Pairs):
        return [part for pair in node.pairs for part in pair]
    return [node.id] if isinstance(node, Stored) else list(node)


class _RefusalError(Exception):
    """Why a pickle is not read further."""


class _Machine:
    """The stack machine; each opcode is a method of its name, or plain data."""

    def __init__(self) -> None:
        self.stack: list[Value] = []
        self.marks: list[list[Value]] = []
        self.memo: dict[int, Value] = {}
        self.names: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.opcodes = 0
        self.result: Value = None

    def step(self, opcode: str, arg: Value, place: int) -> None:
        self.opcodes += 1
        if self.opcodes > MAX_OPCODES:
            raise _RefusalError(f"its pickle has more than {MAX_OPCODES} steps")
        if opcode in _PLAIN:
            if isinstance(arg, int) and abs(arg) > MAX_NUMBER:
                raise _RefusalError(f"its pickle holds a number beyond 2**256 at byte {place}")
            self.stack.append(arg)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _STEPS:
            _STEPS[opcode](self, arg)
        elif opcode not in ("PROTO", "FRAME"):
            raise _RefusalError(f"its pickle uses {opcode} at byte {place}, which no fastai export needs")

    def mark(self, _: Value) -> None:
        if len(self.marks) >= MAX_DEPTH:
            raise _RefusalError(f"its pickle is nested deeper than {MAX_DEPTH}")
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self, _: Value = None) -> list[Value]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def drop_mark(self, _: Value) -> None:
        self.pop_mark()

    def pop(self, _: Value) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def dup(self, _: Value) -> None:
        self.stack.append(self.stack[-1])

    def stop(self, _: Value) -> None:
        self.result = self.stack.pop()

    def put(self, index: Value) -> None:
        place = len(self.memo) if index is None else index
        if not 0 <= place < 2**32:
            raise _RefusalError(f"its pickle remembers under {str(place)[:20]}, beyond 32 bits")
        self.memo[place] = self.stack[-1]

    def get(self, index: Value) -> None:
        self.stack.append(self.memo[index])

    def make_tuple(self, _: Value) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise IndexError("the stack is too short")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def make_list(self, _: Value) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def make_dict(self, _: Value) -> None:
        items = self.pop_mark()
        self.stack.append(Pairs(_pair(items)))

    def append(self, _: Value) -> None:
        item = self.stack.pop()
        self._extend([item])

    def appends(self, _: Value) -> None:
        self._extend(self.pop_mark())

    def set_item(self, _: Value) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([(key, value)])

    def set_items(self, _: Value) -> None:
        self._update(_pair(self.pop_mark()))

    def name(self, arg: Value) -> None:
        self.stack.append(self._refer(".".join(str(arg).split(" ", 1))))

    def stack_name(self, _: Value) -> None:
        qualname, module = self.stack.pop(), self.stack.pop()
        if type(qualname) is not str or type(module) is not str:
            raise _RefusalError("its pickle refers to a name that is no text")
        self.stack.append(self._refer(f"{module}.{qualname}"))

    def reduce(self, _: Value) -> None:
        args, callee = self.stack.pop(), self.stack.pop()
        self._make(callee, args)

    def new_with_keywords(self, _: Value) -> None:
        kwargs, args, callee = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._make(callee, args, kwargs)

    def instance(self, arg: Value) -> None:
        callee = self._refer(".".join(str(arg).split(" ", 1)))
        self._make(callee, tuple(self.pop_mark()))

    def make_object(self, _: Value) -> None:
        callee, *args = self.pop_mark()
        self._make(callee, tuple(args))

    def build(self, _: Value) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Made | Global):
            raise _RefusalError(f"its pickle sets the state of a {type(target).__name__}")
        target.state = state
        self.calls[f"{_describe_callee(target)}.__setstate__"] += 1

    def persistent(self, arg: Value) -> None:
        self.stack.append(Stored(self.stack.pop() if arg is None else arg))

    def _refer(self, name: str) -> Global:
        if len(name) > MAX_NAME:
            raise _RefusalError(f"its pickle refers to a name of {len(name)} characters")
        self.names[name] += 1
        return Global(name)

    def _make(self, callee: Value, args: Value, kwargs: Value = None) -> None:
        made = Made(callee, args, kwargs)
        self.calls[_describe_callee(made)] += 1
        self.stack.append(made)

    def _extend(self, items: list[Value]) -> None:
        target = self.stack[-1]
        if not isinstance(target, Made | list):
            raise _RefusalError(f"its pickle appends to a {type(target).__name__}")
        (target.items if isinstance(target, Made) else target).extend(items)

    def _update(self, pairs: list[tuple[Value, Value]]) -> None:
        target = self.stack[-1]
        if not isinstance(target, Made | Pairs):
            raise _RefusalError(f"its pickle sets items of a {type(target).__name__}")
        target.pairs.extend(pairs)


def _pair(items: list[Value]) -> list[tuple[Value, Value]]:
    if len(items) % 2:
        raise _RefusalError("its pickle has a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))


def _describe_callee(node: Made | Global) -> str:
    if isinstance(node, Global):
        return node.name
    return node.kind or "(something that the pickle itself computes)"


_PLAIN = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE
    SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8""".split()  # noqa: SIM905  a table of names
)
_CONSTANTS: dict[str, Callable[[], Value]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": Pairs,
    "EMPTY_SET": list,
}
_STEPS: dict[str, Callable[[_Machine, Value], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.drop_mark,
    "DUP": _Machine.dup,
    "STOP": _Machine.stop,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.make_list,
    "FROZENSET": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_with_keywords,
    "INST": _Machine.instance,
    "OBJ": _Machine.make_object,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent,
    "BINPERSID": _Machine.persistent,
}
