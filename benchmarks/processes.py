"""What the benchmarks share: a contender runs in a process of its own, and a wrong path costs one line."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maskfast.core.errors import MaskfastError


def run_apart(name: str, command: Sequence[str | Path], *, given: str = "") -> Any:
    """Run a command with `given` on its standard input and return what its last line says as JSON."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:].rstrip()}")
    return json.loads(done.stdout.splitlines()[-1])


def run_main(main: Callable[[], None]) -> None:
    """Run a program; pictures or paths that cannot be used end it with one line."""
    try:
        main()
    except (MaskfastError, OSError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
