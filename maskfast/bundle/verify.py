"""A bundle folder goes in, its manifest comes out once every listed file proved to be the one that was written."""

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath

from maskfast.bundle.manifest import MANIFEST_FILE, Manifest, read_manifest
from maskfast.core.cores import count_cores
from maskfast.core.errors import BundleError

CHUNK = 8 * 2**20
"""Bytes hashed at a time: the fewer, the more often the thread waits for the interpreter, which is busy importing."""


def verify_bundle(folder: str | Path) -> Manifest:
    """Check every file that the manifest of the bundle in `folder` lists and return the manifest.

    Raises BundleError naming the file for one that is missing, changed, a symbolic link or not a plain file. Files
    that the manifest does not list are never opened. Nothing is written.
    """
    with verify_meanwhile(folder) as manifest:
        return manifest


@contextmanager
def verify_meanwhile(folder: str | Path) -> Iterator[Manifest]:
    """Do what `verify_bundle` does while the body opens files of the bundle; each through `read_listed`, which checks.

    Raises what the body raises, else BundleError at its end.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    pool = ThreadPoolExecutor(min(4, max(1, count_cores() - 1)))  # a core is left to the body
    try:
        checks = [pool.submit(_check_file, folder, *item) for item in manifest.sha256.items()]
        yield manifest
        for check in checks:
            check.result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_listed(folder: Path, manifest: Manifest, name: str) -> bytes:
    """Return the bytes of the bundle's file `name`, those that the manifest was written for.

    Raises BundleError where the manifest does not list it, or as `verify_bundle` does.
    """
    if name not in manifest.sha256:
        reason = manifest.left_out.get(name, f"it is not listed in {MANIFEST_FILE}")
        raise BundleError(f"{folder / name}: this bundle has no such file: {reason}")
    with _open_listed(folder, name) as file:
        content = file.read()
    _compare(folder / name, hashlib.sha256(content).hexdigest(), manifest.sha256[name])
    return content


def _check_file(folder: Path, name: str, sha256: str) -> None:
    digest, part = hashlib.sha256(), bytearray(CHUNK)
    with _open_listed(folder, name) as file:
        while count := file.readinto(part):
            digest.update(memoryview(part)[:count])
    _compare(folder / name, digest.hexdigest(), sha256)


def _compare(path: Path, seen: str, sha256: str) -> None:
    if seen != sha256:
        raise BundleError(
            f"{path}: its sha256 is {seen[:12]}..., {MANIFEST_FILE} says {sha256[:12]}...; it was changed"
        )


@contextmanager
def _open_listed(folder: Path, name: str) -> Iterator[BufferedReader]:
    path = folder / name
    try:
        for parent in (*PurePosixPath(name).parents, PurePosixPath(name)):
            if str(parent) != "." and (folder / parent).is_symlink():
                raise BundleError(f"{folder / parent}: is a symbolic link; a bundle holds plain files only")
        with open(path, "rb", opener=_open_plain) as file:
            yield file
    except OSError as error:
        raise BundleError(f"{path}: listed in {MANIFEST_FILE} but cannot be read: {error.strerror}") from error


def _open_plain(path: str, flags: int) -> int:
    """Open without following a link and without waiting on a pipe."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "it is no plain file", path)
    return handle
