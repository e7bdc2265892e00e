"""What `bundle.json` says: a typed manifest goes in and comes out, sealed so that any changed byte is noticed."""

import hashlib
import json
import re
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from maskfast.bundle.network import Mean, NetworkSpec, Scale
from maskfast.core.errors import BundleError
from maskfast.core.views import View

MANIFEST_FILE = "bundle.json"
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_DEPTH = 32
"""Nesting of lists and tables in what is written down of configuration and data."""
MAX_NAME, MAX_PART = 1000, 255
"""Characters of a listed name, and bytes of what stands between its slashes, as file systems have them at most."""
_NO_SEAL = "0" * 64
_SEAL = re.compile(rb'^(\{\s*"seal": ")([0-9a-f]{64})"')

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Manifest(BaseModel):
    """All that scoring must know beside the weights.

    `weights` names one safetensors file a member (a fold); `views` are averaged at every prediction; `left_out` says
    why a file that a bundle usually holds is not there; `sha256` covers every other file of the bundle.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    network: NetworkSpec
    classes: tuple[Literal["no_mask"], Literal["mask"]] = ("no_mask", "mask")
    positive: Literal["mask"] = "mask"
    size: int = Field(ge=32, le=1024)
    method: Literal["squish", "pad", "crop"] = "squish"
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Scale, Scale, Scale]
    temperature: Scale = 1.0
    threshold: float = Field(default=0.5, ge=0, le=1)
    views: tuple[View, ...] = ("plain",)
    weights: tuple[str, ...] = ()
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    metrics: dict[str, Finite] = {}
    data: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    created: str = ""
    sha256: dict[str, Sha256] = {}

    @field_validator("views")
    @classmethod
    def _check_views(cls, views: tuple[str, ...]) -> tuple[str, ...]:
        if not views or len(set(views)) != len(views):
            raise ValueError("names each view once and at least one")
        return views

    @field_validator("sha256")
    @classmethod
    def _check_names(cls, sha256: dict[str, str]) -> dict[str, str]:
        for name in sha256:
            if not is_inside(name):
                raise ValueError(f"{name!r:.80} is no plain path inside the bundle")
        return sha256

    @field_validator("config", "data")
    @classmethod
    def _check_depth(cls, told: dict[str, Any]) -> dict[str, Any]:
        level: list[Any] = [told]
        for _ in range(MAX_DEPTH):
            level = [part for each in level for part in _list_parts(each)]
        if level:
            raise ValueError(f"is nested deeper than {MAX_DEPTH}")
        return told

    @property
    def members(self) -> int:
        """How many networks are averaged; a bundle without weight files (ONNX alone) counts as one."""
        return max(1, len(self.weights))


def is_inside(name: str) -> bool:
    """Say whether `name` is a relative path with forward slashes that stays inside its folder."""
    path = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and ":" not in name and len(name) <= MAX_NAME
    storable = plain and all(len(part.encode()) <= MAX_PART for part in path.parts)
    inside = str(path) == name and not path.is_absolute() and ".." not in path.parts
    return storable and inside and name not in (".", MANIFEST_FILE)


def _list_parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def format_manifest(manifest: Manifest) -> bytes:
    """Return the sealed bytes of `bundle.json`: it begins with the sha256 of itself with 64 zeros in that place."""
    fields = {"seal": _NO_SEAL, **manifest.model_dump(mode="json")}
    content = json.dumps(fields, indent=2, allow_nan=False).encode() + b"\n"
    return content.replace(_NO_SEAL.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def parse_manifest(content: bytes, *, name: str = MANIFEST_FILE) -> Manifest:
    """Return the manifest in the sealed bytes `content` of the file `name`.

    Raises BundleError naming the file and the field for a broken seal, unknown or missing fields and impossible values.
    """
    found = _SEAL.match(content)
    if not found:
        raise BundleError(f"{name}: does not begin with its seal; it is no maskfast bundle or is damaged")
    unsealed = content[: found.start(2)] + _NO_SEAL.encode() + content[found.end(2) :]
    if hashlib.sha256(unsealed).hexdigest().encode() != found.group(2):
        raise BundleError(f"{name}: seal: the file was changed after it was written; write the bundle again")
    try:
        fields = json.loads(content)
        del fields["seal"]
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleError(f"{name}: {where}: {first['msg']}, seen {first.get('input')!r:.80}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name}: is no JSON: {error}") from error


def list_bundle_files(folder: Path) -> list[str] | None:
    """The names of the files of the bundle in `folder`, as patterns of fnmatch; None where there is no bundle."""
    try:
        return [MANIFEST_FILE, *map(escape, read_manifest(folder).sha256)]
    except BundleError:
        return None


def read_manifest(folder: str | Path) -> Manifest:
    """Return the manifest of the bundle in `folder`, after its seal and every field were checked."""
    path = Path(folder) / MANIFEST_FILE
    try:
        content = _read_content(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_manifest(content, name=str(path))


def _read_content(path: Path) -> bytes:
    if not path.parent.is_dir():
        raise BundleError(f"{path.parent}: is no bundle folder; train one, or name another with --model")
    if path.is_symlink() or not path.is_file():
        exports = [each.name for each in sorted(path.parent.glob("*.pkl"))]
        hint = f"; name the file {exports[0]} in it to read that" if exports else ""
        raise BundleError(f"{path}: is missing or is no plain file; the folder is no maskfast bundle{hint}")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path}: has {path.stat().st_size} bytes, more than any manifest; it is damaged")
    return path.read_bytes()
