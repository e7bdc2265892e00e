"""The bytes of an ONNX file go in, the fields of its tensors, or the file with other 8-bit weights, come out.

It needs no onnx package, so it also runs where only scoring is installed.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

# Field numbers of onnx.proto, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING = range(8)
_CHILDREN: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _TENSOR: {},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
}
_SINGLE: dict[int, set[int]] = {_MODEL: {7}, _ATTRIBUTE: {5, 6, 22}, _SPARSE: {1, 2}, _TRAINING: {1, 2}}
"""Which of them come once: onnxruntime makes one of two, which would be another one than either that was checked."""
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 9, 13, 14
FLOAT_DATA, INT32_DATA, DOUBLE_DATA = 4, 5, 10
"""Fields of a tensor."""
_VARINT, _LENGTH = 0, 2
_FIXED = {1: 8, 5: 4}
"""Bytes of the other wire types; the rest, those of groups, is in no ONNX file."""
_WIRES = {
    **dict.fromkeys((DATA_TYPE, DATA_LOCATION), _VARINT),
    **dict.fromkeys((NAME, RAW_DATA, EXTERNAL_DATA, FLOAT_DATA, INT32_DATA, DOUBLE_DATA), _LENGTH),
}
"""How they are written, but for dimensions, which may be written in two ways."""
_MOST = {DIMS: 64, EXTERNAL_DATA: 64}
"""How often one may come in a tensor; the others once, of which other readers may take the first, the last or both."""
_UINT8, _INT8 = 2, 3
"""Values of its data type."""
_WEIGHT, _ZERO_POINT = b"_quantized", b"_zero_point"
"""How the names of a weight and its zero point end; before, they are the same."""
TILE_CHANNELS = 16
"""Input channels from which on a filter wider than a pixel gets a zero point."""
MAX_DEPTH = 32
MAX_FIELDS = 3_000_000
"""Of a file, which take about three seconds; the model in the package has 12,000."""
_MAX_INT32, _MAX_KEY, _MAX_NUMBER = 2**31, 2**32, 2**64


class Field(NamedTuple):
    """The value of a field (0 where it is no number), the bytes it was read from, and their place."""

    number: int
    content: memoryview
    start: int


Fields = dict[int, list[Field]]


def walk_tensors(content: bytes | memoryview) -> Iterator[Fields]:
    """Yield the fields of every tensor in the file, each by its number in onnx.proto, in the order of the file.

    Raises ValueError or IndexError for bytes that are no ONNX file, and for what another reader might read otherwise.
    """
    return _Walk(content).walk(_MODEL, 0, len(content), 0)


def holds_int8(tensors: Iterable[Fields]) -> bool:
    """Say whether one of the tensors has signed 8-bit values."""
    return any(last(fields, DATA_TYPE).number == _INT8 for fields in tensors)


def make_weights_unsigned(content: bytes, tensors: Iterable[Fields]) -> bytes:
    """Return the ONNX file with its int8 tensors, weights and their zero points, as uint8: each value 128 more.

    `tensors` are those of the file. A weight stands for its distance from its zero point, so the file computes the
    same. Raises ValueError where the values of such a tensor are not stored as raw bytes.
    """
    changes: dict[int, bytes] = {}
    for fields in tensors:
        if last(fields, DATA_TYPE).number != _INT8:
            continue
        if RAW_DATA not in fields:
            raise ValueError("an int8 tensor is not stored as raw bytes; write the bundle again")
        changes[last(fields, DATA_TYPE).start] = bytes([_UINT8])
        values = last(fields, RAW_DATA)
        changes[values.start] = (np.frombuffer(values.content, np.uint8) ^ 0x80).tobytes()
    return _replace(content, changes)


def shift_wide_filters(content: bytes, tensors: Iterable[Fields]) -> bytes:
    """Return the ONNX file with the int8 filters wider than a pixel, and their zero points, 1 less each.

    `tensors` are those of the file. A weight stands for its distance from its zero point, so the file computes the
    same. Filters of few input channels, as those of each channel alone, stay; so does what is not stored as
    onnxruntime's quantiser stores it.
    """
    named = {bytes(last(fields, NAME).content): fields for fields in tensors}
    changes: dict[int, bytes] = {}
    for name, fields in named.items():
        zero_point = named.get(name.removesuffix(_WEIGHT) + _ZERO_POINT)
        if zero_point is None or not _is_wide_filter(fields):
            continue
        raw = [last(each, RAW_DATA) for each in (fields, zero_point)]
        weights, zeros = (np.frombuffer(each.content, np.int8) for each in raw)
        if len(zeros) and not zeros.any() and weights.min() > -128:
            changes |= {each.start: (values - 1).tobytes() for each, values in zip(raw, (weights, zeros), strict=True)}
    return _replace(content, changes)


def _replace(content: bytes, changes: dict[int, bytes]) -> bytes:
    """Return `content` with other bytes from each of these places on; none may reach into the next."""
    parts: list[bytes | memoryview] = []
    whole, place = memoryview(content), 0
    for start, new in sorted(changes.items()):
        parts += [whole[place:start], new]
        place = start + len(new)
    return b"".join([*parts, whole[place:]])


def _is_wide_filter(fields: Fields) -> bool:
    dims = [field.number for field in fields.get(DIMS, [])]
    if last(fields, DATA_TYPE).number != _INT8 or RAW_DATA not in fields or len(dims) != 4:
        return False
    _, channels, height, width = dims
    return channels >= TILE_CHANNELS and height * width > 1


def last(fields: Fields, number: int) -> Field:
    """Return the last value of a field; zero and empty where there is none."""
    return fields[number][-1] if number in fields else Field(0, memoryview(b""), 0)


class _Walk:
    """One way through a file, which counts its fields."""

    def __init__(self, content: bytes | memoryview) -> None:
        self._content = content
        self._left = MAX_FIELDS

    def walk(self, kind: int, start: int, end: int, depth: int) -> Iterator[Fields]:
        """Yield the tensors of the message of `kind` that is the bytes `start` to `end` of the file."""
        if depth > MAX_DEPTH:
            raise ValueError(f"its messages are nested deeper than {MAX_DEPTH}")
        if kind == _TENSOR:
            yield self._read_tensor(start, end)
            return
        children, single, seen = _CHILDREN[kind], _SINGLE.get(kind, ()), set()
        for number, wire, _, first, after in self._read_fields(start, end):
            if number not in children:
                continue
            _check_wire(number, wire, _LENGTH)
            if number in single and number in seen:
                raise ValueError(f"field {number} comes twice")
            seen.add(number)
            yield from self.walk(children[number], first, after, depth + 1)

    def _read_tensor(self, start: int, end: int) -> Fields:
        fields: Fields = {}
        whole = memoryview(self._content)
        for number, wire, value, first, after in self._read_fields(start, end):
            if number not in _WIRES and number != DIMS:
                continue
            _check_wire(number, wire, _WIRES.get(number, wire))
            kept = fields.setdefault(number, [])
            if len(kept) == _MOST.get(number, 1):
                raise ValueError(f"field {number} of a tensor comes more than {len(kept)} times")
            kept.append(Field(value, whole[first:after], first))
        if last(fields, DATA_TYPE).number >= _MAX_INT32:
            raise ValueError("the type of a tensor has more than 31 bits")
        return fields

    def _read_fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield number, wire type, value (0 where it is no number), first byte and byte after the last of each."""
        content, place = self._content, start
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            key, first = _read_varint(content, place)
            number, wire, value = key >> 3, key & 7, 0
            if key >= _MAX_KEY or number == 0:  # other readers drop the bits above 32
                raise ValueError(f"field {number} at byte {place}")
            if wire == _LENGTH:
                length, first = _read_varint(content, first)
                place = first + length
            elif wire == _VARINT:
                value, place = _read_varint(content, first)
            elif wire in _FIXED:
                place = first + _FIXED[wire]
            else:
                raise ValueError(f"wire type {wire} at byte {place}")
            if place > end:
                raise ValueError("it is truncated")
            yield number, wire, value, first, place


def _check_wire(number: int, wire: int, expected: int) -> None:
    if wire != expected:  # other readers would skip it, and take another one
        raise ValueError(f"field {number} has wire type {wire}, expected {expected}")


def _read_varint(content: bytes | memoryview, place: int) -> tuple[int, int]:
    """Return a number and the place after it; raises ValueError for one in more bytes than it needs, or than 10."""
    value = content[place]
    if value < 0x80:
        return value, place + 1
    value &= 0x7F
    for shift in range(7, 70, 7):
        place += 1
        byte = content[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 or value >= _MAX_NUMBER:
                break
            return value, place + 1
    raise ValueError(f"a number up to byte {place} is written in too many bytes")
