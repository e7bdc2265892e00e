"""Time to the same quality: how long maskfast takes to reach the validation log loss that plain fastai ends with.

Both start from the same pretrained mobilenet_v2 and hold out the same grouped part of the same pictures. Plain fastai
runs `fine_tune(4, 2e-3)` at 224 pixels; maskfast runs `train_learner` as it is. The clock runs from the call to the end
of the epoch: reading, grouping and decoding the pictures and the search for a learning rate are in it. They alternate,
each run in a process of its own; run it on an idle machine:

    python benchmarks/time_to_loss.py ../shared/data/spot-the-mask \\
        --weights ../shared/weights/mobilenet_v2-imagenet.safetensors
"""

import argparse
import contextlib
import io
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import processes
from results import describe_machine

ARCH = "mobilenet_v2"
SIZE = 224
VALID = 0.2


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="labelled pictures")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights of mobilenet_v2")
    parser.add_argument("--repeats", type=int, default=3, help="each with a seed of its own")
    parser.add_argument("--out", type=Path, default=Path("build/time_to_loss.json"))
    parser.add_argument("--run", choices=RUNNERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = read_options()
    if options.run:
        with contextlib.redirect_stdout(io.StringIO()):
            epochs = RUNNERS[options.run](options)
        print(json.dumps(epochs))
        return
    pairs = [compare(options, seed) for seed in range(options.repeats)]
    ratios = [pair["ratio"] for pair in pairs if pair["ratio"] is not None]
    reached = f"{len(ratios)} of {len(pairs)} runs reached plain fastai's log loss"
    print(f"{reached}; of its time they took {statistics.median(ratios):.2f} (median)" if ratios else reached)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": describe_machine(), "pairs": pairs}, indent=2) + "\n")
    print(f"written: {options.out}")


def compare(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Run both with one seed; `ratio` is None where maskfast never came as low."""
    fastai, maskfast = (run_apart(options, name, seed) for name in RUNNERS)
    goal, whole = fastai[-1]["log_loss"], fastai[-1]["seconds"]
    first = next((epoch for epoch in maskfast if epoch["log_loss"] <= goal), None)
    ratio = first["seconds"] / whole if first else None
    came = f"maskfast {first['log_loss']:.4f} in {first['seconds']:.0f} s" if first else "maskfast never came as low"
    print(f"seed {seed}: fastai {goal:.4f} in {whole:.0f} s, {came}", flush=True)
    return {"seed": seed, "fastai": fastai, "maskfast": maskfast, "ratio": ratio}


def run_apart(options: argparse.Namespace, name: str, seed: int) -> list[dict[str, float]]:
    """Run one contender in a new process: seconds from the call and validation log loss at the end of each epoch."""
    told = [f"--run={name}", f"--seed={seed}", f"--weights={options.weights}"]
    epochs: list[dict[str, float]] = processes.run_apart(name, [sys.executable, __file__, options.data, *told])
    return epochs


def run_fastai(options: argparse.Namespace) -> list[dict[str, float]]:
    import torch
    from fastai.callback.core import Callback
    from fastai.vision.all import (
        CategoryBlock,
        ColReader,
        ColSplitter,
        DataBlock,
        ImageBlock,
        Learner,
        Normalize,
        Resize,
        ResizeMethod,
        accuracy,
        aug_transforms,
        create_head,
        imagenet_stats,
        params,
        set_seed,
    )
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2

    from maskfast.data.splits import add_groups, split_items
    from maskfast.data.tables import read_items, select_usable

    frame = select_usable(split_items(add_groups(read_items(options.data)), valid=VALID, seed=options.seed))
    frame = frame.assign(is_valid=frame["split"] == "valid")
    set_seed(options.seed)
    ends: list[dict[str, float]] = []

    class Clock(Callback):  # type: ignore[misc]
        order = 60  # after fastai's Recorder

        def after_epoch(self) -> None:
            _, loss, _ = self.learn.recorder.values[-1]
            ends.append({"seconds": time.perf_counter() - began, "log_loss": float(loss)})

    began = time.perf_counter()
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"), splitter=ColSplitter(),
        item_tfms=Resize(SIZE, ResizeMethod.Squish),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)],
    )  # fmt: skip
    network = mobilenet_v2()
    network.load_state_dict(load_file(options.weights), strict=False)
    model = torch.nn.Sequential(network.features, create_head(1280, 2))  # vision_learner cannot cut this network
    learn = Learner(
        block.dataloaders(frame, bs=32), model, splitter=lambda parts: [params(part) for part in parts],
        metrics=accuracy, cbs=Clock(),
    )  # fmt: skip
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(4, 2e-3)
    return ends


def run_maskfast(options: argparse.Namespace) -> list[dict[str, float]]:
    import pandas as pd

    from maskfast import train_learner

    ends: list[float] = []

    class Clock(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("epoch "):
                ends.append(time.perf_counter() - began)

    news = logging.getLogger("maskfast.train")
    news.addHandler(Clock())
    news.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MASKFAST_CACHE"] = str(Path(folder) / "cache")  # what earlier runs decoded must not help
        out = Path(folder) / "model"
        began = time.perf_counter()
        weights = str(options.weights)
        train_learner(options.data, arch=ARCH, weights=weights, valid=VALID, seed=options.seed, out=out)
        losses = pd.read_csv(out / "report" / "history.csv")["valid_loss"]
    return [{"seconds": end, "log_loss": loss} for end, loss in zip(ends, losses, strict=True)]


RUNNERS = {"fastai": run_fastai, "maskfast": run_maskfast}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    processes.run_main(main)
