"""The verbs `models` and `doctor`: what networks there are, and what this machine will do with them."""

import json
from typing import Annotated, Any

import typer

from maskfast.apps.cli.console import hush_imports


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("models")(models)
    app.command("doctor")(doctor)


def models(
    names: Annotated[list[str] | None, typer.Argument(help="Networks to describe; default: those people know.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """List networks with parameters, multiply-adds, the licence of their weights, and whether those are here.

    Example: maskfast models

    Example: maskfast models resnet18 timm:mobilenetv4_conv_small --json
    """
    from maskfast.bundle.backbones import list_backbones
    from maskfast.bundle.costs import describe_costs

    rows = [describe_costs(name) for name in names or list_backbones()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    _print_table(
        ("name", "library", "size", "parameters", "multiply-adds", "licence", "weights here"),
        [
            (
                row["name"],
                row["library"],
                str(row["size"]),
                "-" if row["needs"] else f"{row['parameters'] / 1e6:.1f} M",
                "-" if row["needs"] else f"{row['multiply_adds'] / 1e9:.2f} G",
                row["licence"] or "-",
                row["needs"] or {True: "yes", False: "no", None: "-"}[row["weights_here"]],
            )
            for row in rows
        ],
    )


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Say what this machine has, and what training and scoring will use here and why.

    Example: maskfast doctor
    """
    with hush_imports():
        from maskfast.learn.doctor import examine_machine

        found = examine_machine()
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _print_table(("what", "found"), [(name, str(value)) for name, value in found.items()])


def _print_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)  # [nasnet] is no style
    wide = console if console.is_terminal else Console(width=200, markup=False)

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    wide.print(table)
