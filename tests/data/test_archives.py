import io
import struct
import zipfile
from pathlib import Path

import pytest

from maskfast.core.errors import ArchiveError, DataError
from maskfast.data.archives import ZipLimits, extract_zip, list_members
from maskfast.data.listing import list_images

FILES = {"images/a.png": b"\x89PNG one", "images/deep/b.jpg": b"\xff\xd8\xff two", "notes.txt": b"three" * 99}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.mkdir("images")
        for name, content in FILES.items():
            opened.writestr(name, content)
    return tmp_path / "set.zip"


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_unpacked_is_what_zipfile_reads(archive: Path) -> None:
    assert read_folder(extract_zip(archive)) == FILES
    assert {member.name: member.read_bytes() for member in list_members(archive)} == FILES


def test_a_folder_is_reused_until_the_archive_changes(archive: Path) -> None:
    first = extract_zip(archive)
    (first / "mark").touch()
    assert extract_zip(archive) == first
    assert (first / "mark").exists()
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("new.png", b"x")
    assert (extract_zip(archive) / "new.png").exists()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ZipLimits(entries=3), "4 entries are more than 3"),
        (ZipLimits(total_bytes=500), "more than 500"),
        (ZipLimits(entry_bytes=400), "more than 400"),
        (ZipLimits(name_bytes=10), "too long a name"),
    ],
)
def test_limits_can_be_set(archive: Path, tmp_path: Path, limits: ZipLimits, reason: str) -> None:
    with pytest.raises(ArchiveError, match=reason):
        extract_zip(archive, limits=limits, target=tmp_path / "out")
    with pytest.raises(ArchiveError, match=reason):
        list_members(archive, limits=limits)
    assert not (tmp_path / "out").exists()


def test_a_ratio_can_be_allowed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.bmp", bytes(2**21))
    with pytest.raises(ArchiveError, match="200 times"):
        list_members(tmp_path / "a.zip")
    assert len(list_members(tmp_path / "a.zip", limits=ZipLimits(ratio=1100))) == 1


def test_a_huge_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("a.png", b"x")
    data = bytearray(stream.getvalue())
    at = data.rindex(b"PK\5\6")
    data[at + 12 : at + 16] = struct.pack("<I", 300_000)
    (tmp_path / "a.zip").write_bytes(bytes(400_000) + data)
    with pytest.raises(ArchiveError, match="directory of 300000 bytes"):
        list_members(tmp_path / "a.zip", limits=ZipLimits(entries=500))


def test_a_huge_directory_told_by_the_64_bit_record_alone_is_refused(tmp_path: Path) -> None:
    """zipfile takes that record wherever it is, whatever the other says, and reads it just before its locator."""
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 50, 0, 0)
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 300_000, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, int.from_bytes(b"PK\6\6", "little"), 1)
    (tmp_path / "a.zip").write_bytes(bytes(400_000) + record + locator + end)
    with pytest.raises(ArchiveError, match="directory of 300000 bytes"):
        list_members(tmp_path / "a.zip", limits=ZipLimits(entries=100))


def test_a_failing_unpacking_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    at = data.index(b"notes.txt")
    data[at + 12 : at + 16] = b"\xff" * 4
    archive.write_bytes(data)
    with pytest.raises(ArchiveError):
        extract_zip(archive, target=tmp_path / "out" / "in")
    assert [path for path in (tmp_path / "out").rglob("*") if path.suffix != ".lock"] == []


def test_the_listing_takes_files_folders_patterns_and_archives(tmp_path: Path, archive: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("10.jpg", "9.JPG", "README.md", ".hidden.png", "no_ending"):
        (folder / name).write_bytes(b"\xff\xd8\xff" if name == "no_ending" else b"x")
    listed = list(
        list_images([str(folder), str(folder / "*.jpg"), str(archive), "missing.jpg", str(folder / "README.md")])
    )
    assert [name for name, _ in listed] == [
        f"{folder}/9.JPG", f"{folder}/10.jpg", f"{folder}/no_ending", f"{folder}/10.jpg",
        f"{archive}/images/a.png", f"{archive}/images/deep/b.jpg", "missing.jpg", f"{folder}/README.md",
    ]  # fmt: skip
    assert listed[4][1].read_bytes() == FILES["images/a.png"]


def test_an_input_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for given in (tmp_path / "empty", tmp_path / "*.png"):
        with pytest.raises(DataError, match="no pictures there"):
            list(list_images([given]))
