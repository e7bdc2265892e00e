"""What a run is told is checked before anything takes long: a configuration flows in, a Setting and split items out."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from maskfast.bundle.backbones import build_body, describe_backbone
from maskfast.bundle.costs import count_costs
from maskfast.bundle.manifest import list_bundle_files
from maskfast.bundle.pretrained import load_weights
from maskfast.core.config import TrainConfig
from maskfast.core.errors import ConfigError, DataError
from maskfast.core.extras import import_extra
from maskfast.core.files import refuse_foreign_folder
from maskfast.core.views import parse_view
from maskfast.data.audit import describe_items
from maskfast.data.splits import add_groups, fold_items, split_items
from maskfast.data.tables import drop_items, read_items, select_usable
from maskfast.learn.progress import log
from maskfast.learn.ranks import get_rank
from maskfast.learn.runs import name_run_folder
from maskfast.learn.speed import find_device


def check_model(config: TrainConfig) -> None:
    """Raise ConfigError for an unknown network, sizes it can't take, and weights or a device that are not there."""
    find_device(config.device)
    _check_sizes(config)
    if config.weights != "none":
        load_weights(build_body(config.arch), config.weights, config.arch)


def _check_sizes(config: TrainConfig) -> None:
    own = describe_backbone(config.arch).size
    size = config.size or own
    for smaller in config.progressive:
        if smaller >= size:
            raise ConfigError(
                f"progressive: {smaller} is not smaller than the size in the end, {size} pixels; say other sizes"
            )
    asked = {side: "views" for view in config.views if (side := parse_view(view).size)}
    asked |= {side: "scene_sizes" for side in config.scene_sizes if config.scenes}
    asked |= dict.fromkeys(config.progressive, "progressive") | {size: "size"}
    for side, name in asked.items():
        try:
            count_costs(config.arch, side)
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{name}: {config.arch} can't take pictures of {side} pixels ({reason}); its own size is {own}"
            ) from error


def check_tracker(config: TrainConfig) -> None:
    """Raise ConfigError where nobody is logged in to the tracker, MissingExtraError where it is not installed."""
    if config.track == "none" or get_rank():
        return
    tracker = import_extra(config.track, "track")
    if config.track != "wandb":
        return
    try:
        tracker.login()
    except tracker.Error as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"track: wandb: {reason}; or set WANDB_MODE=offline, or leave --track out") from error


def check_out(out: Path) -> None:
    """Raise ConfigError where the bundle could not be written to `out`: another thing is there, or no one may write."""
    refuse_foreign_folder(out, "a bundle", list_bundle_files, option="--out")
    try:
        name_run_folder(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: can't be written ({error.strerror}); name another folder") from error


def list_training_items(config: TrainConfig) -> pd.DataFrame:
    """List the items of a configuration, whose pictures nobody has opened yet.

    Raises DataError for data in no layout that is read, and where there is only one class.
    """
    items = read_items(*config.data, positive=config.positive, classes=config.classes)
    if config.drop is not None:
        items = drop_items(items, config.drop)
    _check_classes(items, config.data)
    return items


def group_training_items(items: pd.DataFrame, config: TrainConfig) -> pd.DataFrame:
    """Open the pictures of all `items`, put near-duplicates into groups, and split or fold them.

    There is a line of news about them, and one for each that cannot be used.
    Raises DataError where only one class is left, a class is in too few groups, or a split or fold that the data brings
    leaves a part of the training without one.
    """
    items = add_groups(items)
    log.info("%s", describe_items(items))
    for row in () if get_rank() else list_unusable(items).itertuples():
        log.warning("not used: %s: %s: %s", row.image, row.status, row.reason)
    _check_classes(items, config.data)
    if config.folds:
        items = fold_items(items, config.folds, seed=config.seed)
        _check_folds(items)
        return items
    items = split_items(items, valid=config.valid, seed=config.seed)
    _check_parts(items)
    return items


def list_unusable(items: pd.DataFrame) -> pd.DataFrame:
    """The rows with a label that can't be learned from: image, status, reason."""
    labelled = items[(items["status"] != "ok") & ~items["split"].eq("test").fillna(False)]
    return labelled[["image", "status", "reason"]].reset_index(drop=True)


def choose_split(items: pd.DataFrame, fold: int | None) -> pd.DataFrame:
    """The items with the split of one fold: its pictures are for validation, all others for training."""
    if fold is None:
        return items
    chosen = items.copy()
    folded = chosen["fold"].notna()
    chosen.loc[folded, "split"] = ["valid" if each == fold else "train" for each in chosen.loc[folded, "fold"]]
    return chosen


def _check_classes(items: pd.DataFrame, data: Sequence[str]) -> None:
    usable = select_usable(items)
    unusable = list_unusable(items)
    first = next((f"{row.image}: {row.reason}" for row in unusable.itertuples()), None)
    if usable.empty:
        told = next((f": {reason}" for reason in items["reason"] if reason), "")
        raise DataError(f"{', '.join(data)}: nothing can be learned from; {first or f'none has a label{told}'}")
    masks = int(usable["label"].sum())
    if masks == 0 or masks == len(usable):
        only = "no mask" if masks == 0 else "mask"
        seen = f"all {len(usable)} usable pictures are {only!r}; both classes are needed"
        lost = f"; {len(unusable)} can't be used, the first: {first}" if first else ""
        raise DataError(f"{', '.join(data)}: {seen}{lost}")


def _check_parts(items: pd.DataFrame) -> None:
    usable = select_usable(items)
    counts = {split: usable.loc[usable["split"] == split, "label"].eq(1) for split in ("train", "valid")}
    if not all(0 < masks.sum() < len(masks) for masks in counts.values()):
        seen = ", ".join(f"{name} {masks.sum()} mask and {(~masks).sum()} no mask" for name, masks in counts.items())
        raise DataError(f"split: the data's own has {seen}; each needs both classes, so mend it or leave it out")


def _check_folds(items: pd.DataFrame) -> None:
    for label, folds in select_usable(items).groupby("label")["fold"]:
        if folds.nunique() == 1:
            name = "mask" if label else "no mask"
            raise DataError(f"fold: the data's own have all pictures of {name!r} in one; mend them or leave them out")
