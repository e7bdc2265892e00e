import csv
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from maskfast.score.predictor import Prediction
from maskfast.score.rows import write_rows

ROWS = [
    Prediction("plain.jpg", 0.25, "no_mask"),
    Prediction("cr\rx.png", 0.5, "mask"),
    Prediction('lf\nx, "y".png', 0.5, "mask"),
    Prediction("\udcff.jpg", 0.75, "mask"),
    Prediction("=a.zip/\udcff.jpg", None, "", "failed", "=a.zip: entry \udcff is damaged"),
]


@pytest.fixture(params=[".csv", ".jsonl", ".parquet"])
def out(request, tmp_path):
    write_rows(tmp_path / f"rows{request.param}", iter(ROWS))
    return tmp_path / f"rows{request.param}"


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="", errors="surrogateescape", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_any_name_and_reason_come_back(out):
    rows = read(out)
    shown = str.maketrans({"\udcff": "\ufffd"}) if out.suffix == ".parquet" else {}
    safe = "./" if out.suffix == ".csv" else ""
    assert [row["image"].removeprefix("./") for row in rows] == [row.image.translate(shown) for row in ROWS]
    assert rows[4]["image"] == f"{safe}{ROWS[4].image}".translate(shown)
    assert rows[4]["reason"] == f"{safe}{ROWS[4].reason}".translate(shown)


def test_other_readers_of_csv_see_a_row_a_picture(tmp_path):
    write_rows(tmp_path / "rows.csv", iter(ROWS))
    assert len(pd.read_csv(tmp_path / "rows.csv", encoding="latin-1")) == len(ROWS)
