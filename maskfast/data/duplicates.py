"""Which pictures are the same photo: hashes go in, pairs with their distance and group numbers come out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

MAX_DISTANCE = 48
"""Bits of 256 in which two hashes of one photo may differ. On the 1,817 photos of spot-the-mask every pair up to 48,
looked at, was one photo rescaled, recoloured or recropped by a little; the first two different ones (rendered heads on
black) stand at 50, and chance pairs multiply from 72 on."""

_TILE = 2048


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows whose pictures are the same photo; all arrays have one entry a pair."""

    first: "npt.NDArray[np.int64]"
    second: "npt.NDArray[np.int64]"
    distance: "npt.NDArray[np.int64]"
    mirrored: "npt.NDArray[np.bool_]"


def find_pairs(prints: "pd.DataFrame", *, max_distance: int = MAX_DISTANCE) -> Pairs:
    """Return the pairs of rows of a frame of fingerprints, first < second, nearest first.

    A picture and its mirror image count as one photo. Refused pictures pair with nothing. Memory is that of one tile of
    2048 x 2048 distances, whatever the number of pictures; time grows with its square (20,000: some ten seconds).
    """
    import numpy as np

    rows = np.flatnonzero(prints["hash"].to_numpy() != "")
    plain = _to_signs(prints["hash"].iloc[rows].tolist())
    mirrored = _to_signs(prints["mirrored"].iloc[rows].tolist())
    parts = [np.zeros((0, 4), dtype=np.int64)]
    for top in range(0, len(rows), _TILE):
        for left in range(top, len(rows), _TILE):
            parts.append(_compare(plain, mirrored, top, left, max_distance))
    found = np.concatenate(parts)
    found = found[np.lexsort((found[:, 1], found[:, 0], found[:, 2]))]
    return Pairs(rows[found[:, 0]], rows[found[:, 1]], found[:, 2], found[:, 3].astype(bool))


def _to_signs(hashes: Sequence[str]) -> "npt.NDArray[np.float32]":
    import numpy as np

    if len(hashes) == 0:
        return np.zeros((0, 1), dtype=np.float32)
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(len(hashes), -1)
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _compare(
    plain: "npt.NDArray[np.float32]", mirrored: "npt.NDArray[np.float32]", top: int, left: int, max_distance: int
) -> "npt.NDArray[np.int64]":
    """Return rows of (first, second, distance, mirrored) of one tile; the dot product of signs is bits - 2 distance."""
    import numpy as np

    bits = plain.shape[1]
    ours, others = plain[top : top + _TILE], slice(left, left + _TILE)
    same, turned = ours @ plain[others].T, ours @ mirrored[others].T
    first, second = np.nonzero(np.maximum(same, turned) >= bits - 2 * max_distance)
    is_mirrored = turned[first, second] > same[first, second]
    products = np.where(is_mirrored, turned[first, second], same[first, second])
    distance = ((bits - products) / 2).astype(np.int64)
    found = np.stack([first + top, second + left, distance, is_mirrored.astype(np.int64)], axis=1)
    return found[found[:, 0] < found[:, 1]]


def number_groups(count: int, pairs: Pairs) -> "npt.NDArray[np.int64]":
    """Return a group number for each of `count` rows: rows joined by a chain of pairs share one."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(count, count))
    groups: npt.NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return groups
