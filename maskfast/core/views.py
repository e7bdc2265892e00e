"""Names of test-time views flow in, what each does to a picture flows out: "plain", "flip", "plain@256", "flip@256"."""

import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

_VIEW = re.compile(r"(plain|flip)(?:@(\d{2,4}))?")
SIZES = (32, 1024)
"""Sides of a view in pixels, from and to."""


class ParsedView(NamedTuple):
    """A view in parts: mirrored or not, and scaled to so many pixels a side (None: as the picture comes)."""

    flip: bool
    size: int | None


def parse_view(view: str) -> ParsedView:
    """Read the name of a view; ValueError for what is none."""
    found = _VIEW.fullmatch(view)
    size = int(found[2]) if found and found[2] else None
    if not found or (size is not None and not SIZES[0] <= size <= SIZES[1]):
        raise ValueError(f"{view!r} is no view; say plain, flip, or with a size such as plain@256 or flip@256")
    return ParsedView(found[1] == "flip", size)


def _check_view(view: str) -> str:
    parse_view(view)
    return view


View = Annotated[str, AfterValidator(_check_view)]
"""The name of a view, checked."""
