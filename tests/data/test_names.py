from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfast.data.finding import NameIndex
from maskfast.data.names import clean_name, disarm_name, natural_key, show_name


@pytest.mark.parametrize("name", ["=1+1.jpg", "+a.jpg", "-a.jpg", "@a.jpg", "\ta.jpg", "\ra.jpg"])
def test_formulas_are_disarmed_and_still_name_the_file(name: str) -> None:
    assert disarm_name(name) == f"./{name}"
    assert clean_name(disarm_name(name)) == clean_name(name)


@pytest.mark.parametrize("name", ["a.jpg", "a=b.jpg", "./-a.jpg", "images/=a.jpg"])
def test_other_names_stay(name: str) -> None:
    assert disarm_name(name) == name


def test_a_shown_name_is_valid_unicode() -> None:
    assert show_name("é/\udcff\ud800.jpg").encode() == "é/\ufffd\ufffd.jpg".encode()


def test_numbers_sort_as_numbers() -> None:
    names = ["a10", "a2", "b1", "a2b", "10", "9", "a02"]
    assert sorted(names, key=natural_key) == ["9", "10", "a02", "a2", "a2b", "a10", "b1"]


@given(st.lists(st.text(max_size=12)))
def test_any_names_can_be_sorted_and_only_equal_ones_tie(names: list[str]) -> None:
    assert sorted(sorted(names), key=natural_key) == sorted(sorted(names, reverse=True), key=natural_key)


@given(st.text(max_size=30))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    index = NameIndex([Path(__file__).parent])
    try:
        found = index.find(name)
    except LookupError:
        return
    assert Path(__file__).parent in found.parents


def test_a_file_is_found_by_path_then_bare_name_then_stem(tmp_path: Path) -> None:
    for name in ("x/a.jpg", "y/a.jpg", "y/B.png", "c.tar.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = NameIndex([tmp_path])
    for name, found in {"x/a.jpg": "x/a.jpg", "B.png": "y/B.png", "b.PNG": "y/B.png", "c.tar": "c.tar.jpg",
                        "y/B": "y/B.png", "other/B.png": "y/B.png"}.items():  # fmt: skip
        assert index.find(name) == tmp_path / found
    with pytest.raises(LookupError, match="2 files fit the name"):
        index.find("a.jpg")
    with pytest.raises(LookupError, match="no such file"):
        index.find("d.jpg")


def test_the_longest_end_of_a_path_that_fits_is_meant(tmp_path: Path) -> None:
    for name in ("mask/1.jpg", "no_mask/1.jpg", "2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = NameIndex([tmp_path])
    assert index.find("/content/drive/no_mask/1.jpg", absolute=True) == tmp_path / "no_mask" / "1.jpg"
    assert index.find("C:\\data\\mask\\1.jpg") == tmp_path / "mask" / "1.jpg"
    assert index.find("/content/2.jpg", absolute=True) == tmp_path / "2.jpg"
    with pytest.raises(LookupError, match="outside the folder"):
        index.find("/content/2.jpg")
    with pytest.raises(LookupError, match=r"2 files fit the name, as mask/1\.jpg and no_mask/1\.jpg"):
        index.find("/content/1.jpg", absolute=True)


def test_of_several_files_the_one_in_the_first_root_is_meant(tmp_path: Path) -> None:
    for name in ("test/1.jpg", "other/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert NameIndex([tmp_path / "test", tmp_path]).find("1") == tmp_path / "test" / "1.jpg"
    with pytest.raises(LookupError, match=r"2 files fit the name, as other/1\.jpg and test/1\.jpg"):
        NameIndex([tmp_path]).find("1")
