"""This machine flows in, what training and scoring will use here and why flows out."""

import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from maskfast._version import __version__
from maskfast.bundle.onnx_run import multiplies_tiles
from maskfast.core.cache import cache_dir
from maskfast.core.cores import count_cores
from maskfast.learn.speed import choose_machine

PACKAGES = ("torch", "torchvision", "fastai", "timm", "onnxruntime", "numpy", "pandas", "pillow")
EXTRAS = {
    "pytorchcv": "nasnet",
    "opencv-python-headless": "video",
    "ray": "ray",
    "tensorboard": "track",
    "wandb": "track",
}


def examine_machine() -> dict[str, Any]:
    """What there is and what will be used, as names with short texts."""
    machine = choose_machine()
    disk = shutil.disk_usage(cache_dir("pixels"))
    return {
        "maskfast": __version__,
        "python": platform.python_version(),
        **{name: find_version(name) for name in PACKAGES},
        **{f"{name} ({extra})": find_version(name) or "not installed" for name, extra in EXTRAS.items()},
        "processor": f"{count_cores()} cores, {machine.threads} threads, {torch.backends.cpu.get_cpu_capability()}",
        "device": _describe_device(machine.device),
        "precision": f"{machine.precision}: {machine.why}",
        "memory layout": "channels last, which convolutions want",
        "pictures": f"decoded once into {cache_dir('pixels')} ({disk.free / 1e9:.0f} GB free)",
        "loading processes": "none with the cache; without it, measured when a training starts",
        "scoring": "onnxruntime in fp32; int8 and torch on request",
        "8 bits": _describe_int8(torch.cpu.get_capabilities()),
    }


def find_version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _describe_int8(able: Mapping[str, Any]) -> str:
    if able.get("architecture") != "x86_64":
        return f"as onnxruntime does them on {platform.machine()}"
    if multiplies_tiles():
        return "multiplied in hardware, in tiles (AMX)"
    if able.get("avx512_vnni") or able.get("avx_vnni"):
        return "multiplied in hardware (VNNI)"
    return "no VNNI here: the same answers, less speed"


def _describe_device(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{device.type}: no CUDA device is visible" if device.type == "cpu" else device.type
    memory = torch.cuda.get_device_properties(device).total_memory
    return f"{torch.cuda.get_device_name(device)}, {memory / 2**30:.0f} GiB"
