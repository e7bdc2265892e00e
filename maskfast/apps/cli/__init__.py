"""The command line: each command parses, calls one function of the library and prints; what went wrong is one line.

Exit codes: 0 done; 1 done, but some inputs could not be used; 2 nothing done.
"""

from maskfast.apps.cli.main import main

__all__ = ["main"]
