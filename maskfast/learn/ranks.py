"""Several processes that train one network: each learns its rank, and values of one or all flow to all."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed

from maskfast.core.extras import import_extra

T = TypeVar("T")


def get_rank() -> int:
    """Which of the processes this is; 0 writes."""
    return distributed.get_rank() if _is_joined() else 0


def count_ranks() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _is_joined() else 1


@contextmanager
def join_ranks(device: str) -> Iterator[int]:
    """Join the processes that `accelerate launch` (or `maskfast train --devices`) started, and yield this one's rank.

    Alone where there are no others. GPUs talk through nccl, processors through gloo.
    Raises MissingExtraError without accelerate.
    """
    if _is_joined() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield get_rank()
        return
    cpu = device == "cpu" or not torch.cuda.is_available()
    import_extra("accelerate", "distributed").PartialState(cpu=cpu)
    try:
        yield get_rank()
    finally:
        distributed.destroy_process_group()


def agree(value: T) -> T:
    """Return the first process's `value`."""
    if count_ranks() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: T) -> list[T]:
    """Return the values of all processes, in the order of their ranks."""
    if count_ranks() == 1:
        return [value]
    values: list[Any] = [None] * count_ranks()
    distributed.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Go on when all processes came here."""
    gather(None)


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process through before the others, which then find what it has made."""
    if get_rank():
        wait_for_all()
    yield
    if not get_rank():
        wait_for_all()


@contextmanager
def write_alone(open_folder: Callable[[], Any]) -> Iterator[Path]:
    """Yield the folder that `open_folder` opens to the first process, and one to be thrown away to every other."""
    with nullcontext() if get_rank() else open_folder() as shared:
        if shared is not None:
            yield shared
            return
        with tempfile.TemporaryDirectory(prefix="maskfast-rank-") as folder:
            yield Path(folder)


def _is_joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()
