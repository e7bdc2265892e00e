"""Rows of partitions go in, a folder of Parquet files with a manifest comes out, on disk or behind an fsspec URL.

A partition's file appears whole under a name made of its number and key, so its being there says that it is done; the
manifest is written first, to claim the folder for one run, and again at the end, with every file's rows and checksum.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from maskfast.apps.cluster.partitions import Partition
from maskfast.apps.cluster.sources import is_url, open_filesystem
from maskfast.core.errors import ConfigError
from maskfast.core.files import write_whole
from maskfast.score.predictor import Prediction
from maskfast.score.rows import ROW_WRITERS

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Finished:
    """One partition's file; `sha256` is that of its bytes, `first_failure` its first failed row and the reason."""

    file: str
    rows: int
    failed: int
    first_failure: str
    sha256: str


class Folder(Protocol):
    """Where the output lies."""

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file that is there whole or not at all."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...

    def list_names(self) -> list[str]:
        """Return the names of all files."""
        ...


class LocalFolder:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""
        path = self._path / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        """Write a file under a temporary name, then rename it."""
        write_whole(self._path / name, content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._path / name).unlink()

    def list_names(self) -> list[str]:
        """Return the names of all files."""
        return [path.name for path in self._path.iterdir()]


class StoredFolder:
    """A folder behind an fsspec URL; stores show an object only once it is whole."""

    def __init__(self, url: str) -> None:
        self._filesystem, self._path = open_filesystem(url.rstrip("/"))
        self._filesystem.makedirs(self._path, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""
        try:
            content: bytes = self._filesystem.cat_file(f"{self._path}/{name}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put the object."""
        self._filesystem.pipe_file(f"{self._path}/{name}", content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._filesystem.rm_file(f"{self._path}/{name}")

    def list_names(self) -> list[str]:
        """Return the names of all files."""
        self._filesystem.invalidate_cache()
        return [path.rsplit("/", 1)[-1] for path in self._filesystem.ls(self._path, detail=False)]


class Output:
    """The output folder of one run, which is described by `run`.

    Raises ConfigError where the folder holds something else than a part of that run.
    """

    def __init__(self, out: str, run: dict[str, Any]) -> None:
        self._folder: Folder = StoredFolder(out) if is_url(out) else LocalFolder(Path(out))
        self.run = run
        self._claim(out)
        self._there = {name for name in self._folder.list_names() if name.startswith("part-")}

    def find(self, partition: Partition) -> Finished | None:
        """Return the partition's file of an earlier, stopped run; None where there is no whole one."""
        if partition.file not in self._there:
            return None
        return _check_file(partition, self._folder.read(partition.file) or b"")

    def write(self, partition: Partition, rows: Sequence[Prediction]) -> Finished:
        """Write the rows of a partition, one for each of its pictures, in their order."""
        assert [row.image for row in rows] == [name for name, _ in partition.pictures]
        stream = io.BytesIO()
        ROW_WRITERS[".parquet"](stream, iter(rows))
        content = stream.getvalue()
        self._folder.write(partition.file, content)
        return _describe_file(partition.file, content, [(row.image, row.status, row.reason) for row in rows])

    def finish(self, partitions: Sequence[Finished]) -> None:
        """Remove files that are no part of the result and write the manifest of those that are."""
        for name in set(self._folder.list_names()) - {each.file for each in partitions}:
            if name.startswith("part-"):
                self._folder.remove(name)
        self._write_manifest(partitions, complete=True)

    def _claim(self, out: str) -> None:
        content = self._folder.read(MANIFEST)
        if content is None:
            if self._folder.list_names():
                raise ConfigError(f"--out {out}: holds files but no {MANIFEST}; name a new folder")
            self._write_manifest([], complete=False)
            return
        if _read_run(content) != self.run:
            raise ConfigError(f"--out {out}: holds the scores of another run (model, inputs or options); name another")

    def _write_manifest(self, partitions: Sequence[Finished], *, complete: bool) -> None:
        fields = {
            "maskfast": "scores",
            "schema_version": SCHEMA_VERSION,
            "run": self.run,
            "complete": complete,
            "rows": sum(each.rows for each in partitions),
            "failed": sum(each.failed for each in partitions),
            "partitions": [asdict(each) for each in partitions],
        }
        self._folder.write(MANIFEST, json.dumps(fields, indent=1).encode() + b"\n")


def _read_run(content: bytes) -> Any:
    try:
        return json.loads(content).get("run")
    except (ValueError, AttributeError):
        return None


def _check_file(partition: Partition, content: bytes) -> Finished | None:
    """Whole files have a footer and a row for each picture; anything else is scored again."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content), columns=["image", "status", "reason"])
    except pa.ArrowInvalid:
        return None
    if len(table) != len(partition.pictures):
        return None
    return _describe_file(partition.file, content, list(zip(*table.to_pydict().values(), strict=True)))


def _describe_file(file: str, content: bytes, rows: list[tuple[str, str, str]]) -> Finished:
    failures = [f"{image}: {reason}" for image, status, reason in rows if status == "failed"]
    first = failures[0] if failures else ""
    return Finished(file, len(rows), len(failures), first, hashlib.sha256(content).hexdigest())
