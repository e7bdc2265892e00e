"""The bytes of an ONNX file go in, nothing comes out unless they refer outside themselves or hold broken numbers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from maskfast.bundle.onnx_bytes import (
    DATA_LOCATION,
    DATA_TYPE,
    DOUBLE_DATA,
    EXTERNAL_DATA,
    FLOAT_DATA,
    INT32_DATA,
    NAME,
    RAW_DATA,
    Fields,
    last,
    walk_tensors,
)
from maskfast.core.errors import BundleError

_FLOAT_TYPES: dict[int, npt.DTypeLike] = {
    1: np.float32,
    10: np.float16,
    11: np.float64,
    14: np.float32,
    15: np.float64,
    16: np.uint16,
}
"""Of the data types of onnx.proto those with numbers that may not be finite; complex ones are pairs, 16 is bfloat16."""
_EXACT_TYPES = {0, *range(2, 10), 12, 13, 21, 22}
"""Whole numbers, text, truth values, and 0: no type at all, of which onnxruntime reads nothing."""


def check_onnx(content: bytes | memoryview, *, name: str) -> list[Fields]:
    """Return the tensors of an ONNX file.

    Raises BundleError naming the file `name` where one lies in another file or holds what is not finite.
    """
    try:
        tensors = list(walk_tensors(content))
        for tensor in tensors:
            _check_tensor(tensor, name)
        return tensors
    except (IndexError, ValueError) as error:
        raise BundleError(f"{name}: is no ONNX file: {error}") from error


def _check_tensor(fields: Fields, name: str) -> None:
    label = bytes(last(fields, NAME).content).decode("utf-8", "replace")[:80]
    if EXTERNAL_DATA in fields or any(field.number for field in fields.get(DATA_LOCATION, ())):
        raise BundleError(f"{name}: tensor {label!r} lies in another file; only files that hold all are opened")
    kind = last(fields, DATA_TYPE).number
    if kind in _EXACT_TYPES:
        return
    if kind not in _FLOAT_TYPES:
        raise BundleError(f"{name}: tensor {label!r} is of type {kind}, which maskfast never writes")
    if INT32_DATA in fields:
        raise BundleError(f"{name}: tensor {label!r} of type {kind} is not stored as raw bytes; write the bundle again")
    for number, dtype in ((RAW_DATA, _FLOAT_TYPES[kind]), (FLOAT_DATA, np.float32), (DOUBLE_DATA, np.float64)):
        if _has_broken(last(fields, number).content, np.dtype(dtype)):
            raise BundleError(f"{name}: tensor {label!r} has values that are not finite")


def _has_broken(content: memoryview, dtype: "np.dtype[Any]") -> bool:
    if len(content) % dtype.itemsize:
        return False  # onnxruntime refuses it
    values = np.frombuffer(content, dtype)
    if dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    # a single infinity is a bound, as of Clip
    return bool(np.isnan(values).any() if values.size == 1 else not np.isfinite(values).all())
