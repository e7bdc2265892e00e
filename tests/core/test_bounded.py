"""What Pillow does with such a stream is seen in test_image.py; here are its bounds alone."""

import pytest

from maskfast.core.bounded import MAX_READS, BoundedBytes, TooManyReadsError


def test_it_reads_as_the_bytes_do() -> None:
    stream = BoundedBytes(b"0123456789")
    assert stream.read(3) == b"012"
    assert stream.seek(5) == 5
    assert stream.read() == b"56789"
    assert stream.read(1) == b""


def test_the_same_place_is_read_a_few_times_and_no_more() -> None:
    size = 10 * 2**20
    stream = BoundedBytes(bytes(size))
    for _ in range(3):
        stream.seek(0)
        assert len(stream.read()) == size
    stream.seek(0)
    with pytest.raises(TooManyReadsError, match="its metadata tell of more than the file holds"):
        stream.read()


def test_a_file_is_read_in_so_many_pieces_and_no_more() -> None:
    stream = BoundedBytes(bytes(MAX_READS + 1))
    for _ in range(MAX_READS):
        stream.read(1)
    with pytest.raises(TooManyReadsError, match=f"more than {MAX_READS} reads"):
        stream.read(1)
