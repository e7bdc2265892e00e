"""Which pictures are the same photo: hashes go in, group numbers and each picture's nearest earlier one come out."""

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

_TILE = 1024


@dataclass(frozen=True)
class Matches:
    """What `match_pictures` found; all arrays have one entry a row."""

    group: "npt.NDArray[np.int64]"
    """Rows joined by a chain of near-duplicates share a number."""
    nearest: "npt.NDArray[np.int64]"
    """The earlier row that is nearest among those of the same photo; -1 where there is none."""
    distance: "npt.NDArray[np.int64]"
    """Bits in which the hashes of the two differ."""
    mirrored: "npt.NDArray[np.bool_]"
    """Whether the one is the other's mirror image."""


def match_pictures(prints: "pd.DataFrame", *, max_distance: int = MAX_DISTANCE) -> Matches:
    """Match the rows of a frame of fingerprints.

    A picture and its mirror image count as one photo. Refused pictures match nothing. Memory is that of one tile of
    1024 x 1024 distances, whatever the number of pictures and copies; time grows with the square of the number.
    """
    import numpy as np

    firsts, links = _find_equals(prints["hash"].tolist())
    rows = np.flatnonzero((firsts == np.arange(len(prints))) & (prints["hash"] != "").to_numpy())
    plain = _pack(prints["hash"].iloc[rows].tolist())
    mirrored = _pack(prints["mirrored"].iloc[rows].tolist())
    best = np.full((len(prints), 3), [-1, max_distance + 1, 0], dtype=np.int64)
    best[links[1]] = np.stack([links[0], np.zeros_like(links[0]), np.zeros_like(links[0])], axis=1)
    parts = [links]
    for left in range(0, len(rows), _TILE):
        for top in range(0, left + 1, _TILE):
            found = _compare(plain, mirrored, top, left, max_distance)
            found[:, :2] = rows[found[:, :2]]
            _keep_nearest(best, found)
            parts.append(_thin_out(found[:, :2]))
    return Matches(_connect(len(prints), np.concatenate(parts, axis=1)), best[:, 0], best[:, 1], best[:, 2] == 1)


def _find_equals(hashes: Sequence[str]) -> "tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]":
    """Return for each row the first of the same hash, and the pairs (first, repetition) as two rows."""
    import numpy as np

    seen: dict[str, int] = {}
    firsts = np.array([seen.setdefault(one, row) if one else row for row, one in enumerate(hashes)], dtype=np.int64)
    repeated = np.flatnonzero(firsts != np.arange(len(hashes)))
    return firsts, np.stack([firsts[repeated], repeated])


def _pack(hashes: Sequence[str]) -> "npt.NDArray[np.uint8]":
    import numpy as np

    if len(hashes) == 0:
        return np.zeros((0, 1), dtype=np.uint8)
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(len(hashes), -1)


def _to_signs(packed: "npt.NDArray[np.uint8]") -> "npt.NDArray[np.float32]":
    import numpy as np

    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _compare(
    plain: "npt.NDArray[np.uint8]", mirrored: "npt.NDArray[np.uint8]", top: int, left: int, max_distance: int
) -> "npt.NDArray[np.int64]":
    """Return rows of (first, second, distance, mirrored) of one tile; the dot product of signs is bits - 2 distance."""
    import numpy as np

    bits = 8 * plain.shape[1]
    ours, others = _to_signs(plain[top : top + _TILE]), slice(left, left + _TILE)
    same, turned = ours @ _to_signs(plain[others]).T, ours @ _to_signs(mirrored[others]).T
    near = np.maximum(same, turned) >= bits - 2 * max_distance
    first, second = np.nonzero(np.triu(near, 1) if top == left else near)
    is_mirrored = turned[first, second] > same[first, second]
    products = np.where(is_mirrored, turned[first, second], same[first, second])
    distance = ((bits - products) / 2).astype(np.int64)
    return np.stack([first + top, second + left, distance, is_mirrored.astype(np.int64)], axis=1)


def _keep_nearest(best: "npt.NDArray[np.int64]", found: "npt.NDArray[np.int64]") -> None:
    """Enter into `best` (nearest, distance, mirrored) what is nearer than what is there; the earliest of equals."""
    import numpy as np

    ordered = found[np.lexsort((found[:, 0], found[:, 2], found[:, 1]))]
    _, starts = np.unique(ordered[:, 1], return_index=True)
    nearest = ordered[starts]
    nearer = nearest[nearest[:, 2] < best[nearest[:, 1], 1]]
    best[nearer[:, 1]] = nearer[:, [0, 2, 3]]


def _thin_out(pairs: "npt.NDArray[np.int64]") -> "npt.NDArray[np.int64]":
    """Return as few pairs that connect the same rows, one column each: copies of copies would fill the memory."""
    import numpy as np

    rows, places = np.unique(pairs, return_inverse=True)
    groups = _connect(len(rows), places.reshape(pairs.shape).T)
    _, heads = np.unique(groups, return_index=True)
    return np.stack([rows[heads[groups]], rows])


def _connect(count: int, links: "npt.NDArray[np.int64]") -> "npt.NDArray[np.int64]":
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(links.shape[1]), (links[0], links[1])), shape=(count, count))
    groups: npt.NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups
