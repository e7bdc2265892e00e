"""The flag `--class`: what a user says of classes of boxes goes in, a mapping comes out."""

from typing import Annotated

import typer

from maskfast.core.errors import ConfigError

HELP = "What a box class says: mask, no_mask or ignored. Repeatable."
Classes = Annotated[list[str] | None, typer.Option("--class", metavar="NAME=KIND", help=HELP, show_default=False)]


def read_classes(given: list[str] | None) -> dict[str, str]:
    """Return what each named class says; raises ConfigError for an entry that is not NAME=KIND."""
    pairs = [entry.rpartition("=") for entry in given or []]
    for name, _, kind in pairs:
        if not name or kind not in ("mask", "no_mask", "ignored"):
            raise ConfigError(f"--class {name or kind}: write NAME=mask, NAME=no_mask or NAME=ignored")
    return {name: kind for name, _, kind in pairs}
