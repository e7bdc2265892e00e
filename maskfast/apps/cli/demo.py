"""The verb `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from maskfast.apps.cli.console import hush_imports, say, show_news
from maskfast.apps.demo import SEED, run_demo


def register(app: typer.Typer) -> None:
    """Add `demo` to the command line."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures, the model and its answers.")] = Path("demo"),
    count: Annotated[int, typer.Option(min=100, max=10_000, help="How many pictures to draw.")] = 1200,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the drawing and the training.")] = SEED,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the table only.")] = False,
) -> None:
    """Go the whole way on drawn pictures: draw, train resnet34 from scratch, submit, measure.

    Example: maskfast demo --out demo
    """
    say(f"Drawing {count} pictures and training on them; this takes a few minutes.", quiet=quiet)
    show_news(quiet=quiet)
    with hush_imports():
        result = run_demo(out, count=count, seed=seed)
    rows = [
        *((name, f"{result.metrics[name]:.4f}") for name in ("accuracy", "log_loss", "auc")),
        ("seconds", f"{result.seconds:.0f}"),
        ("pictures", result.data),
        ("model", result.model),
        ("report", result.model / "report"),
        ("submission", result.submission),
    ]
    for name, value in rows:
        print(f"{name:12}{value}")
