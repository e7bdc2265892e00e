"""A whole bundle goes in; the same answers in 4 MB, as the package carries them, come out: int8 ONNX and card alone."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from maskfast.bundle.manifest import MANIFEST_FILE, Manifest, format_manifest
from maskfast.bundle.verify import find_listed, verify_bundle
from maskfast.core.errors import BundleError
from maskfast.core.files import replace_folder

MAX_BYTES = 4_000_000
"""What the package may carry."""
KEPT = ("model.int8.onnx", "README.md")


def shrink_bundle(folder: str | Path, out: str | Path) -> Manifest:
    """Write the small bundle of the one in `folder` to `out`, replacing what is there, and return its manifest.

    Raises BundleError where there is no int8 file, or where the result has more than MAX_BYTES.
    """
    folder, out = Path(folder), Path(out)
    manifest = verify_bundle(folder)
    paths = [find_listed(folder, manifest, name) for name in KEPT]
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    left_out = {"model.onnx": "the package carries the int8 file alone"}
    told = {"weights": (), "sha256": hashes, "left_out": left_out, "config": _name_files(manifest.config)}
    small = manifest.model_copy(update=told | {"data": manifest.data | {"command": ""}})
    content = format_manifest(small)
    if (size := len(content) + sum(path.stat().st_size for path in paths)) > MAX_BYTES:
        raise BundleError(f"{folder}: its small form has {size} bytes, more than {MAX_BYTES}; use a smaller network")
    with replace_folder(out) as temporary:
        for path in paths:
            shutil.copyfile(path, temporary / path.name)
        (temporary / MANIFEST_FILE).write_bytes(content)
    return small


def _name_files(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with names of files in place of the trainer's paths."""
    paths = {key: Path(str(config[key])).name for key in ("weights", "out") if key in config}
    return config | paths | {"data": [Path(str(each)).name for each in config.get("data", ())]}
