"""Writing that is whole or not at all: content goes in, a complete file or folder appears under its name or nothing."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from maskfast.core.errors import ConfigError, DataError

_LEFT_BY_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini"}


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make `folder` and those above it where they are missing; DataError where a file is in the way."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{error.filename}: is no folder; name another place") from error


def find_target(path: str | os.PathLike[str]) -> Path:
    """The file that a new one at `path` takes the place of: behind a link, the one it names. Its folder is made.

    Raises DataError where `path` is a folder, a device or a pipe, which a file must not take the place of.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise DataError(f"{path}: is no regular file; name a new one")
    make_folder(target.parent)
    return target


@contextmanager
def open_whole(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` for writing ("w" or "wb"); it takes the name when the block ends well.

    A block that raises leaves what was there before. Missing parent folders are made; a link stays, and the file it
    names is written. Raises DataError where `path` is a folder, a device or a pipe.
    """
    target = find_target(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
    text = "b" not in mode
    try:
        with os.fdopen(handle, mode, encoding="utf-8" if text else None, newline="" if text else None) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write `content` (text as UTF-8, line ends as given) to `path`, whole or not at all."""
    with open_whole(path, "w" if isinstance(content, str) else "wb") as stream:
        stream.write(content)


@contextmanager
def replace_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder beside `target` that takes its place when the block ends well.

    The old folder is kept until then, and stays where the block raises.
    """
    target = Path(target)
    make_folder(target.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _take_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_foreign_folder(
    folder: str | os.PathLike[str],
    what: str,
    list_own: Callable[[Path], Iterable[str] | None],
    *,
    option: str = "",
) -> None:
    """Raise ConfigError where `folder` holds what no earlier run wrote there, or is a link.

    To be asked before `replace_folder` where the user names the folder: what is not ours is never replaced. `list_own`
    gives the patterns (of fnmatch) of all files that belong to `what` in the folder, by what is in it; None where it is
    none of ours. `option` is the flag the folder was told by, which the line begins with.
    """
    folder, told = Path(folder), f"{option} {folder}".strip()
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"{told}: is no folder; name a new one")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    own = list_own(folder)
    if own is None:
        raise ConfigError(f"{told}: holds other things than {what}; name a new or an empty folder")
    patterns = [*own]
    for name in _list_files(folder):
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            raise ConfigError(f"{told}: holds {name}, which is no part of {what}; move it, or name a new folder")


def _list_files(folder: Path) -> Iterator[str]:
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return (path.relative_to(folder).as_posix() for path in paths if path.name not in _LEFT_BY_DESKTOPS)


def _take_place(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
        return
    old = new.with_suffix(".old")
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
