import os
import zipfile
from dataclasses import replace

import pytest

from maskfast.core.errors import DataError, MaskfastError
from maskfast.data.listing import list_images
from maskfast.score.journal import Journal
from maskfast.score.predictor import BATCH, Prediction

RUN = {"model": "one"}
COUNT = 3 * BATCH + 5


@pytest.fixture
def pictures(tmp_path):
    """Files of the same size, a few more than three batches; nothing here looks into them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number}.jpg").write_bytes(b"%04d" % number)
    return list(list_images([folder]))


def answer(pictures):
    return [Prediction(name, number / COUNT, "mask") for number, (name, _) in enumerate(pictures)]


def leave(out, pictures, run=RUN):
    """Do as a run does that is stopped before its end, and return its file."""
    with Journal(out, run) as journal:
        assert journal.open(pictures) == 0
        watched = list(journal.watch(pictures))
        assert list(journal.keep(iter(answer(watched)))) == answer(pictures)
    return journal.path


def resume(out, pictures, run=RUN):
    """Return how many rows the next run need not score, after it scored the rest."""
    with Journal(out, run) as journal:
        done = journal.open(pictures)
        list(journal.watch(pictures[done:]))
        list(journal.keep(iter(answer(pictures)[done:])))
    assert list(journal.read()) == answer(pictures)
    return done


def test_whole_batches_of_the_same_run_are_kept(tmp_path, pictures):
    path = leave(tmp_path / "rows.csv", pictures)
    content = path.read_bytes()
    assert resume(tmp_path / "rows.csv", pictures) == 3 * BATCH
    assert path.read_bytes() == content
    assert resume(tmp_path / "rows.csv", pictures, {"model": "two"}) == 0


@pytest.mark.parametrize("size", [0, 1, 10, 30, 60])
def test_a_run_killed_at_its_start_is_begun_again(tmp_path, pictures, size):
    path = leave(tmp_path / "rows.csv", pictures)
    content = path.read_bytes()
    path.write_bytes(content[:size])
    assert resume(tmp_path / "rows.csv", pictures) == 0
    assert path.read_bytes() == content


def swap(lines, at):
    lines[at] = lines[at - 1]


def change_digit(lines, at):
    lines[at] = lines[at].replace(b'"probability": 0.', b'"probability": 0.9')


def tear(lines, at):
    lines[at] = lines[at][:20]


def drop(lines, at):
    del lines[at]


def overwrite(lines, at):
    lines[at] = b"\xff\xfe no row at all\n"


@pytest.mark.parametrize("damage", [swap, change_digit, tear, drop, overwrite])
@pytest.mark.parametrize(("row", "kept"), [(5, 0), (BATCH + 1, BATCH), (COUNT - 2, 3 * BATCH)])
def test_rows_from_a_damage_on_are_scored_again(tmp_path, pictures, damage, row, kept):
    path = leave(tmp_path / "rows.csv", pictures)
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    damage(lines, 1 + row)
    path.write_bytes(b"".join(lines))
    assert resume(tmp_path / "rows.csv", pictures) == kept
    assert path.read_bytes() == content


def write_again(path):
    path.write_bytes(b"else")
    os.utime(path, ns=(1, 1))


def lengthen(path):
    found = path.stat()
    path.write_bytes(b"longer")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("change", [write_again, lengthen, os.unlink])
def test_rows_from_a_changed_picture_on_are_scored_again(tmp_path, pictures, change):
    leave(tmp_path / "rows.csv", pictures)
    change(pictures[2 * BATCH + 1][1])
    assert resume(tmp_path / "rows.csv", pictures) == 2 * BATCH
    assert resume(tmp_path / "rows.csv", pictures) == 3 * BATCH


def test_a_picture_that_changes_while_it_is_scored_is_scored_again(tmp_path, pictures):
    with Journal(tmp_path / "rows.csv", RUN) as journal:
        journal.open(pictures)
        watched = list(journal.watch(pictures))
        write_again(pictures[0][1])
        list(journal.keep(iter(answer(watched))))
    assert resume(tmp_path / "rows.csv", pictures) == 0


def test_a_changed_member_of_a_zip_is_noticed_and_a_new_date_of_the_zip_is_not(tmp_path):
    def pack(changed):
        with zipfile.ZipFile(tmp_path / "album.zip", "w") as zipped:
            for number in range(COUNT):
                zipped.writestr(f"{number}.jpg", b"else" if number == changed else b"%04d" % number)
        return list(list_images([tmp_path / "album.zip"]))

    leave(tmp_path / "rows.csv", pack(None))
    os.utime(tmp_path / "album.zip", ns=(1, 1))
    assert resume(tmp_path / "rows.csv", pack(None)) == 3 * BATCH
    assert resume(tmp_path / "rows.csv", pack(BATCH + 3)) == BATCH


@pytest.mark.parametrize("kind", ["text", "folder", "link", "dangling link", "pipe"])
def test_what_no_run_left_is_refused_and_stays(tmp_path, pictures, kind):
    path, other = tmp_path / "rows.csv.partial", tmp_path / "other"
    if kind == "text":
        path.write_text("the only copy\n")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
        if kind == "link":
            other.write_bytes(leave(tmp_path / "more.csv", pictures).read_bytes())
    before = path.lstat(), other.exists() and other.read_bytes()
    with (
        Journal(tmp_path / "rows.csv", RUN) as journal,
        pytest.raises(DataError, match=r"rows\.csv\.partial: is not what a stopped run left; move it"),
    ):
        journal.open(pictures)
    assert (path.lstat().st_mtime_ns, path.lstat().st_size) == (before[0].st_mtime_ns, before[0].st_size)
    assert (other.exists() and other.read_bytes()) == before[1]


def test_a_file_that_another_program_changed_meanwhile_is_an_error(tmp_path, pictures):
    with Journal(tmp_path / "rows.csv", RUN) as journal:
        journal.open(pictures)
        list(journal.watch(pictures))
        list(journal.keep(iter([replace(row, label="no_mask") for row in answer(pictures)])))
    journal.path.write_bytes(journal.path.read_bytes().replace(b"no_mask", b"mask", 1))
    with pytest.raises(MaskfastError, match="another program changed it meanwhile"):
        list(journal.read())
