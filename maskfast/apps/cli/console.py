"""What the command line prints: results to standard output, news to standard error, progress only on a terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def say(line: str, *, quiet: bool = False) -> None:
    """Print one line of news to standard error, unless `quiet`."""
    if not quiet:
        print(line, file=sys.stderr, flush=True)


def show_progress(steps: Iterable[T], title: str, *, total: int | None = None, quiet: bool = False) -> Iterator[T]:
    """Yield `steps`, drawing a bar with steps per second and time left when standard error is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(steps, total=total, description=title)
