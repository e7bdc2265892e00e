"""What this machine is good at: a device and a wish flow in, what makes training faster there flows out."""

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from torch import Tensor, nn

from maskfast.core.cores import count_cores
from maskfast.core.errors import ConfigError, ImageError
from maskfast.score.backends import has_bf16

TIMED_PICTURES = 16
"""Pictures that are loaded to tell how long all of them take."""
START_SECONDS = 2.0
"""What starting loading processes costs an epoch, and more than that where they are many."""

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # the numbers of glibc's malloc.h
_MMAP_MAX_DEFAULT, _TRIM_DEFAULT = 65536, 128 * 1024


@dataclass(frozen=True)
class Machine:
    """What training uses here, and why."""

    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"]
    why: str
    threads: int


def choose_machine(precision: Precision = "auto", *, device: str = "auto") -> Machine:
    """Choose the device and the precision: bf16 where it is done in hardware, else fp16 (GPU) or fp32 (CPU).

    Raises ConfigError for a device that is not there.
    """
    chosen = find_device(device)
    threads = min(torch.get_num_threads(), count_cores())
    if precision != "auto":
        return Machine(chosen, precision, "as told", threads)
    if chosen.type == "cuda":
        if has_bf16(chosen):
            return Machine(chosen, "bf16", f"{torch.cuda.get_device_name(chosen)} multiplies bf16 in hardware", threads)
        return Machine(chosen, "fp16", f"{torch.cuda.get_device_name(chosen)} has no bf16", threads)
    if chosen.type == "cpu" and has_bf16(chosen):
        return Machine(chosen, "bf16", "the processor multiplies bf16 in hardware", threads)
    return Machine(chosen, "fp32", f"no faster precision is known for this {chosen.type}", threads)


def find_device(device: str) -> torch.device:
    """The device of that name, or the fastest one for "auto". Raises ConfigError for one that is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, is_there in there.items() if is_there))
    chosen = torch.device(device)
    is_there = there.get(chosen.type) and (chosen.type != "cuda" or (chosen.index or 0) < torch.cuda.device_count())
    if not is_there:
        raise ConfigError(f"device: there is no {device} here; `maskfast doctor` says what there is")
    return chosen


def make_speed_callbacks(machine: Machine) -> list[Callback]:
    """The callbacks of one fit: channels last, and fastai's own for fp16. For bf16 there is `run_in_bf16`."""
    return [ChannelsLast(), *([MixedPrecision()] if machine.precision == "fp16" else [])]


@contextmanager
def run_in_bf16(network: nn.Module, machine: Machine) -> Iterator[None]:
    """Where the machine's precision is bf16, let `network` compute in it and answer in float32.

    The loss, the weights and the optimiser stay in float32. fastai's own MixedPrecision opens a CUDA autocast whatever
    the device is. The network's forward alone is wrapped, so that no error can leave the precision changed.
    """
    if machine.precision != "bf16":
        yield
        return
    opened = ExitStack()

    def enter(_network: nn.Module, _inputs: Any) -> None:
        opened.enter_context(torch.autocast(machine.device.type, dtype=torch.bfloat16))

    def leave(_network: nn.Module, _inputs: Any, output: Any) -> Any:
        opened.close()
        return output.float() if isinstance(output, Tensor) else output

    hooks = [network.register_forward_pre_hook(enter), network.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def keep_memory(device: torch.device) -> Iterator[None]:
    """Where training is on a processor, let the C library keep the memory that a step frees, for the next step.

    By default glibc gives each large block back to the system, which must clear every page of it when it is asked for
    again; that takes a good part of a training step. Other C libraries are left as they are. Afterwards, also after an
    error, it is as by default, and what is free is given back.
    """
    if device.type != "cpu" or not _tell_allocator({_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}):
        yield
        return
    try:
        yield
    finally:
        _tell_allocator({_MMAP_MAX: _MMAP_MAX_DEFAULT, _TRIM_THRESHOLD: _TRIM_DEFAULT})
        ctypes.CDLL(None).malloc_trim(0)


class ChannelsLast(Callback):  # type: ignore[misc]
    """Train with the channels innermost in memory, which convolutions want on processors and on tensor cores."""

    order = 11  # after fastai's CastToTensor

    def before_fit(self) -> None:
        """Lay the weights out."""
        self.learn.model.to(memory_format=torch.channels_last)

    def before_batch(self) -> None:
        """Lay the pictures out."""
        self.learn.xb = tuple(_lay_out(x) for x in self.learn.xb)


def measure_workers(paths: Sequence[str], load: Callable[[str], object]) -> int:
    """How many processes shall load `paths` each epoch, by timing `load` on a few of them spread over all.

    None where starting processes, at each epoch anew, would take longer than loading everything; else all cores but
    the one that trains. Pictures that cannot be loaded count as well: they too take their time.
    """
    began = time.perf_counter()
    sample = paths[:: max(1, len(paths) // TIMED_PICTURES)][:TIMED_PICTURES]
    for path in sample:
        with suppress(ImageError):
            load(path)
    whole = (time.perf_counter() - began) / max(1, len(sample)) * len(paths)
    return count_cores() - 1 if whole > START_SECONDS else 0


def _tell_allocator(options: dict[int, int]) -> bool:
    """Set options of glibc's malloc; False, and nothing done, where another C library is at work."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have no such function, Windows has no such library
        return False
    return all(mallopt(option, value) for option, value in options.items())


def _lay_out(x: Any) -> Any:
    return x.contiguous(memory_format=torch.channels_last) if isinstance(x, Tensor) and x.ndim == 4 else x
