"""Where maskfast keeps what it can make again: the kind of thing goes in, an existing folder comes out."""

import os
from pathlib import Path


def cache_dir(kind: str) -> Path:
    """Return the folder for `kind` ("archives", "pixels", ...), made if missing.

    It lies in $MASKFAST_CACHE, else in $XDG_CACHE_HOME/maskfast, else in ~/.cache/maskfast.
    """
    folder = _find_root() / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _find_root() -> Path:
    if own := os.environ.get("MASKFAST_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "maskfast"
    return Path.home() / ".cache" / "maskfast"
