"""Matroska files of JPEG pictures with times of their own, for the tests of what watches videos."""

import struct
from collections.abc import Sequence
from pathlib import Path


def write_matroska(path: Path, frames: Sequence[tuple[float, bytes]], *, seconds: float | None = None) -> Path:
    """A video of JPEGs, each at its second; its head says that it lasts `seconds`, else as long as they take."""
    lasting = seconds if seconds is not None else 2 * frames[-1][0] - frames[-2][0]
    info = _element("2ad7b1", _number(1_000_000)) + _element("4489", struct.pack(">d", lasting * 1000))
    picture = _element("b0", _number(40)) + _element("ba", _number(30))
    track = b"".join(_element(kind, _number(1)) for kind in ("d7", "73c5", "83"))
    track += _element("86", b"V_MJPEG") + _element("e0", picture)
    clusters = b"".join(
        _element("1f43b675", _element("e7", _number(round(at * 1000))) + _element("a3", b"\x81\0\0\x80" + data))
        for at, data in frames
    )
    tracks = _element("1654ae6b", _element("ae", track))
    head = _element("1a45dfa3", _element("4282", b"matroska") + _element("4287", _number(4)))
    path.write_bytes(head + _element("18538067", _element("1549a966", info) + tracks + clusters))
    return path


def _element(kind: str, content: bytes) -> bytes:
    return bytes.fromhex(kind) + (1 << 56 | len(content)).to_bytes(8) + content


def _number(value: int) -> bytes:
    return value.to_bytes(4)
