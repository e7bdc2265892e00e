"""A bundle folder goes in, its manifest comes out once every listed file proved to be the one that was written."""

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from maskfast.bundle.manifest import MANIFEST_FILE, Manifest, read_manifest
from maskfast.core.errors import BundleError


def verify_bundle(folder: str | Path) -> Manifest:
    """Check every file that the manifest of the bundle in `folder` lists and return the manifest.

    Raises BundleError naming the file for one that is missing, changed, a symbolic link or not a plain file. Files
    that the manifest does not list are never opened. Nothing is written.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    with ThreadPoolExecutor(max_workers=4) as pool:
        for _ in pool.map(lambda item: _check_file(folder, *item), manifest.sha256.items()):
            pass
    return manifest


def find_listed(folder: Path, manifest: Manifest, name: str) -> Path:
    """Return the path of the bundle's file `name`; raises BundleError where the manifest does not list it."""
    if name not in manifest.sha256:
        reason = manifest.left_out.get(name, f"it is not listed in {MANIFEST_FILE}")
        raise BundleError(f"{folder / name}: this bundle has no such file: {reason}")
    return folder / name


def _check_file(folder: Path, name: str, sha256: str) -> None:
    path = folder / name
    for parent in PurePosixPath(name).parents:
        if str(parent) != "." and (folder / parent).is_symlink():
            raise BundleError(f"{folder / parent}: is a symbolic link; a bundle holds plain files only")
    if path.is_symlink():
        raise BundleError(f"{path}: is a symbolic link; a bundle holds plain files only")
    try:
        with open(path, "rb", opener=_open_plain) as file:
            seen = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: listed in {MANIFEST_FILE} but cannot be read: {error.strerror}") from error
    if seen != sha256:
        raise BundleError(
            f"{path}: its sha256 is {seen[:12]}..., {MANIFEST_FILE} says {sha256[:12]}...; it was changed"
        )


def _open_plain(path: str, flags: int) -> int:
    """Open without following a link and without waiting on a pipe."""
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "it is no plain file", path)
    return handle
