"""The verbs `inspect` and `convert`: an unknown model file goes in, what it is or a bundle of it comes out."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from maskfast.core.errors import ConfigError

SHOWN = 12
"""Names of a kind that are printed; --json has them all."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("inspect")(inspect)
    app.command("convert")(convert)


def inspect(
    file: Annotated[Path, typer.Argument(help="An export.pkl or a bundle folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Say what a model file is, and what opening it by pickle would have called; nothing in it is run.

    Example: maskfast inspect downloads/export.pkl
    """
    from maskfast.apps.cli.console import escape_controls
    from maskfast.bundle.inspection import inspect_file

    found = inspect_file(file)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        print(escape_controls(f"{key}: {_shorten(value)}"))


def convert(
    file: Annotated[Path, typer.Argument(help="A fastai export.pkl.")],
    out: Annotated[Path, typer.Argument(help="The bundle folder to write.")],
    positive: Annotated[
        str | None, typer.Option(help="Its class that is the mask, where the name does not tell.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=32, max=1024, help="Its input's side, where it does not tell.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No news.")] = False,
) -> None:
    """Make a bundle of a foreign fastai export without opening its pickle; what cannot be rebuilt is said.

    Example: maskfast convert downloads/export.pkl export/model
    """
    from maskfast.apps.cli.console import say
    from maskfast.bundle.convert import draft_export
    from maskfast.bundle.store import write_bundle

    if out.resolve() in file.resolve().parents:
        raise ConfigError(f"{out}: {file} lies in it and would be replaced with it; name another folder")
    draft = draft_export(file, positive=positive, size=size)
    manifest = write_bundle(out, draft)
    for note in [*draft.config["notes"], *(f"{name}: {reason}" for name, reason in manifest.left_out.items())]:
        say(note, quiet=quiet)
    say(f"{out}: {manifest.network.arch}, {manifest.size} pixels, {manifest.method}; not calibrated", quiet=quiet)


def _shorten(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{key} ({count})" if isinstance(count, int) else f"{key}={count}" for key, count in value.items()]
    if isinstance(value, list):
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return ", ".join(str(item) for item in value[:SHOWN]) + more
    return str(value)
