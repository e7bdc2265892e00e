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
DIMS, DATA_TYPE, NAME, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 2, 8, 9, 13, 14
"""Fields of a tensor."""
_VARINT, _LENGTH = 0, 2
_WIRES = {DATA_TYPE: _VARINT, NAME: _LENGTH, RAW_DATA: _LENGTH, EXTERNAL_DATA: _LENGTH, DATA_LOCATION: _VARINT}
"""How they are written."""
_UINT8, _INT8 = 2, 3
"""Values of its data type."""
_WEIGHT, _ZERO_POINT = b"_quantized", b"_zero_point"
"""How the names of a weight and its zero point end; before, they are the same."""
TILE_CHANNELS = 16
"""Input channels from which on a filter wider than a pixel gets a zero point."""
MAX_DEPTH = 32


class Field(NamedTuple):
    """How a field is written, its value (0 where it is no number), the bytes it was read from, and their place."""

    wire: int
    number: int
    content: memoryview
    start: int


Fields = dict[int, list[Field]]


def walk_tensors(content: bytes | memoryview) -> Iterator[Fields]:
    """Yield the fields of every tensor in the file, each by its number in onnx.proto, in the order of the file.

    Raises ValueError or IndexError for bytes that are no ONNX file.
    """
    return _walk(memoryview(content), _MODEL, 0, 0)


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
    """Return the last value of a field, as protobuf does where one comes twice; zero and empty where there is none."""
    return fields[number][-1] if number in fields else Field(_LENGTH, 0, memoryview(b""), 0)


def _walk(message: memoryview, kind: int, depth: int, start: int) -> Iterator[Fields]:
    if depth > MAX_DEPTH:
        raise ValueError(f"its messages are nested deeper than {MAX_DEPTH}")
    if kind == _TENSOR:
        fields: Fields = {}
        for number, field in _read_fields(message, start):
            _check_wire(number, field, _WIRES.get(number, field.wire))
            fields.setdefault(number, []).append(field)
        yield fields
        return
    children = _CHILDREN[kind]
    for number, field in _read_fields(message, start):
        if number in children:
            _check_wire(number, field, _LENGTH)
            yield from _walk(field.content, children[number], depth + 1, field.start)


def _check_wire(number: int, field: Field, expected: int) -> None:
    if field.wire != expected:  # other readers would skip it, and take another one
        raise ValueError(f"field {number} has wire type {field.wire}, expected {expected}")


def _read_fields(message: memoryview, base: int) -> Iterator[tuple[int, Field]]:
    place, end = 0, len(message)
    while place < end:
        key, place = _read_varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            start = place
            value, place = _read_varint(message, place)
            yield number, Field(wire, value, message[start:place], base + start)
            continue
        if wire == _LENGTH:
            length, place = _read_varint(message, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if place + length > end:
            raise ValueError("it is truncated")
        yield number, Field(wire, 0, message[place : place + length], base + place)
        place += length


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError(f"a number at byte {place} is too long")
