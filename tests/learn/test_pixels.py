"""The pixel cache: what it holds, when it is made anew, and what is removed."""

import os
from pathlib import Path

import numpy as np
import pytest

from maskfast.core.cache import cache_dir
from maskfast.core.image import load_image
from maskfast.learn import pixels
from maskfast.learn.pixels import open_pixels


@pytest.fixture
def paths(toy: Path) -> list[str]:
    return sorted(map(str, (toy / "images").iterdir()))


def test_rows_are_the_loaded_pictures(paths: list[str]) -> None:
    cache = open_pixels(paths, 24, "pad")
    for path in paths:
        np.testing.assert_array_equal(cache.read(path), load_image(path, 24, "pad"))


def test_it_is_made_once(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    open_pixels(paths, 24)
    monkeypatch.setattr(pixels, "load_image", None)
    assert open_pixels(paths, 24).array.shape == (len(paths), 24, 24, 3)


def test_another_size_method_or_file_makes_another(paths: list[str]) -> None:
    first = open_pixels(paths, 24)
    assert open_pixels(paths, 25).folder != first.folder
    assert open_pixels(paths, 24, "crop").folder != first.folder
    os.utime(paths[0], ns=(1, 1))
    assert open_pixels(paths, 24).folder != first.folder


def test_broken_and_missing_files_have_a_reason_and_no_row(paths: list[str]) -> None:
    Path(paths[0]).write_bytes(b"no picture")
    cache = open_pixels([*paths, "/nowhere.png"], 24)
    assert paths[0] not in cache
    assert set(cache.reasons) == {paths[0], "/nowhere.png"}
    assert all(cache.reasons.values())
    np.testing.assert_array_equal(cache.read(paths[5]), load_image(paths[5], 24))


def test_a_damaged_cache_is_made_anew(paths: list[str]) -> None:
    cache = open_pixels(paths, 24)
    (cache.folder / "rows.json").write_text("{")
    np.testing.assert_array_equal(open_pixels(paths, 24).read(paths[0]), load_image(paths[0], 24))


def test_the_oldest_goes_where_room_is_short(paths: list[str]) -> None:
    bytes_each = len(paths) * 24 * 24 * 3
    old, new = open_pixels(paths, 24), open_pixels(paths, 24, "pad")
    os.utime(old.folder, (1, 1))
    room = 3 * bytes_each + len((new.folder / "rows.json").read_bytes())
    third = open_pixels(paths, 24, "crop", max_bytes=room)
    assert not old.folder.exists()
    assert new.folder.exists()
    assert third.folder.exists()


def test_what_does_not_fit_is_not_cached(paths: list[str]) -> None:
    assert open_pixels(paths, 24, max_bytes=100) is None
    assert not [entry for entry in cache_dir("pixels").iterdir() if entry.is_dir()]
