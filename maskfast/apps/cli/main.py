"""The `maskfast` command: gathers the verbs, and turns errors into one line and an exit code."""

import os
import sys
import traceback
from importlib import import_module
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from maskfast._version import __version__
from maskfast.core.errors import MaskfastError

VERB_MODULES: tuple[str, ...] = ("train", "models", "ensemble", "demo", "predict", "model", "evaluate", "serve", "data")
"""Modules of this package, each with a `register(app)` that adds its verbs."""

app = typer.Typer(
    name="maskfast",
    help="Does this picture contain at least one person wearing a face mask? Train, score and serve the answer.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"maskfast {__version__}")
        raise typer.Exit


@app.callback()
def _read_common_options(
    version: Annotated[  # noqa: ARG001  typer calls its callback
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["MASKFAST_DEBUG"] = "1"


for _module in VERB_MODULES:
    import_module(f"maskfast.apps.cli.{_module}").register(app)


def main() -> NoReturn:
    """Run the command line with the process's arguments and exit with 0, 1 or 2 (130 when interrupted)."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run the command line with `args` and return the exit code; errors are printed to standard error."""
    try:
        return int(app(args or ["--help"], standalone_mode=False) or 0)
    except KeyboardInterrupt:
        return _report("interrupted", 130)
    except (MaskfastError, TyperException) as error:
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        return _report(message, 2)
    except ModuleNotFoundError as error:
        return _report(f"{error.name} is not installed; pip install maskfast brings all but the extras", 2)
    except OSError as error:
        return _report(_describe_os_error(error), 2)


def _report(message: str, code: int) -> int:
    if os.environ.get("MASKFAST_DEBUG"):
        traceback.print_exc()
    print(f"maskfast: {' '.join(message.split())}", file=sys.stderr)
    return code


def _describe_os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
