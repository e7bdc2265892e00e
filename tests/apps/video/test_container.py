from pathlib import Path

import pytest
from matroska import write_matroska

from maskfast.apps.video.container import count_missing_bytes


def make_box(kind: bytes, content: int, *, large: bool = False) -> bytes:
    if large:
        return (1).to_bytes(4) + kind + (16 + content).to_bytes(8) + bytes(content)
    return (8 + content).to_bytes(4) + kind + bytes(content)


def make_riff(content: int) -> bytes:
    return b"RIFF" + (4 + content).to_bytes(4, "little") + b"AVI " + bytes(content)


MP4 = make_box(b"ftyp", 16) + make_box(b"moov", 300) + make_box(b"mdat", 5000, large=True)
AVI = make_riff(1000) + make_riff(500)


@pytest.mark.parametrize("whole", [MP4, AVI], ids=["mp4", "avi"])
def test_what_is_cut_off_is_counted(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    for missing in (0, 1, 400):
        path.write_bytes(whole[: len(whole) - missing])
        assert count_missing_bytes(path) == missing


def test_a_cut_matroska_is_counted(tmp_path: Path) -> None:
    path = write_matroska(tmp_path / "a.mkv", [(0, b"a" * 500), (1, b"b" * 500)])
    assert count_missing_bytes(path) == 0
    path.write_bytes(path.read_bytes()[:-300])
    assert count_missing_bytes(path) == 300


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        bytes(5000),
        b"\x47" * 1880,
        MP4 + b"\xff\xff\xff\xffjunk",
        MP4[:-5016] + (0).to_bytes(4) + b"mdat" + bytes(100),
        b"RIFF" + b"\xff\xff\xff\xff" + b"AVI " + bytes(100),
        b"RIFF" + bytes(4) + b"AVI " + bytes(100),
        bytes.fromhex("1a45dfa3 80 18538067 01ffffffffffffff") + bytes(100),
        bytes.fromhex("1a45dfa3"),
    ],
)
def test_what_does_not_say_how_long_it_is_misses_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    assert count_missing_bytes(tmp_path / "a") == 0
