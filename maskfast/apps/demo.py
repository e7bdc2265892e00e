"""The whole way on drawn pictures: draw, train, submit, measure against the drawn truth."""

import time
from dataclasses import dataclass
from pathlib import Path

from maskfast.core.files import refuse_foreign_folder

SIZE = 64
BATCH_SIZE = 16
EPOCHS = 12
SEED = 1
"""By default; among the 1,200 pictures of this seed no two look alike and bear both labels."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured on its test pictures, and where everything it made lies."""

    metrics: dict[str, float | None]
    seconds: float
    data: Path
    model: Path
    submission: Path


def run_demo(out: str | Path, *, count: int = 1200, seed: int = SEED) -> DemoResult:
    """Draw `count` pictures into `out`/data, train resnet34 from scratch on them and score the test ones.

    `out` must be new, empty, or made by an earlier demo. Raises ConfigError otherwise.
    """
    from maskfast.data.demo import draw_demo
    from maskfast.learn.train import train_learner
    from maskfast.score.loading import load
    from maskfast.score.submission import write_submission

    started = time.monotonic()
    out = Path(out)
    real = out.resolve()  # a link stays: what is behind it changes
    refuse_foreign_folder(real, "a demo", _find_demo, option="--out")
    data = draw_demo(out / "data", count=count, seed=seed)
    model, submission = out / "model", out / "submission.csv"
    train_learner(
        data,
        arch="resnet34",
        weights="none",
        size=SIZE,
        frozen_epochs=0,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        dropout=0.1,
        lr=1e-3,
        seed=seed,
        out=model,
    )
    write_submission(load(model), data, submission)
    metrics = _measure(submission, data / "truth.csv")
    return DemoResult(metrics, time.monotonic() - started, data, model, submission)


def _find_demo(out: Path) -> list[str] | None:
    return ["*"] if (out / "data" / "truth.csv").is_file() else None  # only what the demo wrote in it is replaced


def _measure(submission: Path, truth: Path) -> dict[str, float | None]:
    import pandas as pd

    from maskfast.score.metrics import compute_metrics

    both = pd.read_csv(submission).merge(pd.read_csv(truth), on="image", suffixes=("_scored", "_true"), validate="1:1")
    return compute_metrics(both["target_true"].to_numpy(), both["target_scored"].to_numpy())
