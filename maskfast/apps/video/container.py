"""A video file goes in, how many bytes its own structure promises beyond its end comes out: so a cut copy is told.

What a container says of its frames and seconds is an estimate, and honest files miss it: a trimmed one keeps frames
that are not shown, a sound track may be longer than the pictures. The lengths of its parts are exact.
"""

import os
from pathlib import Path
from typing import BinaryIO

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"uuid", b"sidx", b"meta")
"""What stands at the top of an MP4 or QuickTime file; after anything else nothing is concluded."""


def count_missing_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes that are missing at a video file's end; 0 where it is whole, or of a kind that does not say.

    Knows MP4 and QuickTime (boxes, ISO 14496-12), Matroska and WebM (EBML, RFC 9559) and AVI (RIFF).
    """
    size = Path(path).stat().st_size
    with open(path, "rb") as stream:
        kind = stream.read(4)
        find_end = {EBML: _find_segment_end, b"RIFF": _find_riff_end}.get(kind, _find_boxes_end)
        stream.seek(0)
        return max(0, find_end(stream, size) - size)


def _find_boxes_end(stream: BinaryIO, size: int) -> int:
    end = 0
    while end < size:
        stream.seek(end)
        length, kind = int.from_bytes(stream.read(4)), stream.read(4)
        if length == 1:
            length = int.from_bytes(stream.read(8))
        if kind not in BOXES or length < 8:
            break
        end += length
    return end


def _find_segment_end(stream: BinaryIO, _: int) -> int:
    stream.seek(len(EBML))
    stream.seek(_read_length(stream), os.SEEK_CUR)
    if stream.read(4) != SEGMENT:
        return 0
    length = _read_length(stream)
    return stream.tell() + length


def _read_length(stream: BinaryIO) -> int:
    """An EBML length; 0 for the one that means unknown, as recorders write while they record."""
    first = int.from_bytes(stream.read(1))
    more = 8 - first.bit_length()
    bits = 7 * (more + 1)
    length = int.from_bytes(bytes([first]) + stream.read(more)) & (1 << bits) - 1
    return 0 if length == (1 << bits) - 1 else length


def _find_riff_end(stream: BinaryIO, size: int) -> int:
    """The end of the last RIFF chunk: a large AVI is a row of them (OpenDML)."""
    end = 0
    while end < size:
        stream.seek(end)
        if stream.read(4) != b"RIFF":
            break
        length = int.from_bytes(stream.read(4), "little")
        if length in (0, 0xFFFFFFFF):
            break
        end += 8 + length
    return end
