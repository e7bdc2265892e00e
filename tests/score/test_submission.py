import csv
import io
import shutil

import pytest

from maskfast.core.errors import ConfigError, DataError
from maskfast.data.submission import Submission
from maskfast.score.loading import load
from maskfast.score.predictor import Prediction
from maskfast.score.submission import check_submission, format_submission, write_submission

ORDER = [7, 2, 11, 0, 5]


@pytest.fixture(scope="module")
def predictor(toy_bundle):
    return load(toy_bundle)


@pytest.fixture
def challenge(picture_folder, tmp_path):
    """Five rows in no natural order, under an unusual header, in a folder with more pictures than rows."""
    folder = tmp_path / "challenge"
    shutil.copytree(picture_folder, folder / "images")
    names = {path.stem: path.name for path in picture_folder.iterdir()}
    lines = ["ID,Label", *(f"{names[str(index)]},0" for index in ORDER)]
    (folder / "sample_submission.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_exactly_the_samples_rows_are_answered(predictor, challenge, tmp_path):
    counts = write_submission(predictor, challenge, tmp_path / "out.csv")
    assert (counts.rows, counts.filled) == (5, ())
    with (tmp_path / "out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["ID", "Label"]
    assert [int(name.split(".")[0]) for name, _ in rows] == ORDER
    for name, probability in rows:
        alone = predictor.predict(challenge / "images" / name).probability
        assert float(probability) == pytest.approx(alone, abs=1e-6)


def test_a_missing_picture_is_refused_and_nothing_is_written_over(predictor, challenge, tmp_path):
    (challenge / "images" / "11.webp").unlink()
    (challenge / "images" / "5.webp").write_bytes(b"RIFF")
    (tmp_path / "out.csv").write_text("older")
    with pytest.raises(DataError, match=r"2 of 5 pictures cannot be scored, the first: 11\.webp: .*--missing"):
        write_submission(predictor, challenge, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "older"
    counts = write_submission(predictor, challenge, tmp_path / "out.csv", missing=0.25)
    assert [line.split(":")[0] for line in counts.filled] == ["11.webp", "5.webp"]
    assert "11.webp,0.25\n" in (tmp_path / "out.csv").read_text()


def test_a_folder_in_the_way_is_told_before_the_work(predictor, challenge, tmp_path):
    with pytest.raises(DataError, match="is no regular file"):
        write_submission(predictor, challenge, tmp_path, track=lambda *_: pytest.fail("scored"))


def test_a_wrong_probability_for_missing_ones_is_refused(predictor, challenge, tmp_path):
    with pytest.raises(ConfigError, match="no probability"):
        write_submission(predictor, challenge, tmp_path / "out.csv", missing=1.5)


def test_rows_that_do_not_fit_the_sample_are_refused():
    good = [Prediction("a", 0.1, "no_mask"), Prediction("b", 1.0, "mask")]
    check_submission(["a", "b"], good)
    for ids, rows, message in (
        (["a"], good, "2 rows, the sample has 1"),
        (["b", "a"], good, "row 1 is a, the sample has b"),
        (["a"], [Prediction("a", float("nan"), "mask")], r"row 1 \(a\): nan is no probability"),
        (["a"], [Prediction("a", 1.01, "mask")], "no probability"),
        (["a"], [Prediction("a", None, "", "failed")], "no probability"),
    ):
        with pytest.raises(DataError, match=message):
            check_submission(ids, rows)


def test_a_carriage_return_in_an_id_splits_no_row():
    sample = Submission(["a\rb.jpg", "c.jpg"], [None, None], ["", ""], "image", "target")
    text = format_submission(sample, [Prediction(name, 0.5, "mask") for name in sample.ids])
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["image", "target"],
        ["a\rb.jpg", "0.5"],
        ["c.jpg", "0.5"],
    ]
