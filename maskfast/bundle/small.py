"""A whole bundle goes in; the same answers in 4 MB, as the package carries them, come out: int8 ONNX and card alone."""

from pathlib import Path
from typing import Any

from maskfast.bundle.manifest import MANIFEST_FILE, Manifest, format_manifest
from maskfast.bundle.verify import read_listed, verify_bundle
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
    kept = {name: read_listed(folder, manifest, name) for name in KEPT}
    hashes = {name: manifest.sha256[name] for name in KEPT}
    left_out = {"model.onnx": "the package carries the int8 file alone"}
    told = {"weights": (), "sha256": hashes, "left_out": left_out, "config": _name_files(manifest.config)}
    small = manifest.model_copy(update=told | {"data": manifest.data | {"command": ""}})
    content = format_manifest(small)
    if (size := len(content) + sum(map(len, kept.values()))) > MAX_BYTES:
        raise BundleError(f"{folder}: its small form has {size} bytes, more than {MAX_BYTES}; use a smaller network")
    with replace_folder(out) as temporary:
        for name, file_content in kept.items():
            (temporary / name).write_bytes(file_content)
        (temporary / MANIFEST_FILE).write_bytes(content)
    return small


def _name_files(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with names of files in place of the trainer's paths."""
    paths = {key: Path(str(config[key])).name for key in ("weights", "out") if key in config}
    return config | paths | {"data": [Path(str(each)).name for each in config.get("data", ())]}
