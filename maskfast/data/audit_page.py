"""The audit for people: an Audit goes in, one offline HTML page and the CSV and JSON files beside it come out."""

import base64
import io
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskfast.core.errors import ImageError
from maskfast.core.files import write_whole
from maskfast.core.image import open_image
from maskfast.data.audit import FINDINGS, Audit
from maskfast.data.delimited import write_csv

if TYPE_CHECKING:
    import pandas as pd

THUMBNAIL = 96
"""Pixels of the longer side of a picture on the page."""
SHOWN = 30
"""Findings of one kind that the page shows with pictures; the CSV has all."""
SAMPLES = 24
"""Pictures on the sample sheet of a class."""
_POINTS = 2000
_PLOT = 300


def write_audit(audit: Audit, folder: Path) -> list[Path]:
    """Write audit.html, findings.csv, pictures.csv and audit.json into `folder` and return their paths.

    Names in the tables that a spreadsheet would run as a formula get `./` in front (`names.disarm_name`).
    """
    page, findings, pictures, summary = (
        folder / name for name in ("audit.html", "findings.csv", "pictures.csv", "audit.json")
    )
    write_whole(page, render_audit(audit))
    write_csv(findings, audit.findings)
    write_csv(pictures, audit.items.drop(columns=["boxes"], errors="ignore"))
    write_whole(summary, json.dumps(audit.summary, indent=2) + "\n")
    return [page, findings, pictures, summary]


def render_audit(audit: Audit) -> str:
    """Return the page; pictures are inside it, and nothing is loaded from elsewhere."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(loader=PackageLoader("maskfast.data"), autoescape=True, undefined=StrictUndefined)
    ok = audit.items[(audit.items["status"] == "ok")]
    return templates.get_template("audit.html.jinja").render(
        summary=audit.summary,
        meanings=FINDINGS,
        classes=[(name, _sample(ok[ok["label"].eq(label)])) for name, label in (("mask", 1), ("no mask", 0))],
        findings=[(kind, _show(audit.findings[audit.findings["finding"] == kind])) for kind in FINDINGS],
        points=_plot_sizes(ok),
        plot=_PLOT,
        shown=SHOWN,
    )


def _sample(items: "pd.DataFrame") -> list[dict[str, str]]:
    rows = list(items.index)
    chosen = sorted(random.Random(0).sample(rows, min(SAMPLES, len(rows))))
    return [_thumbnail(str(items.at[at, "path"]), str(items.at[at, "image"])) for at in chosen]


def _show(findings: "pd.DataFrame") -> list[dict[str, Any]]:
    return [
        {
            "pictures": [_thumbnail(path, name) for path, name in _pictures(row) if path],
            "image": row.image,
            "row": row.row,
            "other": Path(str(row.other)).name,
            "detail": row.detail,
        }
        for row in findings.head(SHOWN).itertuples()
    ]


def _pictures(row: Any) -> Iterable[tuple[str, str]]:
    unreadable = row.finding in ("missing", "refused")
    return [] if unreadable else [(row.path, row.image), (row.other, row.other)]


def _thumbnail(path: str, name: str) -> dict[str, str]:
    try:
        img = open_image(path, at_least=2 * THUMBNAIL)
    except ImageError as error:  # removed since it was measured
        return {"data": "", "name": f"{name}: {error.reason}"}
    img.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    img.save(stream, "JPEG", quality=75)
    return {"data": "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode(), "name": name}


def _plot_sizes(items: "pd.DataFrame") -> list[tuple[float, float, str]]:
    """Return (x, y, class) of a sample of the pictures on logarithmic axes from 10 to 10,000 pixels."""
    rows = list(zip(items["width"], items["height"], items["label"].fillna(-1), strict=True))
    chosen = random.Random(0).sample(rows, min(_POINTS, len(rows)))
    names = {1: "mask", 0: "none"}
    return [
        (_place(width), _PLOT - _place(height), names.get(int(label), "unknown")) for width, height, label in chosen
    ]


def _place(pixels: float) -> float:
    return round(min(max(math.log10(max(pixels, 1)) - 1, 0), 3) / 3 * _PLOT, 1)
