"""Imports of optional packages, with the pip command where one is missing."""

from importlib import import_module
from types import ModuleType

from maskfast.core.errors import MissingExtraError


def import_extra(module: str, extra: str) -> ModuleType:
    """Import `module`, which the extra `maskfast[extra]` brings.

    Raises MissingExtraError with the pip command where it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or module, extra) from error
