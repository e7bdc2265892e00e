"""Labelled pictures in, how much random folds flatter a model out: the same training with both kinds of folds.

    python benchmarks/splits.py ../shared/data/spot-the-mask --arch squeezenet1_1 \\
        --weights ../shared/weights/squeezenet1_1-imagenet.safetensors --size 96 --epochs 2 --folds 3 --out splits.json

Random folds are what a user would otherwise take (StratifiedKFold); grouped ones keep near-duplicates together. Both
train the same number of networks with the same options and seed; every figure is out of fold. The last two columns
look only at pictures that have a copy: there a random fold has usually seen the answer.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import processes

from maskfast.core.files import write_whole
from maskfast.data.splits import add_groups, fold_items
from maskfast.data.tables import read_items, select_usable
from maskfast.learn.train import train_learner
from maskfast.score.metrics import compute_metrics


def assign_folds(items: pd.DataFrame, kind: str, folds: int, seed: int) -> pd.DataFrame:
    """Return the items with folds that keep groups together ("grouped") or not ("random")."""
    if kind == "random":
        items = items.assign(group=pd.array([pd.NA] * len(items), dtype="Int64"))
    return fold_items(items, folds, seed=seed)


def predict_out_of_fold(items: pd.DataFrame, folder: Path, options: dict[str, Any]) -> pd.DataFrame:
    """Train on the folds that `items` has and return image, label and probability of every picture."""
    table = folder / "items.csv"
    items[["path", "label", "fold"]].to_csv(table, index=False)
    train_learner(table, out=folder / "model", folds=items["fold"].nunique(), **options)
    return pd.read_csv(folder / "model" / "report" / "validation.csv")


def measure(answers: pd.DataFrame, copies: set[str]) -> dict[str, float]:
    """Return accuracy and log loss of all pictures and of those that have a copy."""
    figures = {}
    for name, rows in (("all", answers), ("copies", answers[answers["image"].isin(copies)])):
        metrics = compute_metrics(rows["label"], rows["probability"])
        figures |= {f"{name}_{measure}": round(float(metrics[measure]), 4) for measure in ("accuracy", "log_loss")}
    return figures


def main() -> None:
    """Compare both kinds of folds on the data given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--arch", default="resnet34")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="take this many pictures only, to try it")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = vars(parser.parse_args())
    items = select_usable(add_groups(read_items(options.pop("data")))).head(options.pop("limit") or 10**9)
    copies = set(items.loc[items["group"].duplicated(keep=False), "path"])
    out, folds = options.pop("out"), options.pop("folds")
    figures: dict[str, Any] = {"pictures": len(items), "with_a_copy": len(copies), "folds": folds} | options
    for kind in ("random", "grouped"):
        with tempfile.TemporaryDirectory() as folder:
            answers = predict_out_of_fold(assign_folds(items, kind, folds, options["seed"]), Path(folder), options)
        figures[kind] = measure(answers, copies)
    columns = list(figures["random"])
    print(f"{'folds':>8} " + " ".join(f"{column:>16}" for column in columns))
    for kind in ("random", "grouped"):
        print(f"{kind:>8} " + " ".join(f"{figures[kind][column]:>16}" for column in columns))
    if out:
        write_whole(out, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    processes.run_main(main)
