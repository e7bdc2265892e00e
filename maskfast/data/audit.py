"""What is wrong with a data set: an items table goes in, its pictures measured and a table of findings come out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from maskfast.data.duplicates import Matches, match_pictures
from maskfast.data.fingerprints import measure_pictures
from maskfast.data.splits import add_groups

if TYPE_CHECKING:
    import pandas as pd

DARK = 40.0
"""Mean grey below which a picture counts as dark."""
FLAT = 15.0
"""Standard deviation of grey below which there is hardly anything to see."""
BLURRED = 20.0
"""Variance of the Laplacian at 128 pixels below which a picture counts as blurred: 35 of 1,817 on spot-the-mask."""
SMALL = 48
"""Pixels of the shorter side below which a picture counts as small."""
OUTLIER = 1.5
"""Interquartile ranges beyond the quartiles, of logarithms, from where a size or shape is an outlier (Tukey)."""

FINDINGS: dict[str, str] = {
    "missing": "The file is not there",
    "refused": "The row or the picture cannot be used",
    "conflict": "One file, or one photo in two files, under both labels",
    "duplicate row": "The same file in several rows",
    "exact duplicate": "The same bytes in another file",
    "near-duplicate": "The same photo in another form",
    "leak": "The same photo in two of train, valid and test",
    "dark": f"Mean brightness below {DARK:g} of 255",
    "flat": f"Contrast below {FLAT:g} of 255",
    "blurred": f"Sharpness below {BLURRED:g}",
    "small": f"Shorter side below {SMALL} pixels",
    "odd format": "The name's ending is another format's, or the pixels are of an unusual kind",
    "odd size": "Far larger or smaller than the others",
    "odd shape": "Far longer or taller than the others",
}
"""Every kind of finding and what it means."""

_USUAL_MODES = {"RGB", "L", "RGBA", "1"}
_ENDINGS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "GIF": {".gif"},
    "TIFF": {".tif", ".tiff"},
    "AVIF": {".avif"},
    "HEIF": {".heic", ".heif"},
}


@dataclass(frozen=True)
class Audit:
    """All that an audit found."""

    items: "pd.DataFrame"
    """The items, unreadable ones refused and groups filled, with the columns of Fingerprint beside."""
    findings: "pd.DataFrame"
    """A row a finding: finding (a key of FINDINGS), image, path, label, source, row, other (the path of the picture
    that it repeats or contradicts, ""), detail."""
    summary: dict[str, Any]
    """Counts and quartiles, ready for JSON."""


def audit_items(items: "pd.DataFrame", *, on_progress: Callable[[int], object] | None = None) -> Audit:
    """Read every picture that is ok and list what may be wrong; nothing is changed on disk.

    `on_progress` is called with the number of pictures read so far.
    """
    import pandas as pd

    ok = items.index[items["status"] == "ok"]
    prints = measure_pictures(items.loc[ok, "path"].tolist(), on_progress=on_progress).set_index(ok)
    matches = match_pictures(prints)
    measured = add_groups(items, prints=prints, matches=matches).join(prints.drop(columns=["path", "reason"]))
    rows = [
        *_find_bad_rows(measured),
        *_find_copies(measured.loc[ok], matches),
        *_find_mixed_groups(measured),
        *_find_odd_pictures(measured),
    ]
    findings = pd.DataFrame(rows, columns=["at", "finding", "other", "detail"])
    about = measured.loc[findings["at"], ["image", "path", "label", "source", "row"]].reset_index(drop=True)
    findings = pd.concat([findings[["finding"]], about, findings[["other", "detail"]]], axis=1)
    order = {finding: number for number, finding in enumerate(FINDINGS)}
    findings = findings.sort_values("finding", key=lambda kinds: kinds.map(order), kind="stable", ignore_index=True)
    return Audit(measured, findings, _summarise(measured, findings))


def describe_items(items: "pd.DataFrame") -> str:
    """Say in one line what items with groups hold: classes, rows that cannot be used, repeated photos, leaks."""
    usable = items[(items["status"] == "ok") & items["label"].notna()]
    masks = int(usable["label"].sum())
    repeated = len(usable) - usable["group"].nunique()
    contrary = int((usable.groupby("group")["label"].nunique() > 1).sum())
    leaking = len(_find_leaking(items))
    parts = [f"{len(usable)} labelled pictures ({masks} mask, {len(usable) - masks} no mask)"]
    parts += [f"{count} {status}" for status, count in items["status"].value_counts().items() if status != "ok"]
    parts += [f"{repeated} are copies of another"] if repeated else []
    parts += [f"{contrary} photos bear both labels"] if contrary else []
    parts += [f"{leaking} stand in two of train, valid and test"] if leaking else []
    return "; ".join(parts)


def clean_items(audit: Audit) -> "pd.DataFrame":
    """Return the table to train on: path, label, split and source of every row that is sound.

    Left out are rows that cannot be used, photos under both labels, and all but the first of exactly the same bytes.
    Near-duplicates stay: splits keep them together.
    """
    items = audit.items[(audit.items["status"] == "ok") & audit.items["label"].notna()]
    labels = items.groupby("group")["label"].nunique()
    sound = items[items["group"].map(labels).eq(1).to_numpy() & ~items["sha1"].duplicated().to_numpy()]
    return sound[["path", "label", "split", "source"]].reset_index(drop=True)


Row = tuple[Any, str, str, str]


def _find_bad_rows(items: "pd.DataFrame") -> Iterator[Row]:
    names = {"duplicate": "duplicate row"}
    for at, row in items[items["status"] != "ok"].iterrows():
        status = str(row["status"])
        if (finding := names.get(status, status)) in FINDINGS:
            yield at, finding, "", str(row["reason"])


def _find_copies(items: "pd.DataFrame", matches: Matches) -> Iterator[Row]:
    """Yield each file that repeats an earlier one, once, with the first of the same bytes or else the nearest."""
    paths, sha1 = items["path"].tolist(), items["sha1"].tolist()
    firsts: dict[str, int] = {}
    for place, at in enumerate(items.index):
        first = firsts.setdefault(sha1[place], place)
        near = int(matches.nearest[place])
        if sha1[place] and first != place:
            yield at, "exact duplicate", paths[first], "the same bytes"
        elif near >= 0:
            bits = f"{matches.distance[place]} of 256 bits differ"
            yield at, "near-duplicate", paths[near], f"mirrored, {bits}" if matches.mirrored[place] else bits


def _find_mixed_groups(items: "pd.DataFrame") -> Iterator[Row]:
    """Yield the rows of one photo that stands under both labels, or in several splits."""
    grouped = items[items["group"].notna()]
    for _, rows in grouped[grouped["group"].duplicated(keep=False)].groupby("group"):
        labels = dict(zip(rows["path"], rows["label"], strict=True))
        splits = dict(zip(rows["path"], rows["split"].fillna("train"), strict=True))
        for at, path in zip(rows.index, rows["path"], strict=True):
            if other := next((one for one in labels if {labels[one], labels[path]} == {0, 1}), ""):
                yield at, "conflict", other, f"here {_say_label(labels[path])}, there {_say_label(labels[other])}"
            if splits[path] != "train" and (other := next((one for one in splits if splits[one] != splits[path]), "")):
                yield at, "leak", other, f"here {splits[path]}, there {splits[other]}"


def _say_label(label: int) -> str:
    return "mask" if label else "no mask"


def _find_leaking(items: "pd.DataFrame") -> "pd.DataFrame":
    grouped = items[items["group"].notna()]
    parts = grouped["split"].fillna("train").groupby(grouped["group"]).nunique()
    return grouped[grouped["group"].map(parts).gt(1).to_numpy()]


def _find_odd_pictures(items: "pd.DataFrame") -> Iterator[Row]:
    seen = items[(items["status"] == "ok") & items["sha1"].notna()]
    for row in seen.itertuples():
        yield from ((row.Index, finding, "", detail) for finding, detail in _judge_picture(row))
    sizes = dict(zip(seen.index, zip(seen["width"], seen["height"], strict=True), strict=True))
    for finding, values in (
        ("odd size", seen["width"] * seen["height"]),
        ("odd shape", seen["width"] / seen["height"]),
    ):
        yield from ((at, finding, "", "{:.0f} x {:.0f}".format(*sizes[at])) for at in _find_outliers(values))


def _judge_picture(row: Any) -> Iterator[tuple[str, str]]:
    if row.brightness < DARK:
        yield "dark", f"brightness {row.brightness:.0f}"
    if row.contrast < FLAT:
        yield "flat", f"contrast {row.contrast:.0f}"
    if row.sharpness < BLURRED:
        yield "blurred", f"sharpness {row.sharpness:.0f}"
    if min(row.width, row.height) < SMALL:
        yield "small", f"{row.width:.0f} x {row.height:.0f}"
    if detail := _say_odd_format(row.path, row.format, row.mode):
        yield "odd format", detail


def _say_odd_format(path: str, kind: str, mode: str) -> str:
    ending = PurePosixPath(path).suffix.casefold()
    if ending and ending not in _ENDINGS.get(kind, set()):
        return f"{kind} in a file that ends with {ending}"
    return "" if mode in _USUAL_MODES else f"{kind} of mode {mode}"


def _find_outliers(values: "pd.Series[Any]") -> list[Any]:
    import numpy as np

    logs = np.log(values.to_numpy(dtype=np.float64))
    low, high = np.quantile(logs, [0.25, 0.75]) if len(logs) else (0.0, 0.0)
    reach = OUTLIER * max(high - low, 0.1)
    return list(values.index[(logs < low - reach) | (logs > high + reach)])


def _summarise(items: "pd.DataFrame", findings: "pd.DataFrame") -> dict[str, Any]:
    ok = items[items["status"] == "ok"]
    counts = findings["finding"].value_counts()
    return {
        "pictures": len(items),
        "usable": int((ok["label"].notna()).sum()),
        "classes": {
            "mask": int(ok["label"].eq(1).sum()),
            "no mask": int(ok["label"].eq(0).sum()),
            "unlabelled": int(ok["label"].isna().sum()),
        },
        "sources": _count(items["source"]),
        "splits": _count(ok["split"].fillna("not given")),
        "status": _count(items["status"]),
        "formats": _count(ok["format"]),
        "modes": _count(ok["mode"]),
        "groups": int(ok["group"].nunique()),
        "width": _quartiles(ok["width"]),
        "height": _quartiles(ok["height"]),
        "aspect": _quartiles(ok["width"] / ok["height"]),
        "findings": {finding: int(counts.get(finding, 0)) for finding in FINDINGS},
    }


def _count(values: "pd.Series[Any]") -> dict[str, int]:
    return {str(value): int(count) for value, count in values.value_counts().items()}


def _quartiles(values: "pd.Series[Any]") -> dict[str, float]:
    if values.empty:
        return {}
    points = {"least": 0.0, "lower quartile": 0.25, "median": 0.5, "upper quartile": 0.75, "most": 1.0}
    return {name: round(float(values.quantile(point)), 3) for name, point in points.items()}
