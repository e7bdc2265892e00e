"""The verbs `audit` and `crop`: data goes in; what is wrong with it, or the faces cut from it, comes out."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskfast.apps.cli.classes import Classes, read_classes

if TYPE_CHECKING:
    from maskfast.data.audit import Audit

_SECONDS = 5.0
"""Between two lines of progress."""

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no news.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("audit")(audit)
    app.command("crop")(crop)


def audit(
    data: Annotated[list[Path], typer.Argument(metavar="DATA...", help="Folders, CSV or Parquet tables, zips.")],
    out: Annotated[Path | None, typer.Option(help="Write audit.html and tables into this folder.")] = None,
    clean: Annotated[Path | None, typer.Option(help="Write the table of sound pictures, to train on, here.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where anything is found.")] = False,
    positive: Annotated[str | None, typer.Option(help="The class name or folder that means mask.")] = None,
    classes: Classes = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find broken, repeated, contradictory and odd pictures, and photos in two of train, valid and test.

    No picture is changed. Exit code 1 where rows cannot be used, or with --strict where anything is found.

    Example: maskfast audit data/spot-the-mask --out audit --clean clean.csv
    """
    from maskfast.core.files import find_target, make_folder
    from maskfast.data.audit import audit_items, clean_items
    from maskfast.data.audit_page import write_audit
    from maskfast.data.delimited import write_csv
    from maskfast.data.tables import read_items

    items = read_items(*data, positive=positive, classes=read_classes(classes))
    if out is not None:
        make_folder(out)  # before the pictures are read, which takes long
    if clean is not None:
        find_target(clean)
    found = audit_items(items, on_progress=_tell_progress("read", len(items), quiet))
    _print_audit(found, as_json=as_json)
    if out is not None:
        _say_written(write_audit(found, out), quiet)
    if clean is not None:
        write_csv(clean, clean_items(found))
        _say_written([clean], quiet)
    counts = found.summary["findings"]
    unusable = counts["missing"] + counts["refused"] + counts["conflict"]
    if unusable or (strict and any(counts.values())):
        raise typer.Exit(1)


def crop(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder, a CSV of boxes or VOC annotations.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    split: Annotated[
        tuple[float, float, float], typer.Option(help="Parts of the photos for train, valid and test.")
    ] = (0.7, 0.15, 0.15),
    margin: Annotated[float, typer.Option(min=0, max=2, help="Part of a box's sides added on each side.")] = 0.2,
    min_size: Annotated[int, typer.Option(min=1, help="Least pixels of a box's shorter side.")] = 12,
    seed: Annotated[int, typer.Option(help="Decides which photos go where.")] = 0,
    classes: Classes = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Cut faces out of pictures by their boxes into OUT/train,valid,test/mask,no-mask.

    All faces of a photo stay in one part. OUT/manifest.csv lists every box and what became of it.

    Example: maskfast crop data/face-boxes faces --split 0.7 0.15 0.15
    """
    import json

    from maskfast.apps.cli.console import say
    from maskfast.data.crops import crop_faces

    crops = crop_faces(
        data, out, split=split, margin=margin, min_size=min_size, seed=seed, classes=read_classes(classes),
        on_progress=_tell_progress("cut", None, quiet),
    )  # fmt: skip
    say(crops.note, quiet=quiet)
    counts = crops.count()
    print(json.dumps(counts) if as_json else "\n".join(f"{name:>20} {count:>7}" for name, count in counts.items()))
    if counts["missing"] + counts["refused"]:
        raise typer.Exit(1)


def _tell_progress(done: str, total: int | None, quiet: bool) -> Callable[[int], None]:
    """Return what says every few seconds how many pictures are done."""
    from maskfast.apps.cli.console import say

    told: float | None = None

    def tell(count: int) -> None:
        nonlocal told
        now = time.monotonic()
        if told is None:
            told = now
        if now - told >= _SECONDS:
            told = now
            say(f"{done} {count}{f' of {total}' if total else ''} pictures", quiet=quiet)

    return tell


def _print_audit(found: "Audit", *, as_json: bool) -> None:
    import json

    from maskfast.data.audit import describe_items

    if as_json:
        print(json.dumps(found.summary, indent=2))
        return
    print(describe_items(found.items))
    for name, count in found.summary["findings"].items():
        print(f"{name:>20} {count:>7}")
    for row in found.findings[found.findings["finding"].isin(["missing", "refused", "conflict"])].head(20).itertuples():
        print(f"{row.row}: {row.image}: {row.detail}")


def _say_written(paths: list[Path], quiet: bool) -> None:
    from maskfast.apps.cli.console import say

    for path in paths:
        say(f"wrote {path}", quiet=quiet)
