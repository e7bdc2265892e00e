"""The bytes of a picture's file go in, a stream comes out that can neither keep a parser busy nor fill its memory."""

import io

MAX_READS = 500_000
"""Reads of one file. The largest PNG that is read, in chunks of 8 KB as usual, needs a quarter of that."""
MAX_TIMES = 3
"""How often over a file may be read, and one MiB more: its metadata, its pixels, and some of both again."""


class TooManyReadsError(Exception):
    """A file asks for more than any picture needs; the text says of what."""


class BoundedBytes(io.BytesIO):
    """The bytes of a file for Pillow, whose parsers do what is told there.

    A hostile file tells of millions of pieces, each of which takes time, or of one place again and again, each time of
    which takes memory. Raises TooManyReadsError at the read that is too many.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads_left = MAX_READS
        self._bytes_left = MAX_TIMES * len(data) + 2**20

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as io.BytesIO does."""
        content = super().read(size)
        self._reads_left -= 1
        self._bytes_left -= len(content)
        if self._reads_left < 0:
            raise TooManyReadsError(f"made of too many pieces (more than {MAX_READS} reads)")
        if self._bytes_left < 0:
            raise TooManyReadsError("its metadata tell of more than the file holds")
        return content
