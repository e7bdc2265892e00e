"""The choice of --engine that several verbs have."""

from enum import StrEnum


class EngineChoice(StrEnum):
    """Where the work is done."""

    LOCAL = "local"
    RAY = "ray"
