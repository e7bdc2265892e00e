"""The verb `ensemble`: bundles go in, one bundle that averages their answers comes out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from maskfast.apps.cli.console import hush_imports


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("ensemble")(ensemble)


def ensemble(
    bundles: Annotated[list[Path], typer.Argument(metavar="A B...", help="Bundle folders, of any backbones.")],
    out: Annotated[Path, typer.Option(help="The folder of the new bundle.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the lines.")] = False,
) -> None:
    """Average the answers of several bundles, with weights fitted to the log loss on pictures held out by all.

    Example: maskfast ensemble export/resnet34 export/mobilenet --out export/model
    """
    with hush_imports():
        from maskfast.learn.ensemble import ensemble_bundles

        made = ensemble_bundles(bundles, out)
    if as_json:
        print(json.dumps({"out": str(out), **vars(made)}))
        return
    for folder, weight, alone in zip(bundles, made.weights, made.alone, strict=True):
        print(f"{folder}: weight {weight:.3f}, log loss {alone:.4f} alone")
    print(f"{out}: log loss {made.together:.4f} together, on {made.pictures} pictures held out by all")
