"""A file that torch.save wrote goes in; its pickle, read without running it, and its tensors as arrays come out.

The format is a zip of stored entries: NAME/data.pkl, and NAME/data/KEY with the bytes of each storage
(torch/serialization.py, `_save` and `_load`, torch 1.6 and later).
"""

import encodings.cp437  # noqa: F401  the codec of names in zips, which zipfile would import while it reads
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskfast.bundle.pickles import Global, Made, Pickle, Stored, Value, read_pickle
from maskfast.core.errors import BundleError

MAX_FILE = 4 * 2**30
MAX_ENTRIES = 20_000
MAX_DIMENSIONS = 8

_DTYPES: dict[str, npt.DTypeLike] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": np.uint16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_REBUILD = "torch._utils._rebuild_tensor_v2"
_WRAPPERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"
_SUBCLASS_OF_FASTAI = "fastai.torch_core._rebuild_from_type"


@dataclass(frozen=True)
class TorchZip:
    """An opened archive: its pickle, and where its storages lie."""

    path: Path
    pickle: Pickle
    prefix: str

    def read_tensor(self, node: Value) -> npt.NDArray[Any] | None:
        """Return the array of a tensor of the pickle, or None where `node` describes none.

        bfloat16 becomes float32. Raises BundleError where its storage is missing, too short or of an unknown type.
        """
        made = _find_tensor(node)
        return None if made is None else self._read(made.args)

    def _read(self, args: Value) -> npt.NDArray[Any]:
        try:
            stored, offset, shape, strides = args[:4]
            tag, kind, key, _, count = stored.id
            kind = kind.name.rpartition(".")[2]
        except (TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{self.path}: a tensor is described in an unknown way") from error
        if tag != "storage" or kind not in _DTYPES or type(key) is not str:
            raise BundleError(f"{self.path}: a tensor's storage is of the unknown type {str(kind)[:40]}")
        content = _read_entry(self.path, f"{self.prefix}/data/{key}")
        values = self._view(
            np.frombuffer(content, np.uint8), np.dtype(_DTYPES[kind]), key, count, offset, shape, strides
        )
        return (values.astype(np.uint32) << 16).view(np.float32) if kind == "BFloat16Storage" else values

    def _view(
        self,
        content: npt.NDArray[np.uint8],
        dtype: "np.dtype[Any]",
        key: str,
        count: Value,
        offset: Value,
        shape: Value,
        strides: Value,
    ) -> npt.NDArray[Any]:
        numbers = (count, offset, *_tuple(shape), *_tuple(strides))
        if any(type(number) is not int or number < 0 for number in numbers) or len(shape) != len(strides):
            raise BundleError(f"{self.path}: the shape of tensor {key[:40]} is no row of whole numbers")
        size = math.prod(shape)
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        fits = size == 0 or last < count
        if len(shape) > MAX_DIMENSIONS or size > count or not fits or count * dtype.itemsize > len(content):
            raise BundleError(f"{self.path}: tensor {key[:40]} reaches beyond its storage")
        if size == 0:
            return np.zeros(shape, dtype)
        flat = content[: count * dtype.itemsize].view(dtype)[offset:]
        steps = tuple(stride * dtype.itemsize for stride in strides)
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False).copy()


def open_torch_zip(path: str | Path) -> TorchZip:
    """Open the file at `path`, read its pickle inertly, and check the archive around it.

    Raises BundleError for anything but an archive of torch.save.
    """
    path = Path(path)
    entry = find_pickle_entry(path)
    return TorchZip(path, read_pickle(_read_entry(path, entry), name=str(path)), entry.removesuffix("/data.pkl"))


def find_pickle_entry(path: Path) -> str:
    """Return the name of the pickle in the archive, after its directory was checked."""
    with _open_zip(path) as archive:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        if len(infos) > MAX_ENTRIES:
            raise BundleError(f"{path}: {len(infos)} entries, more than {MAX_ENTRIES}")
        if len(set(names)) != len(names):
            raise BundleError(f"{path}: an entry comes twice")
        for info in infos:
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
                raise BundleError(
                    f"{path}: entry {info.filename[:60]!r} is packed; torch.save stores entries as they are"
                )
        found = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1:
            raise BundleError(f"{path}: {len(found)} entries NAME/data.pkl; it was not written by torch.save")
        order = found[0].replace("data.pkl", "byteorder")
        if order in names and archive.read(order) != b"little":
            raise BundleError(f"{path}: its numbers are big-endian; export it on a little-endian machine")
        return found[0]


def _read_entry(path: Path, name: str) -> bytes:
    with _open_zip(path) as archive:
        try:
            return archive.read(name)
        except KeyError as error:
            raise BundleError(f"{path}: entry {name[:80]!r} is missing") from error
        except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
            raise BundleError(f"{path}: entry {name[:80]!r} is damaged: {error}") from error


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        if path.is_dir():
            raise BundleError(f"{path}: is a folder; name the file in it that fastai's Learner.export wrote")
        if not path.is_file():
            raise BundleError(f"{path}: no such file")
        if path.stat().st_size > MAX_FILE:
            raise BundleError(f"{path}: has more than {MAX_FILE} bytes")
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise BundleError(f"{path}: is no zip archive of torch.save (older formats are not read): {error}") from error


def _find_tensor(node: Value) -> Made | None:
    """Return the call that rebuilds the tensor of `node`, through the wrappers of parameters and subclasses."""
    for _ in range(4):
        if not isinstance(node, Made) or not isinstance(node.args, tuple):
            return None
        if node.kind == _REBUILD and len(node.args) >= 4:
            return node if isinstance(node.args[0], Stored) else None
        if node.kind in _WRAPPERS and node.args:
            node = node.args[0]
        elif node.kind in (_SUBCLASS, _SUBCLASS_OF_FASTAI) and len(node.args) >= 3:
            node = Made(node.args[0], node.args[2])
        else:
            return None
    return None


def _tuple(value: Value) -> tuple[Any, ...]:
    """Return a shape: a tuple, or torch.Size of one."""
    if isinstance(value, Made) and isinstance(value.callee, Global) and value.args:
        value = value.args[0]
    return tuple(value) if isinstance(value, tuple | list) else (None,)
