"""What the command line prints: results to standard output, news to standard error, progress only on a terminal."""

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from maskfast.apps.cluster.output import Finished

T = TypeVar("T")
PLAIN_SECONDS = 10.0
IMPORT_NOISE = ("`torch.jit.script` is deprecated", "The 'mode.chained_assignment' option is deprecated")
"""Warnings that fastai's own imports cause with newer torch and pandas; nobody here can act on them."""


@contextmanager
def hush_imports() -> Iterator[None]:
    """Keep `IMPORT_NOISE` back from what is imported and done inside."""
    with warnings.catch_warnings():
        for message in IMPORT_NOISE:
            warnings.filterwarnings("ignore", message=message)
        yield


def say(line: str, *, quiet: bool = False) -> None:
    """Print one line of news to standard error, unless `quiet`."""
    if not quiet:
        print(escape_controls(line), file=sys.stderr, flush=True)


def escape_controls(text: str) -> str:
    """Return `text` with escapes for whatever is no printable character: a stranger's names may move the cursor."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def choose_model(model: Path | None, *, quiet: bool = False) -> Path:
    """Return the path of the model to open; say so where nobody named it and it is the small one of the package."""
    from maskfast.score.loading import DEFAULT_MODEL, SMALL_MODEL, find_model

    found = find_model(model)
    if model is None and found == SMALL_MODEL:
        say(f"no model in {DEFAULT_MODEL}: the small one inside the package answers", quiet=quiet)
    return found


def show_news(*, quiet: bool = False) -> None:
    """Show what the library logs from now on, as plain lines on standard error; warnings even where `quiet`."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage(), quiet=quiet and record.levelno < logging.WARNING)

    logger = logging.getLogger("maskfast")
    logger.handlers = [Lines()]
    logger.setLevel(logging.INFO)


def show_progress(steps: Iterable[T], title: str, *, total: int | None = None, quiet: bool = False) -> Iterator[T]:
    """Yield `steps`, drawing a bar with steps per second and time left when standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    speed = TextColumn("{task.speed:.1f}/s" if total else "")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(steps, total=total, description=title)


def track_rows(*, quiet: bool = False) -> Callable[[Iterator[T], int, int], Iterator[T]]:
    """Return what passes rows on and shows how many of all there are, their rate and the time left.

    On a terminal that is a bar, else a plain line every PLAIN_SECONDS.
    """

    def track(rows: Iterator[T], total: int, done: int) -> Iterator[T]:
        left = total - done
        if quiet or left < 2:
            return rows
        if sys.stderr.isatty():
            return show_progress(rows, "scoring", total=left)
        return _tell_rows(rows, total, done)

    return track


def _tell_rows(rows: Iterator[T], total: int, done: int) -> Iterator[T]:
    start = told = time.monotonic()
    for count, row in enumerate(rows, start=1):
        yield row
        now = time.monotonic()
        if now - told >= PLAIN_SECONDS:
            told = now
            rate = count / (now - start)
            say(f"{done + count} of {total} pictures, {rate:.1f}/s, {(total - done - count) / rate:.0f} s left")


def track_partitions(*, quiet: bool = False) -> "Callable[[Iterator[Finished]], Iterator[Finished]]":
    """Return what passes finished partitions on and says every PLAIN_SECONDS how many rows there are."""

    def track(partitions: "Iterator[Finished]") -> "Iterator[Finished]":
        told, rows = time.monotonic(), 0
        for partition in partitions:
            rows += partition.rows
            if time.monotonic() - told >= PLAIN_SECONDS:
                told = time.monotonic()
                say(f"{rows} rows written", quiet=quiet)
            yield partition

    return track
