"""Training speed: plain fastai, maskfast and the bare training step, alternating, each run in a process of its own.

Every contender trains the same network on the same pictures for one epoch with validation (the bare step: as many steps
on one synthetic batch at maskfast's precision). Prints pictures a second with their spread, the ratios and peak memory,
and writes JSON. Run it on an idle machine:

    python benchmarks/training.py --data ../shared/data/spot-the-mask
    python benchmarks/training.py --data photos --growth 500 1000 2000 4000
"""

import argparse
import json
import platform
import resource
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import processes
from results import describe_machine

CONTENDERS = ("fastai", "maskfast", "bare")
WARM_STEPS = 3
"""Steps of the bare contender that are not timed: the first ones allocate and choose kernels."""


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled pictures")
    parser.add_argument("--arch", default="resnet34", help="a torchvision name")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=640, help="of the data, for training and validation together")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--growth", type=int, nargs="*", default=[], help="measure maskfast alone on so many pictures")
    parser.add_argument("--out", type=Path, default=Path("build/training.json"))
    parser.add_argument("--run", choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = read_options()
    if options.run:
        print(json.dumps(RUNNERS[options.run](options)))
        return
    if options.growth:
        found: dict[str, Any] = {"growth": [measure_growth(options, count) for count in options.growth]}
    else:
        found = compare(options)
    found["machine"] = describe_machine() | {"python": platform.python_version()}
    found["options"] = {name: str(value) for name, value in vars(options).items() if name not in ("out", "run")}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written: {options.out}")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run all contenders in turn, so often as asked, and compare the medians."""
    run_apart(options, "maskfast")  # fills the pixel cache, and everybody's file cache
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.repeats):
        for name in CONTENDERS:
            runs[name].append(run_apart(options, name))
    for name, several in runs.items():
        speeds = [run["pictures_per_second"] for run in several]
        memory = max(run["peak_mib"] for run in several)
        print(
            f"{name:9} {statistics.median(speeds):8.2f} pictures/s "
            f"({min(speeds):.2f} to {max(speeds):.2f}), {memory:.0f} MiB"
        )
    ratios = {
        "speed over fastai": compare_pairs(runs, "maskfast", "fastai"),
        "speed over the bare step": compare_pairs(runs, "maskfast", "bare"),
    }
    peaks = {name: max(run["peak_mib"] for run in several) for name, several in runs.items()}
    ratios["peak memory over fastai"] = {"median": peaks["maskfast"] / peaks["fastai"]}
    for title, ratio in ratios.items():
        print(f"{title}: {', '.join(f'{key} {value:.2f}' for key, value in ratio.items())}")
    return {"runs": runs, "ratios": ratios}


def compare_pairs(runs: dict[str, list[dict[str, Any]]], ours: str, theirs: str) -> dict[str, float]:
    """The ratio of speeds of runs that followed each other: median, lowest, highest."""
    pairs = [a["pictures_per_second"] / b["pictures_per_second"] for a, b in zip(runs[ours], runs[theirs], strict=True)]
    return {"median": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}


def measure_growth(options: argparse.Namespace, count: int) -> dict[str, Any]:
    """Time and memory of maskfast on `count` pictures, the second time, when they are cached."""
    options.pictures = count
    run_apart(options, "maskfast")
    run = run_apart(options, "maskfast")
    print(f"{count:6} pictures: {run['seconds']:.1f} s, {run['peak_mib']:.0f} MiB")
    return {"pictures": count, **run}


def run_apart(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Run one contender in a new process and return what it measured."""
    told = [
        f"--{key.replace('_', '-')}={getattr(options, key)}"
        for key in ("data", "arch", "size", "batch_size", "pictures", "precision")
    ]
    measured: dict[str, Any] = processes.run_apart(name, [sys.executable, __file__, f"--run={name}", *told])
    return measured


def read_frame(options: argparse.Namespace) -> Any:
    """The first pictures of the data that can be used, every fifth for validation, repeated where there are too few."""
    import pandas as pd

    from maskfast.data.tables import read_items, select_usable

    usable = select_usable(read_items(options.data)).sample(frac=1, random_state=0)
    repeats = -(-options.pictures // len(usable))
    chosen = pd.concat([usable] * repeats).head(options.pictures).reset_index(drop=True)
    chosen["split"] = ["valid" if number % 5 == 0 else "train" for number in chosen.index]
    return chosen


def describe_run(seconds: float, pictures: int) -> dict[str, Any]:
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": seconds, "pictures_per_second": pictures / seconds, "peak_mib": (own + children) / 1024}


def run_fastai(options: argparse.Namespace) -> dict[str, Any]:
    from fastai.vision.all import (
        CategoryBlock,
        ColReader,
        ColSplitter,
        DataBlock,
        ImageBlock,
        Resize,
        ResizeMethod,
        accuracy,
        aug_transforms,
        vision_learner,
    )  # fmt: skip
    from torchvision import models

    frame = read_frame(options)
    frame["is_valid"] = frame["split"] == "valid"
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"), splitter=ColSplitter(),
        item_tfms=Resize(options.size, ResizeMethod.Squish), batch_tfms=aug_transforms(),
    )  # fmt: skip
    learn = vision_learner(
        block.dataloaders(frame, bs=options.batch_size),
        getattr(models, options.arch),
        pretrained=False,
        metrics=accuracy,
    )
    with learn.no_bar(), learn.no_logging():
        began = time.perf_counter()
        learn.fit_one_cycle(1, 1e-3)
        return describe_run(time.perf_counter() - began, len(frame))


def run_maskfast(options: argparse.Namespace) -> dict[str, Any]:
    from maskfast.learn.blocks import make_dls
    from maskfast.learn.learner import make_learner
    from maskfast.learn.speed import choose_machine, keep_memory, make_speed_callbacks, run_in_bf16

    machine, frame = choose_machine(options.precision), read_frame(options)
    dls = make_dls(frame, size=options.size, batch_size=options.batch_size, device=machine.device)
    learn = make_learner(dls, options.arch, weights="none")
    with keep_memory(machine.device), run_in_bf16(learn.model, machine), learn.no_bar(), learn.no_logging():
        began = time.perf_counter()
        learn.fit_one_cycle(1, 1e-3, cbs=make_speed_callbacks(machine))
        return describe_run(time.perf_counter() - began, len(frame))


def run_bare(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from maskfast.bundle.network import NetworkSpec, build_network
    from maskfast.learn.speed import choose_machine

    machine = choose_machine(options.precision)
    network = build_network(NetworkSpec(arch=options.arch)).to(machine.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    images = torch.randn(options.batch_size, 3, options.size, options.size, device=machine.device)
    images, classes = images.contiguous(memory_format=torch.channels_last), torch.arange(options.batch_size) % 2
    steps = max(1, options.pictures // options.batch_size)
    began = 0.0
    for step in range(-WARM_STEPS, steps):
        if step == 0:
            began = time.perf_counter()
        with torch.autocast(machine.device.type, torch.bfloat16, enabled=machine.precision == "bf16"):
            logits = network(images)
        torch.nn.functional.cross_entropy(logits.float(), classes.to(machine.device)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return describe_run(time.perf_counter() - began, steps * options.batch_size)


RUNNERS = {"fastai": run_fastai, "maskfast": run_maskfast, "bare": run_bare}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    processes.run_main(main)
