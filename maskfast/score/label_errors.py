"""Answers to labelled pictures in, the labels most likely wrong out: ranked, as a table and as a page of thumbnails."""

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.core.errors import ImageError
from maskfast.core.files import write_whole
from maskfast.data.delimited import write_csv
from maskfast.score.gallery import draw_thumbnail, write_jpeg
from maskfast.score.page import read_template

if TYPE_CHECKING:
    import pandas as pd

PAGE_FILE, TABLE_FILE = "label_errors.html", "label_errors.csv"
SHOWN = 120
"""Most thumbnails on the page; the table holds all."""
THUMBNAIL_SIDE = 240


def find_label_errors(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return the rows (columns image, label, probability, ...) whose label is probably wrong, the likeliest first.

    Confident learning (Northcutt et al. 2021, arXiv:1911.00068): a label is doubted where the other class is likelier
    and at least as likely as it is, on average, for the pictures that carry that other label. The probabilities must
    come from networks that were not trained on these pictures (out of fold or held out), else they repeat the labels.
    Adds `doubt`, the probability of the other class.
    """
    known = rows[rows["label"].notna() & rows["probability"].notna()]
    masks = known["label"].astype(int) == 1
    usual = known.groupby(masks)["probability"].mean()
    if len(usual) < 2:
        return known.head(0).assign(doubt=0.0)
    doubt = known["probability"].where(~masks, 1 - known["probability"])
    needed = masks.map({False: max(0.5, usual[True]), True: max(0.5, 1 - usual[False])})
    suspects = known.assign(doubt=doubt)[doubt >= needed]
    return suspects.sort_values("doubt", ascending=False, kind="stable").reset_index(drop=True)


def write_label_errors(suspects: "pd.DataFrame", out: str | Path) -> Path:
    """Write label_errors.csv and label_errors.html with thumbnails to the folder `out` and return the page's path.

    The table has a column `image`, as `maskfast train --drop` reads it: take out the rows whose label is right.
    """
    out = Path(out)
    columns = [name for name in ("image", "source", "label", "probability", "doubt") if name in suspects]
    write_csv(out / TABLE_FILE, suspects[columns])
    shown = [
        {**row, "thumbnail": _encode_thumbnail(str(row["path"]))} for row in suspects.head(SHOWN).to_dict("records")
    ]
    write_whole(out / PAGE_FILE, read_template("label_errors.html.j2").render(rows=shown, total=len(suspects)))
    return out / PAGE_FILE


def _encode_thumbnail(path: str) -> str:
    """Return the picture as base64 JPEG, or "" where it can no longer be read."""
    import numpy as np

    try:
        return b64encode(write_jpeg(np.asarray(draw_thumbnail(path, side=THUMBNAIL_SIDE)))).decode()
    except ImageError:
        return ""
