import os
import zipfile
from pathlib import Path

import pytest

from maskfast.core.errors import DataError
from maskfast.data.finding import NameIndex
from maskfast.data.listing import Unread, list_images
from maskfast.data.names import walk_files
from maskfast.data.tables import read_items


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """Two classes, one with a folder that nobody may list; the superuser, who may, is kept from it as well."""
    for name in ("mask/a", "mask/b", "no_mask/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").write_bytes(b"\xff\xd8\xff")
    scandir = os.scandir

    def refuse(path):
        if Path(path) == tmp_path / "mask/b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return tmp_path


def test_a_folder_that_cannot_be_listed_is_a_row_in_its_place(locked):
    (first, _), (second, unread), (third, _) = list_images([locked])
    assert [first, second, third] == [str(locked / name) for name in ("mask/a/1.jpg", "mask/b", "no_mask/c/1.jpg")]
    assert isinstance(unread, Unread)
    with pytest.raises(OSError, match="folder that cannot be listed: permission denied"):
        unread.read_bytes()
    assert [name for name, _ in list_images([locked / "mask/b"])] == [str(locked / "mask/b")]


def test_a_folder_that_cannot_be_listed_never_shrinks_a_data_set(locked):
    for read in (read_items, lambda folder: list(walk_files(folder))):
        with pytest.raises(DataError, match=r"mask/b: cannot be listed: Permission denied; make it readable"):
            read(locked)
    index = NameIndex([locked])
    assert index.find("mask/a/1.jpg") == locked / "mask/a/1.jpg"
    with pytest.raises(LookupError, match=r"no such file \(and .*mask/b cannot be listed\)"):
        index.find("2.jpg")


def test_what_cannot_be_looked_at_is_left_to_its_reader(tmp_path, monkeypatch):
    (tmp_path / "album.zip").write_bytes(b"PK\3\4")
    open_file = Path.open

    def refuse(path, *args, **options):
        if path.name == "album.zip":
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    given = [str(tmp_path / "album.zip"), "n" * 300 + ".jpg", "gone.jpg", "nul\0.jpg"]
    assert list(list_images(given)) == [(name, Path(name)) for name in given]


def test_files_of_a_folder_that_cannot_be_searched_are_listed(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "gone.jpg").symlink_to("nowhere")

    def refuse(path):
        if path.name == "a.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return os.path.isfile(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    assert list(walk_files(tmp_path)) == [tmp_path / "a.jpg"]
    assert [name for name, _ in list_images([str(tmp_path / "*.jpg")])] == [str(tmp_path / "a.jpg")]


def test_members_know_their_size_and_checksum(tmp_path):
    with zipfile.ZipFile(tmp_path / "album.zip", "w") as zipped:
        zipped.writestr("a.jpg", b"123456789")
    ((_, member),) = list_images([tmp_path / "album.zip"])
    assert (member.size, member.crc) == (9, 0xCBF43926)
