"""The `maskfast` command: gathers the verbs, and turns errors into one line and an exit code."""

import codecs
import io
import os
import sys
import traceback
from importlib import import_module
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from maskfast._version import __version__
from maskfast.apps.cli.console import escape_controls
from maskfast.core.errors import MaskfastError

VERBS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "models": ("models", "doctor"),
    "ensemble": ("ensemble",),
    "demo": ("demo",),
    "predict": ("predict", "submit"),
    "model": ("inspect", "convert"),
    "evaluate": ("evaluate",),
    "serve": ("serve", "watch", "space"),
    "data": ("audit", "crop"),
}
"""Modules of this package, and the verbs that the `register(app)` of each adds."""


def make_app(verb: str = "") -> typer.Typer:
    """Return the command line, with the module of `verb` alone (the others cost time) or, where it is none, all."""
    app = typer.Typer(
        name="maskfast",
        help="Does this picture contain at least one person wearing a face mask? Train, score and serve the answer.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_read_common_options)
    named = [module for module, verbs in VERBS.items() if verb in verbs]
    for module in named or VERBS:
        import_module(f"maskfast.apps.cli.{module}").register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"maskfast {__version__}")
        raise typer.Exit


def _read_common_options(
    version: Annotated[  # noqa: ARG001  typer calls its callback
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["MASKFAST_DEBUG"] = "1"


def main() -> NoReturn:
    """Run the command line with the process's arguments and exit with 0, 1 or 2 (130 when interrupted)."""
    _print_any_name()
    sys.exit(run(sys.argv[1:]))


def _print_any_name() -> None:
    """Have file names that standard output cannot encode printed as their bytes, or escaped where it is no UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_unicode = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if is_unicode else "backslashreplace")


def run(args: list[str]) -> int:
    """Run the command line with `args` and return the exit code; errors are printed to standard error."""
    try:
        app = make_app(args[0] if args else "")
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
    print(escape_controls(f"maskfast: {' '.join(message.split())}"), file=sys.stderr)
    return code


def _describe_os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
