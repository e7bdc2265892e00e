"""Time to the same quality: how long maskfast takes to reach the validation log loss that plain fastai ends with.

Both train on the same pictures and hold out the same grouped part of them. With `--weights` both start from the same
pretrained mobilenet_v2: plain fastai runs `fine_tune(4, 2e-3)` at 224 pixels, maskfast `train_learner` as it is.
Without, both train resnet34 from scratch: plain fastai ten epochs of one cycle at 128 pixels, maskfast by its
configuration "scratch". The clock runs from the call to the end of the epoch: reading, grouping and decoding the
pictures and the search for a learning rate are in it; a whole run ends with the exported model. They alternate, each
run in a process of its own; run it on an idle machine:

    python benchmarks/time_to_loss.py ../shared/data/spot-the-mask \\
        --weights ../shared/weights/mobilenet_v2-imagenet.safetensors
    python benchmarks/time_to_loss.py ../shared/data/spot-the-mask --out build/time_from_scratch.json
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
from functools import partial
from pathlib import Path
from typing import Any

import processes
from results import describe_machine

ARCH = "mobilenet_v2"
SIZE, SCRATCH_SIZE = 224, 128
VALID = 0.2


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="labelled pictures")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of mobilenet_v2; without, from scratch")
    parser.add_argument("--repeats", type=int, default=3, help="each with a seed of its own")
    parser.add_argument("--out", type=Path, default=Path("build/time_to_loss.json"))
    parser.add_argument("--models", type=Path, help="folder that keeps what maskfast trained, a bundle a seed")
    parser.add_argument("--run", choices=RUNNERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.models and options.models.exists() and not options.models.is_dir():
        parser.error(f"--models {options.models}: is no folder; name one, or a new name")
    return options


def main() -> None:
    options = read_options()
    if options.run:
        with contextlib.redirect_stdout(io.StringIO()):
            run = RUNNERS[options.run](options)
        print(json.dumps(run))
        return
    pairs = [compare(options, seed) for seed in range(options.repeats)]
    whole = statistics.median(pair["whole"] for pair in pairs)
    ratios = [pair["ratio"] for pair in pairs if pair["ratio"] is not None]
    reached = f"{len(ratios)} of {len(pairs)} runs reached plain fastai's log loss"
    print(f"{reached}; of its time they took {statistics.median(ratios):.2f} (median)" if ratios else reached)
    print(f"whole runs took {whole:.2f} of its time (median)")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": describe_machine(), "pairs": pairs}, indent=2) + "\n")
    print(f"written: {options.out}")


def compare(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Run both with one seed; `ratio` is None where maskfast never came as low."""
    fastai, maskfast = (run_apart(options, name, seed) for name in RUNNERS)
    goal, end = fastai["epochs"][-1]["log_loss"], fastai["epochs"][-1]["seconds"]
    first = next((epoch for epoch in maskfast["epochs"] if epoch["log_loss"] <= goal), None)
    came = f"in {first['seconds']:.0f} s as low" if first else "never as low"
    print(f"seed {seed}: fastai {describe_end(fastai)}, maskfast {describe_end(maskfast)}, {came}", flush=True)
    return {
        "seed": seed, "fastai": fastai, "maskfast": maskfast, "ratio": first["seconds"] / end if first else None,
        "whole": maskfast["seconds"] / fastai["seconds"],
    }  # fmt: skip


def describe_end(run: dict[str, Any]) -> str:
    return f"log loss {run['log_loss']:.4f}, accuracy {run['accuracy']:.4f} in {run['seconds']:.0f} s"


def run_apart(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Run one contender in a new process: its epochs (seconds from the call, validation log loss) and how it ended."""
    given = {"--weights": options.weights, "--models": options.models}
    told = [f"--run={name}", f"--seed={seed}", *(f"{flag}={path}" for flag, path in given.items() if path)]
    run: dict[str, Any] = processes.run_apart(name, [sys.executable, __file__, options.data, *told])
    return run


def run_fastai(options: argparse.Namespace) -> dict[str, Any]:
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
        set_seed,
        vision_learner,
    )
    from safetensors.torch import load_file
    from torchvision.models import mobilenet_v2, resnet34

    from maskfast.data.splits import add_groups, split_items
    from maskfast.data.tables import read_items, select_usable

    frame = select_usable(split_items(add_groups(read_items(options.data)), valid=VALID, seed=options.seed))
    frame = frame.assign(is_valid=frame["split"] == "valid")
    set_seed(options.seed)
    ends: list[dict[str, float]] = []

    class Clock(Callback):  # type: ignore[misc]
        order = 60  # after fastai's Recorder

        def after_epoch(self) -> None:
            _, loss, _ = self.learn.recorder.values[-1]  # before it, of training; after it, the accuracy
            ends.append({"seconds": time.perf_counter() - began, "log_loss": float(loss)})

    began = time.perf_counter()
    block = DataBlock(
        (ImageBlock, CategoryBlock), get_x=ColReader("path"), get_y=ColReader("label"), splitter=ColSplitter(),
        item_tfms=Resize(SIZE if options.weights else SCRATCH_SIZE, ResizeMethod.Squish),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(*imagenet_stats)],
    )  # fmt: skip
    loaders = block.dataloaders(frame, bs=32)
    if options.weights:
        network = mobilenet_v2()
        network.load_state_dict(load_file(options.weights), strict=False)
        model = torch.nn.Sequential(network.features, create_head(1280, 2))  # vision_learner cannot cut this network
        learn = Learner(loaders, model, splitter=split_layers, metrics=accuracy, cbs=Clock())
        fit = partial(learn.fine_tune, 4, 2e-3)
    else:
        learn = vision_learner(loaders, resnet34, pretrained=False, metrics=accuracy, cbs=Clock())
        fit = partial(learn.fit_one_cycle, 10)
    with tempfile.TemporaryDirectory() as folder, learn.no_bar(), learn.no_logging():
        fit()
        learn.remove_cb(Clock)  # a class of this function, which no pickle can name
        learn.export(Path(folder) / "export.pkl")
    seconds = time.perf_counter() - began
    _, loss, right = learn.recorder.values[-1]
    return {"epochs": ends, "seconds": seconds, "log_loss": float(loss), "accuracy": float(right)}


def split_layers(parts: Any) -> list[Any]:
    """The parameters of the two parts, body and head; a lambda could not be exported."""
    from fastai.vision.all import params

    return [params(part) for part in parts]


def run_maskfast(options: argparse.Namespace) -> dict[str, Any]:
    import pandas as pd

    from maskfast import load, train_learner
    from maskfast.core.config_files import read_config

    ends: list[float] = []

    class Clock(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("epoch "):
                ends.append(time.perf_counter() - began)

    news = logging.getLogger("maskfast.train")
    news.addHandler(Clock())
    news.setLevel(logging.INFO)
    recipe = {"arch": ARCH, "weights": str(options.weights)} if options.weights else read_config("scratch")[0]
    recipe |= {"valid": VALID, "seed": options.seed}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MASKFAST_CACHE"] = str(Path(folder) / "cache")  # what earlier runs decoded must not help
        out = (options.models or Path(folder)) / f"seed{options.seed}"
        began = time.perf_counter()
        train_learner(options.data, **recipe, out=out)
        seconds = time.perf_counter() - began
        losses = pd.read_csv(out / "report" / "history.csv")["valid_loss"]
        held_out = load(out).manifest.metrics
    epochs = [{"seconds": end, "log_loss": loss} for end, loss in zip(ends, losses, strict=True)]
    return {
        "epochs": epochs, "seconds": seconds, "log_loss": held_out["log_loss"], "accuracy": held_out["accuracy"],
    }  # fmt: skip


RUNNERS = {"fastai": run_fastai, "maskfast": run_maskfast}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    processes.run_main(main)
