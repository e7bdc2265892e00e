"""The verb `train`: labelled pictures and flags go in, a bundle comes out."""

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskfast.apps.cli.classes import HELP as CLASS_HELP
from maskfast.apps.cli.classes import Classes, read_classes
from maskfast.apps.cli.console import hush_imports, show_news
from maskfast.apps.cli.engine import EngineChoice
from maskfast.core.errors import ConfigError

if TYPE_CHECKING:
    from maskfast.core.config import TrainConfig
    from maskfast.learn.train import Ahead, TrainedRun

FLAGS = {
    "positive": "The class or folder that is 'mask', where unclear.",
    "classes": CLASS_HELP,
    "drop": "A table of images to leave out.",
    "valid": "Part of the pictures kept for validation.  [default: 0.2]",
    "folds": "Train so many folds and average them; 0 trains once.  [default: 0]",
    "arch": "A name that `maskfast models` lists, or any torchvision or timm name.  [default: resnet34]",
    "weights": "imagenet, none, or a weights file.  [default: imagenet]",
    "size": "Side of the pictures in pixels.  [default: the network's own]",
    "method": "squish, pad or crop.  [default: squish]",
    "head": "concat, or mil for whole scenes.  [default: concat]",
    "hidden": "Width of the head's hidden layer.  [default: 512]",
    "dropout": "In the head.  [default: 0.5]",
    "sharpness": "Of the soft maximum over places, with --head mil.  [default: 2]",
    "learn-sharpness": "Train the sharpness too.",
    "frozen-epochs": "Epochs that train only a pretrained network's head.  [default: 1]",
    "epochs": "Epochs that train the whole network.  [default: 4]",
    "batch-size": "Pictures a step.  [default: 32]",
    "lr": "Highest learning rate, or auto to search it.  [default: auto]",
    "lr-mult": "The first layers learn so many times slower.  [default: 100]",
    "optimizer": "auto, adam, sgd, or muon, for training from scratch.  [default: auto]",
    "weight-decay": "[default: 0.01]",
    "augment": "default, strong, classic, challenge, scenes, light or none.  [default: default]",
    "mixup": "Alpha of mixup; 0 is off.  [default: 0]",
    "label-smoothing": "[default: 0]",
    "balance": "none, weights or sampling, against unequal classes.  [default: none]",
    "ema": "Decay of averaged weights a step; 0 is off.  [default: 0]",
    "stem": "So many first layers stay as pretrained: faster.  [default: 0]",
    "scenes": "Made scenes an epoch, from boxed faces, in place of the pictures; with --head mil.  [default: 0]",
    "scene-sizes": "Sides they are made with, multiples of 32.  [default: 256,320,384]",
    "places": "Weight of the loss of places in made scenes.  [default: 0.5]",
    "calibration": "temperature, or balanced: each class of each source weighs the same.  [default: temperature]",
    "early-stop": "Stop after so many epochs without progress; 0 never.  [default: 0]",
    "progressive": "Smaller sizes for the first epochs, such as 128 or 128,176.",
    "views": "Averaged at every prediction, such as plain,flip or plain@256,plain@384.  [default: plain]",
    "recall": "Choose the threshold that finds this part of the masks.",
    "cost-miss": "Cost of a missed mask, for choosing the threshold.",
    "cost-false-alarm": "Cost of a false alarm, likewise.",
    "precision": "auto, fp32, bf16 or fp16.  [default: auto]",
    "device": "auto, cpu, cuda or mps.  [default: auto]",
    "workers": "Processes that load pictures.  [default: none with the cache, else measured]",
    "cache": "Decode pictures once, into a cache.  [default: cache]",
    "deterministic": "Only algorithms that repeat bit for bit on a GPU.",
    "checkpoint-minutes": "Save a resumable state at least so often.  [default: 5]",
    "track": "tensorboard or wandb.  [default: none]",
    "seed": "[default: 0]",
    "out": "The bundle's folder.  [default: export/model]",
}
"""A flag for each option of core.config.TrainConfig, with its help; that of `classes` is called --class."""
SWITCHES = {"learn-sharpness", "cache", "deterministic"}
LISTS = {"progressive", "views", "scene-sizes"}


def register(app: typer.Typer) -> None:
    """Add `train` to the command line."""
    app.command("train")(train)


def _take_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command a flag for each option, in place of its **flags."""
    own = inspect.signature(command).parameters
    fixed = [parameter for parameter in own.values() if parameter.kind is not parameter.VAR_KEYWORD]
    flags = [_make_flag(name, text) for name, text in FLAGS.items()]
    command.__signature__ = inspect.Signature([*fixed, *flags])  # type: ignore[attr-defined]
    return command


def _make_flag(name: str, text: str) -> inspect.Parameter:
    variable, keyword = name.replace("-", "_"), inspect.Parameter.KEYWORD_ONLY
    if name == "classes":
        return inspect.Parameter(variable, keyword, default=None, annotation=Classes)
    kind = bool | None if name in SWITCHES else str | None
    spelled = f"--{name}/--no-{name}" if name in SWITCHES else f"--{name}"
    option = typer.Option(spelled, help=text, show_default=False)
    return inspect.Parameter(variable, keyword, default=None, annotation=Annotated[kind, option])


@_take_flags
def train(
    data: Annotated[
        list[str] | None,
        typer.Argument(metavar="DATA...", help="Folders, tables or zips of labelled pictures.", show_default=False),
    ] = None,
    *,
    config: Annotated[
        str | None, typer.Option(help="A TOML or JSON file, or a shipped name; flags are stronger.")
    ] = None,
    again: Annotated[Path | None, typer.Option("--from", help="Train what this bundle.json says again.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run into --out.")] = False,
    engine: Annotated[
        EngineChoice, typer.Option(help="ray: train folds side by side on a Ray cluster.")
    ] = EngineChoice.LOCAL,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster, auto or host:port. Default: this machine's cores alone.")
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a --config file, and exit.")
    ] = False,
    devices: Annotated[int, typer.Option(min=1, help="Train on so many GPUs of this machine, or in processes.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print no news, only the result.")] = False,
    **flags: Any,
) -> None:
    """Train a network on labelled pictures and write a bundle: audit, split, lr_find, fit, calibrate, report, export.

    Example: maskfast train data/spot-the-mask --arch mobilenet_v2 --epochs 4 --out export/model

    Example: maskfast train photos/ --weights none --config challenge

    Example: maskfast train --resume --out export/model
    """
    if schema:
        _print_schema()
        return
    tells = os.environ.get("RANK", "0") == "0"  # of several processes the first alone
    show_news(quiet=quiet or not tells)
    told = _gather_options(data, flags, [each for each in (config, again) if each is not None])
    if devices > 1:
        given = {"--resume": resume, "--json": as_json, "--quiet": quiet}
        raise typer.Exit(_launch(told, devices, [flag for flag, is_set in given.items() if is_set]))
    with hush_imports():
        from maskfast.learn.train import resume_training, run_training

        ahead = _plan_ahead(engine, address)
        run = resume_training(told, ahead=ahead) if resume else run_training(told, ahead=ahead)
    if not tells:
        return
    _print_result(run, told, as_json=as_json)
    if len(run.unusable):
        raise typer.Exit(1)


def _launch(config: "TrainConfig", devices: int, flags: list[str]) -> int:
    with hush_imports():
        from maskfast.learn.launch import launch_training

        return launch_training(config, devices, flags=flags)


def _plan_ahead(engine: EngineChoice, address: str | None) -> "Ahead | None":
    """Return what trains the folds before they are gone through; None where nothing does."""
    from functools import partial

    if engine is EngineChoice.LOCAL:
        if address is not None:
            raise ConfigError(f"--address {address}: only the ray engine joins a cluster; add --engine ray")
        return None
    from maskfast.apps.cluster.folds import train_folds_on_ray

    return partial(train_folds_on_ray, address=address)


def _gather_options(data: list[str] | None, flags: dict[str, Any], files: list[str | Path]) -> "TrainConfig":
    from maskfast.apps.cli.console import say
    from maskfast.core.config import make_config
    from maskfast.core.config_files import read_config

    if len(files) > 1:
        raise ConfigError("--from: can't be told together with --config; say one of them")
    options: dict[str, Any] = {}
    for file in files:
        options, notes = read_config(file)
        for note in notes:
            say(note)
    for name, value in flags.items():
        if value is not None:
            options[name] = _read_value(name, value)
    return make_config(options | ({"data": data} if data else {}), origin=str(files[0]) if files else "")


def _read_value(name: str, value: Any) -> Any:
    if name == "classes":
        return read_classes(value)
    return value.split(",") if name.replace("_", "-") in LISTS else value


def _print_schema() -> None:
    from maskfast.core.config_files import export_schema

    print(json.dumps(export_schema(), indent=2))


def _print_result(run: "TrainedRun", config: "TrainConfig", *, as_json: bool) -> None:
    metrics = run.manifest.metrics
    if as_json:
        print(json.dumps({"out": str(config.out), "metrics": metrics, "unusable": len(run.unusable)}))
    else:
        print(f"{config.out}: log loss {metrics['log_loss']:.4f}, accuracy {metrics['accuracy']:.4f} on validation")
