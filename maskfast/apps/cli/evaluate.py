"""`maskfast evaluate`: labelled pictures in, a table of how well a model answers and, on request, a report out."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from maskfast.apps.cli.classes import Classes, read_classes

LISTED = 20
"""Unusable pictures that are named one by one."""


def register(app: typer.Typer) -> None:
    """Add `evaluate`."""
    app.command()(evaluate)


def evaluate(
    data: Annotated[
        list[Path], typer.Argument(help="Labelled pictures: a folder, zip, CSV or Parquet table; several.")
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Bundle folder.  [default: export/model, else the small model inside the package]", show_default=False
        ),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(help="The class or folder that is 'mask', where unclear.", show_default=False)
    ] = None,
    classes: Classes = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report: a page, plots, tables.")] = None,
    backend: Annotated[
        Literal["auto", "onnx", "int8", "torch", "torch-fp32"], typer.Option(help="What runs it.")
    ] = "auto",
    bootstrap: Annotated[
        int, typer.Option(min=0, max=100_000, help="Resamples for the 95 % intervals; 0 for none.")
    ] = 1000,
    recall: Annotated[float | None, typer.Option(help="Choose the threshold that finds this share of masks.")] = None,
    cost_miss: Annotated[float | None, typer.Option(help="Choose the cheapest threshold: price of a miss.")] = None,
    cost_false_alarm: Annotated[
        float | None, typer.Option(help="The price of a false alarm, with --cost-miss.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only what training held out, as it answered then.")
    ] = False,
    worst: Annotated[int, typer.Option(min=0, help="Costliest answers shown in the report.")] = 12,
    heat: Annotated[
        Literal["auto", "gradients", "occlusion"], typer.Option(help="Heat maps: Grad-CAM needs torch.")
    ] = "auto",
    tta: Annotated[bool, typer.Option("--tta", help="Average each picture with its mirror image.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no news, only results.")] = False,
) -> None:
    """Measure a model on labelled pictures: log loss, accuracy, AUC and more, with intervals.

    Example: maskfast evaluate data/spot-the-mask --model export/model --out report

    Example: maskfast evaluate photos/ --recall 0.99
    """
    from maskfast.apps.cli.console import choose_model, say, show_progress
    from maskfast.core.files import make_folder
    from maskfast.score.evaluation import evaluate_data
    from maskfast.score.loading import load
    from maskfast.score.report import summarise, write_report, write_table

    def watch(rows: Iterable[Any]) -> Iterable[Any]:
        return show_progress(rows, "scoring", quiet=quiet)

    predictor = load(choose_model(model, quiet=quiet), backend=backend)
    if out:
        make_folder(out)  # before the pictures are scored, which takes long
    wishes = {"recall": recall, "cost_miss": cost_miss, "cost_false_alarm": cost_false_alarm}
    options: dict[str, Any] = {"positive": positive, "bootstrap": bootstrap, "seed": seed, "tta": tta}
    options |= {"classes": read_classes(classes), "held_out": held_out, **wishes}
    evaluation = evaluate_data(predictor, *data, watch=watch, **options)
    print(json.dumps(summarise(evaluation, predictor), indent=2) if as_json else write_table(evaluation, predictor))
    for note in evaluation.notes:
        say(f"mind: {note}", quiet=quiet)
    for row in evaluation.unusable.head(LISTED).to_dict("records"):
        say(f"not used: {row['image']}: {row['reason']}")
    if len(evaluation.unusable) > LISTED:
        say(f"not used: {len(evaluation.unusable) - LISTED} more; --out FOLDER or --json lists them all")
    if out:
        title = ", ".join(path.name for path in data)
        say(f"report: {write_report(evaluation, predictor, out, title=title, worst=worst, heat=heat)}", quiet=quiet)
    if not evaluation.unusable.empty:
        raise typer.Exit(1)
