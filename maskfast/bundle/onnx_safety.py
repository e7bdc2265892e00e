"""The bytes of an ONNX file go in, nothing comes out unless they refer outside themselves or hold broken numbers."""

import numpy as np

from maskfast.bundle.onnx_bytes import (
    DATA_LOCATION,
    DATA_TYPE,
    EXTERNAL_DATA,
    NAME,
    RAW_DATA,
    Fields,
    last,
    walk_tensors,
)
from maskfast.core.errors import BundleError

_FLOAT_TYPES = {1: np.float32, 10: np.float16, 11: np.float64}


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
    dtype = _FLOAT_TYPES.get(last(fields, DATA_TYPE).number)
    raw = last(fields, RAW_DATA).content
    if dtype is None or len(raw) % np.dtype(dtype).itemsize:
        return
    values = np.frombuffer(raw, dtype)
    if values.size > 1 and not np.isfinite(values).all():  # a single infinity is a bound, as of Clip
        raise BundleError(f"{name}: tensor {label!r} has values that are not finite")
