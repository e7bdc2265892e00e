"""A stream of pictures goes in, partitions come out: the units that are finished, named and resumed as a whole."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from maskfast.apps.cluster.sources import Picture
from maskfast.score.predictor import BATCH

BLOCK = 2 * BATCH
"""Pictures that are decoded by one task and scored by one call: whole batches, so that the rows are those of the local
engine bit for bit; 64 squares of 224 pixels are 9.6 MB."""
PARTITION = 16 * BLOCK
"""Pictures of one output file; what a killed run loses at most, times the few that were under way."""


@dataclass(frozen=True)
class Block:
    """`pictures` of the partition `partition`, its part number `index`."""

    partition: int
    index: int
    pictures: list[Picture]


@dataclass(frozen=True)
class Partition:
    """`pictures` number `index` of the run; `key` tells it from all others of other runs and other pictures."""

    index: int
    key: str
    pictures: list[Picture]

    @property
    def file(self) -> str:
        """The name of its output file."""
        return f"part-{self.index:08d}-{self.key[:16]}.parquet"

    def cut_blocks(self) -> list[Block]:
        """Return its pictures as blocks, in order."""
        starts = range(0, len(self.pictures), BLOCK)
        return [Block(self.index, i, self.pictures[start : start + BLOCK]) for i, start in enumerate(starts)]


def cut_partitions(pictures: Iterator[Picture], run: dict[str, Any], *, rows: int = PARTITION) -> Iterator[Partition]:
    """Yield the pictures in partitions of `rows` (the last one of fewer), keyed by their names and by `run`."""
    index = 0
    while chunk := list(islice(pictures, rows)):
        names = json.dumps([run, index, [name for name, _ in chunk]], sort_keys=True)
        yield Partition(index, hashlib.sha256(names.encode()).hexdigest(), chunk)
        index += 1
