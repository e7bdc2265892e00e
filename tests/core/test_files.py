import os
from pathlib import Path

import pytest

from maskfast.core.cache import cache_dir
from maskfast.core.errors import DataError
from maskfast.core.files import find_target, make_folder, open_whole, replace_folder, write_whole


def test_text_and_bytes_arrive_as_given(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "a.csv", "é,1\r\n")
    write_whole(tmp_path / "b.bin", b"\0\xff")
    assert (tmp_path / "new" / "a.csv").read_bytes() == "é,1\r\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\0\xff"


def test_a_failing_block_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError), open_whole(tmp_path / "a", "w") as stream:
        stream.writelines(["half", "\ud800"])
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_pipe_or_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(DataError, match=f"{name}: is no regular file"):
            write_whole(tmp_path / name, "text")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="folder: is no regular file"):
        find_target(tmp_path / "folder")
    with pytest.raises(DataError, match="file: is no folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(DataError, match="new: is no folder"):
        write_whole(tmp_path / "file" / "new" / "a.csv", "text")


def test_what_a_link_names_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    for content in ("new", "newer"):
        write_whole(tmp_path / "link", content)
        assert (tmp_path / "folder" / "file").read_text() == content
    assert (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2
    assert len(list((tmp_path / "folder").iterdir())) == 1


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("first", "second"):
        with replace_folder(target) as folder:
            (folder / content).write_text(content)
    assert os.listdir(target) == ["second"]
    assert os.listdir(tmp_path) == ["model"]


def test_a_failing_block_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with replace_folder(target) as folder:
        (folder / "first").touch()
    with pytest.raises(FileNotFoundError), replace_folder(target) as folder:
        (folder / "no folder" / "half").touch()
    assert os.listdir(target) == ["first"]
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MASKFAST_CACHE": "own", "XDG_CACHE_HOME": "shared"}, "own/x"),
        ({"XDG_CACHE_HOME": "shared"}, "shared/maskfast/x"),
        ({"HOME": "home"}, "home/.cache/maskfast/x"),
    ],
)
def test_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for variable in ("MASKFAST_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, str(tmp_path / value))
    assert cache_dir("x") == tmp_path / expected
    assert (tmp_path / expected).is_dir()
