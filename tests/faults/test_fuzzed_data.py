"""Random damage to tables, archives and annotations: each is read, or refused with the one kind of error."""

import io
import random
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskfast.core.errors import ArchiveError, DataError
from maskfast.data.archives import extract_zip, list_members
from maskfast.data.boxes import read_voc
from maskfast.data.delimited import read_table
from maskfast.data.labels import read_label
from maskfast.data.tables import read_items

pytestmark = pytest.mark.faults
ANY_FOLDER = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
CELLS = st.text(alphabet=st.sampled_from('abé1.,;\t|"\n\r\0 \ufeff=/\\'), max_size=40)


@ANY_FOLDER
@given(content=st.one_of(st.binary(max_size=200), CELLS.map(str.encode)))
def test_any_bytes_are_a_table_or_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with suppress(DataError):
        df = read_table(tmp_path / "t.csv")
        assert len(df) > 0
        assert all(isinstance(cell, str) for cell in df.to_numpy().ravel())


@ANY_FOLDER
@given(content=CELLS)
def test_any_rows_are_items_or_one_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.csv").write_text("image,label\nt.csv,1\n" + content, newline="")
    with suppress(DataError):
        items = read_items(tmp_path / "t.csv")
        assert ((items["status"] == "ok") == (items["reason"] == "")).all()


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none()))
def test_any_cell_is_a_label_or_unclear(value: object) -> None:
    with suppress(ValueError):
        assert read_label(value) in (0, 1, None)


def make_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        for number in range(4):
            opened.writestr(f"images/{number}.png", bytes(range(256)) * 3)
    return stream.getvalue()


def test_damaged_archives_are_read_or_one_error(tmp_path: Path) -> None:
    chance = random.Random(0)
    whole = make_archive()
    kept = 0
    for turn in range(400):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 3, 9])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path = tmp_path / "a.zip"
        path.write_bytes(data[: chance.choice([len(data), len(data), chance.randrange(len(data))])])
        with suppress(ArchiveError):
            extract_zip(path, target=tmp_path / "out" / str(turn))
            kept += 1
            assert all(member.read_bytes() is not None for member in list_members(path))
    folders = [found for found in (tmp_path / "out").iterdir() if found.suffix != ".lock"]
    assert 10 < len(folders) == kept < 300
    assert {found.name for found in tmp_path.iterdir()} == {"a.zip", "out"}


def test_damaged_annotations_are_read_or_one_error(tmp_path: Path) -> None:
    chance = random.Random(0)
    box = b"<object><name>mask</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
    whole = b"<annotation><filename>a.png</filename>" + box * 2 + b"</annotation>"
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 3])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / "a.xml").write_bytes(data)
        with suppress(DataError):
            assert len(read_voc(tmp_path).frame) >= 1
