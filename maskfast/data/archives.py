"""Zip archives from strangers: an archive goes in, checked members or a folder with all of them come out.

The whole directory of an archive is checked before a byte is unpacked, and one bad entry refuses the archive.
Archives inside an archive are never opened.
"""

import hashlib
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from maskfast.core.cache import cache_dir
from maskfast.core.errors import ArchiveError
from maskfast.core.files import replace_folder

_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END_RECORD = struct.Struct("<4s4H2IH")
_END_RECORD_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_BYTES = 20
"""Of what follows the 64-bit end record, and is followed by the other; zipfile takes the former wherever it is."""
_END_SEARCH = 65_535 + _END_RECORD.size + _LOCATOR_BYTES + _END_RECORD_64.size


@dataclass(frozen=True, kw_only=True)
class ZipLimits:
    """What an archive may hold at most; each can be set by the caller."""

    entries: int = 200_000
    total_bytes: int = 32 * 2**30
    entry_bytes: int = 2 * 2**30
    ratio: float = 200.0
    """Unpacked to packed size of an entry of more than a megabyte; pictures reach 10, deflate's limit is 1032."""
    name_bytes: int = 1024


@dataclass(frozen=True)
class ZipMember:
    """One file of a checked archive; its bytes are read when asked for."""

    archive: Path
    name: str
    """Its name inside the archive, with `/` between folders."""
    entry: str
    size: int
    """In bytes, unpacked."""
    crc: int

    def read_bytes(self) -> bytes:
        """Return the unpacked bytes; raises ArchiveError where they are damaged."""
        found = self.archive.stat()
        with _tell_archive(self.archive):
            return _reopen(self.archive, found.st_size, found.st_mtime_ns).read(self.entry)


def list_members(archive: Path, *, limits: ZipLimits | None = None) -> list[ZipMember]:
    """Check the archive and return its files in its own order; raises ArchiveError."""
    limits = limits or ZipLimits()
    with _open_zip(archive, limits) as opened:
        files = _check(archive, opened, limits)
    return [ZipMember(archive, name, info.filename, info.file_size, info.CRC) for name, info in files]


def extract_zip(archive: Path, *, limits: ZipLimits | None = None, target: Path | None = None) -> Path:
    """Unpack the archive and return the folder: `target`, or one in the cache that is reused while it is unchanged.

    Raises ArchiveError, and leaves nothing behind, where the archive is unsafe or damaged.
    """
    from filelock import FileLock

    folder = target or cache_dir("archives") / _key(archive)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _unpack(archive, folder, limits or ZipLimits())
    return folder


def _key(archive: Path) -> str:
    found = archive.stat()
    identity = f"{archive.resolve()}|{found.st_size}|{found.st_mtime_ns}|{found.st_ino}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:24]


@lru_cache(maxsize=8)
def _reopen(archive: Path, size: int, modified: int) -> zipfile.ZipFile:  # noqa: ARG001  the key of one version
    return zipfile.ZipFile(archive)


@contextmanager
def _open_zip(archive: Path, limits: ZipLimits) -> Iterator[zipfile.ZipFile]:
    with _tell_archive(archive):
        check_directory_size(archive, limits.entries)
        with zipfile.ZipFile(archive) as opened:
            yield opened


@contextmanager
def _tell_archive(archive: Path) -> Iterator[None]:
    try:
        yield
    except ArchiveError:
        raise
    except FileNotFoundError as error:
        raise ArchiveError(f"{archive}: no such file") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, struct.error, ValueError, KeyError) as error:
        raise ArchiveError(f"{archive}: not a readable zip archive: {error}") from error
    except (NotImplementedError, RuntimeError, OSError, OverflowError) as error:
        raise ArchiveError(f"{archive}: cannot be unpacked: {error}") from error
    except Exception as error:
        if type(error).__module__ in ("zlib", "lzma", "_lzma"):
            raise ArchiveError(f"{archive}: damaged: {error}") from error
        raise


def check_directory_size(archive: Path, entries: int) -> None:
    """Refuse, with ArchiveError, a directory that is too large for so many entries, before zipfile reads all of it."""
    with archive.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _END_SEARCH))
        tail = stream.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END_RECORD.size:
        raise ArchiveError(f"{archive}: not a zip archive, or its end is missing")
    declared = _END_RECORD.unpack_from(tail, at)[5]
    before, locator = tail[: max(0, at - _LOCATOR_BYTES)], tail[max(0, at - _LOCATOR_BYTES) : at]
    record = before[-_END_RECORD_64.size :]
    if locator.startswith(b"PK\6\7") and record.startswith(b"PK\6\6") and len(record) == _END_RECORD_64.size:
        declared = _END_RECORD_64.unpack(record)[8]
    if min(declared, size) > entries * 512:
        raise ArchiveError(f"{archive}: its directory of {declared} bytes is more than {entries} entries need")


def _check(archive: Path, opened: zipfile.ZipFile, limits: ZipLimits) -> list[tuple[str, zipfile.ZipInfo]]:
    infos = opened.infolist()
    if len(infos) > limits.entries:
        raise ArchiveError(f"{archive}: {len(infos)} entries are more than {limits.entries}")
    for info in infos:
        if flaw := _find_flaw(info, limits):
            raise ArchiveError(
                f"{archive}: entry {info.orig_filename[:80]!r} {flaw}; unpack it yourself if you trust it"
            )
    total = sum(info.file_size for info in infos)
    if total > limits.total_bytes:
        raise ArchiveError(f"{archive}: unpacks to {total} bytes, more than {limits.total_bytes}")
    _check_collisions(archive, infos)
    _check_overlaps(archive, opened, infos)
    return [(_plain(info), info) for info in infos if not _is_folder(info)]


def _plain(info: zipfile.ZipInfo) -> str:
    return info.orig_filename.replace("\\", "/").rstrip("/")


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.orig_filename.endswith(("/", "\\"))


def _find_flaw(info: zipfile.ZipInfo, limits: ZipLimits) -> str | None:
    return _find_name_flaw(info, limits) or _find_kind_flaw(info) or _find_size_flaw(info, limits)


def _find_name_flaw(info: zipfile.ZipInfo, limits: ZipLimits) -> str | None:
    name = _plain(info)
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute path"
    if ".." in parts:
        return "leads outside the folder"
    if not name or "\0" in name or any(part in ("", ".") for part in parts):
        return "has no proper name"
    if len(name.encode("utf-8", "surrogatepass")) > limits.name_bytes or any(
        len(part.encode()) > 255 for part in parts
    ):
        return "has too long a name"
    return None


def _find_kind_flaw(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is no regular file"
    return "is encrypted" if info.flag_bits & _ENCRYPTED else None


def _find_size_flaw(info: zipfile.ZipInfo, limits: ZipLimits) -> str | None:
    if info.file_size > limits.entry_bytes:
        return f"unpacks to {info.file_size} bytes, more than {limits.entry_bytes}"
    if info.file_size > 2**20 and info.file_size > limits.ratio * info.compress_size:
        return f"unpacks to more than {limits.ratio:g} times its packed size"
    return None


def _check_collisions(archive: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse names that would fall together, also on a disk that ignores case or Unicode form."""
    files: dict[str, str] = {}
    folders: set[str] = set()
    for info in infos:
        name = _plain(info)
        key = unicodedata.normalize("NFC", name).casefold()
        parents = key.split("/")[:-1]
        folders |= {"/".join(parents[: depth + 1]) for depth in range(len(parents))}
        if _is_folder(info):
            folders.add(key)
        elif key in files:
            raise ArchiveError(f"{archive}: entries {files[key]!r} and {name!r} have the same name")
        else:
            files[key] = name
    for key in folders & files.keys():
        raise ArchiveError(f"{archive}: entry {files[key]!r} is both a file and a folder")


def _check_overlaps(archive: Path, opened: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse entries that share packed bytes: how a small archive unpacks to petabytes (David Fifield, 2019)."""
    stream = opened.fp
    assert stream is not None
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ArchiveError(f"{archive}: entry {info.filename[:80]!r} overlaps another")
        stream.seek(info.header_offset)
        header = stream.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
            raise ArchiveError(f"{archive}: entry {info.filename[:80]!r} lies outside the archive")
        name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)[-2:]
        end = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + info.compress_size
    if end > opened.start_dir:
        raise ArchiveError(f"{archive}: its last entry overlaps the directory")


def _unpack(archive: Path, folder: Path, limits: ZipLimits) -> None:
    with _open_zip(archive, limits) as opened:
        files = _check(archive, opened, limits)
        needed = sum(info.file_size for _, info in files)
        if needed > shutil.disk_usage(folder.parent).free:
            raise ArchiveError(f"{archive}: unpacks to {needed} bytes, more than {folder.parent} has free")
        with replace_folder(folder) as temporary:
            for name, info in files:
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(info) as packed, path.open("xb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 2**20)
