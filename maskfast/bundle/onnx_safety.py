"""The bytes of an ONNX file go in, nothing comes out unless they refer outside themselves or hold broken numbers."""

from collections.abc import Iterator

import numpy as np

from maskfast.core.errors import BundleError

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
_TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 2, 8, 9, 13, 14
_FLOAT_TYPES = {1: np.float32, 10: np.float16, 11: np.float64}
MAX_DEPTH = 32


def check_onnx(content: bytes | memoryview, *, name: str) -> None:
    """Raise BundleError naming the file `name` where a tensor lies in another file or has a value that is not finite.

    Walks the protobuf without the onnx package, so that it also runs where only scoring is installed.
    """
    try:
        for tensor in _walk(memoryview(content), _MODEL, 0):
            _check_tensor(tensor, name)
    except (IndexError, ValueError) as error:
        raise BundleError(f"{name}: is no ONNX file: {error}") from error


def _walk(message: memoryview, kind: int, depth: int) -> Iterator[dict[int, list[int | memoryview]]]:
    if depth > MAX_DEPTH:
        raise ValueError(f"its messages are nested deeper than {MAX_DEPTH}")
    if kind == _TENSOR:
        fields: dict[int, list[int | memoryview]] = {}
        for number, value in _read_fields(message):
            fields.setdefault(number, []).append(value)
        yield fields
        return
    children = _CHILDREN[kind]
    for number, value in _read_fields(message):
        if number in children and isinstance(value, memoryview):
            yield from _walk(value, children[number], depth + 1)


def _read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    place, end = 0, len(message)
    while place < end:
        key, place = _read_varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _read_varint(message, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _read_varint(message, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {place}")
        if place + length > end:
            raise ValueError("it is truncated")
        yield number, message[place : place + length]
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


def _check_tensor(fields: dict[int, list[int | memoryview]], name: str) -> None:
    label = bytes(_last_bytes(fields, _TENSOR_NAME)).decode("utf-8", "replace")[:80]
    if _TENSOR_EXTERNAL in fields or any(fields.get(_TENSOR_LOCATION, [])):
        raise BundleError(f"{name}: tensor {label!r} lies in another file; only files that hold all are opened")
    kinds = [kind for kind in fields.get(_TENSOR_TYPE, []) if isinstance(kind, int)]
    dtype = _FLOAT_TYPES.get(kinds[-1]) if kinds else None
    raw = _last_bytes(fields, _TENSOR_RAW)
    if dtype is None or len(raw) % np.dtype(dtype).itemsize:
        return
    values = np.frombuffer(raw, dtype)
    if values.size > 1 and not np.isfinite(values).all():  # a single infinity is a bound, as of Clip
        raise BundleError(f"{name}: tensor {label!r} has values that are not finite")


def _last_bytes(fields: dict[int, list[int | memoryview]], number: int) -> memoryview:
    """Return the last value of a field, as protobuf does where one comes twice."""
    return next((value for value in reversed(fields.get(number, [])) if isinstance(value, memoryview)), memoryview(b""))
