"""A file that torch.save wrote goes in; its pickle, read without running it, and its tensors as arrays come out.

The format is a zip of stored entries: NAME/data.pkl, and NAME/data/KEY with the bytes of each storage
(torch/serialization.py, `_save` and `_load`, torch 1.6 and later).
"""

import encodings.cp437  # noqa: F401  the codec of names in zips, which zipfile would import while it reads
import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from maskfast.bundle.pickles import MAX_BYTES, Global, Made, Stored, Value, read_pickle
from maskfast.core.errors import ArchiveError, BundleError
from maskfast.data.archives import check_directory_size

MAX_FILE = 4 * 2**30
MAX_ENTRIES = 20_000
MAX_DIMENSIONS = 8
MAX_VALUES = 2**40
"""Of a tensor, where lengths of 0 count as 1."""
MAX_TIMES = 4
"""How often over the bytes of the file may be read from it and made into tensors, and one MiB more."""

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


class TorchZip:
    """An opened archive: its pickle, and where its storages lie.

    The file stays open until nothing refers to this any more.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, entry: str) -> None:
        self.path = path
        self.pickle = read_pickle(_read_entry(path, archive, entry, MAX_BYTES), name=str(path))
        self._archive = archive
        self._prefix = entry.removesuffix("/data.pkl")
        self._left = MAX_TIMES * path.stat().st_size + 2**20
        self._last: tuple[str, npt.NDArray[np.uint8]] = ("", np.zeros(0, np.uint8))

    def read_tensor(self, node: Value, *, largest: int = MAX_FILE) -> npt.NDArray[Any] | None:
        """Return the array of a tensor of the pickle, or None where `node` describes none.

        bfloat16 becomes float32. Raises BundleError where its storage is missing, too short, of an unknown type or of
        more bytes than `largest`, and where tensors share storages so that all have far more bytes than the file.
        """
        made = _find_tensor(node)
        return None if made is None else self._read(made.args, largest)

    def _read(self, args: Value, largest: int) -> npt.NDArray[Any]:
        try:
            stored, offset, shape, strides = args[:4]
            tag, kind, key, _, count = stored.id
            kind = kind.name.rpartition(".")[2]
        except (TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{self.path}: a tensor is described in an unknown way") from error
        if tag != "storage" or kind not in _DTYPES or type(key) is not str:
            raise BundleError(f"{self.path}: a tensor's storage is of the unknown type {str(kind)[:40]}")
        numbers = (count, offset), _tuple(shape), _tuple(strides)
        values = self._view(np.dtype(_DTYPES[kind]), key, numbers, largest)
        return (values.astype(np.uint32) << 16).view(np.float32) if kind == "BFloat16Storage" else values

    def _view(
        self, dtype: "np.dtype[Any]", key: str, numbers: tuple[tuple[Any, ...], ...], largest: int
    ) -> npt.NDArray[Any]:
        (count, offset), shape, strides = numbers
        if any(type(each) is not int or each < 0 for row in numbers for each in row) or len(shape) != len(strides):
            raise BundleError(f"{self.path}: the shape of tensor {key[:40]!r} is no row of whole numbers")
        if len(shape) > MAX_DIMENSIONS or math.prod(max(1, length) for length in shape) > MAX_VALUES:
            raise BundleError(f"{self.path}: tensor {key[:40]!r} reaches beyond its storage")
        content = self._read_storage(key, largest)
        size = math.prod(shape)
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        fits = size == 0 or last < count
        if size > count or not fits or count * dtype.itemsize > len(content):
            raise BundleError(f"{self.path}: tensor {key[:40]!r} reaches beyond its storage")
        if size == 0:
            return np.zeros(shape, dtype)
        self._spend(size * dtype.itemsize)
        flat = content[: count * dtype.itemsize].view(dtype)[offset:]
        steps = tuple(
            stride * dtype.itemsize if length > 1 else 0 for length, stride in zip(shape, strides, strict=True)
        )
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False).copy()

    def _read_storage(self, key: str, largest: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of a storage; the last one is kept, since tensors of one storage come one after another."""
        if self._last[0] != key:
            content = _read_entry(self.path, self._archive, f"{self._prefix}/data/{key}", largest)
            self._spend(len(content))
            self._last = key, np.frombuffer(content, np.uint8)
        return self._last[1]

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BundleError(f"{self.path}: its tensors share bytes, and have many times those of the file")


def open_torch_zip(path: str | Path) -> TorchZip:
    """Open the file at `path`, read its pickle inertly, and check the archive around it.

    Raises BundleError for anything but an archive of torch.save.
    """
    path = Path(path)
    archive = _open_zip(path)
    return TorchZip(path, archive, _find_pickle_entry(path, archive))


def count_values(node: Value) -> int:
    """Return how many values the tensor of `node` has by its description, 0 where it is none."""
    made = _find_tensor(node)
    shape = _tuple(made.args[2]) if made is not None else (0,)
    proper = len(shape) <= MAX_DIMENSIONS and all(type(length) is int and 0 <= length < 2**32 for length in shape)
    return math.prod(shape) if proper else 0


def _find_pickle_entry(path: Path, archive: zipfile.ZipFile) -> str:
    """Return the name of the pickle in the archive, after its directory was checked."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if len(infos) > MAX_ENTRIES:
        raise BundleError(f"{path}: {len(infos)} entries, more than {MAX_ENTRIES}")
    if len(set(names)) != len(names):
        raise BundleError(f"{path}: an entry comes twice")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 1:
            raise BundleError(f"{path}: entry {info.filename[:60]!r} is packed; torch.save stores entries as they are")
    found = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(found) != 1:
        raise BundleError(f"{path}: {len(found)} entries NAME/data.pkl; it was not written by torch.save")
    order = found[0].replace("data.pkl", "byteorder")
    if order in names and _read_entry(path, archive, order, 100) != b"little":
        raise BundleError(f"{path}: its numbers are big-endian; export it on a little-endian machine")
    return found[0]


def _read_entry(path: Path, archive: zipfile.ZipFile, name: str, largest: int) -> bytes:
    with _tell_damage(path, f"entry {name[:80]!r} is damaged"):
        try:
            info = archive.getinfo(name)
        except KeyError as error:
            raise BundleError(f"{path}: entry {name[:80]!r} is missing") from error
        if info.file_size > largest:
            raise BundleError(f"{path}: entry {name[:80]!r} has {info.file_size} bytes, more than {largest}")
        return archive.read(info)


def _open_zip(path: Path) -> zipfile.ZipFile:
    with _tell_damage(path, "is no zip archive of torch.save (older formats are not read)"):
        if path.is_dir():
            raise BundleError(f"{path}: is a folder; name the file in it that fastai's Learner.export wrote")
        if not path.is_file():
            raise BundleError(f"{path}: no such file")
        if path.stat().st_size > MAX_FILE:
            raise BundleError(f"{path}: has more than {MAX_FILE} bytes")
        try:
            check_directory_size(path, MAX_ENTRIES)
        except ArchiveError as error:
            raise ValueError(str(error).removeprefix(f"{path}: ")) from error
        return zipfile.ZipFile(path)


@contextmanager
def _tell_damage(path: Path, what: str) -> Iterator[None]:
    """Raise as BundleError whatever zipfile raises for a broken archive."""
    try:
        yield
    except PermissionError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (
        *(zipfile.BadZipFile, struct.error, EOFError, OSError, ValueError),
        *(NotImplementedError, RuntimeError, OverflowError, MemoryError),
    ) as error:
        raise BundleError(f"{path}: {what}: {error}") from error


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
