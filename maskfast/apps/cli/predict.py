"""The verbs `predict` and `submit`: pictures or a challenge go in, rows of probabilities come out."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskfast.apps.cli.engine import EngineChoice
from maskfast.core.errors import ConfigError, MaskfastError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from maskfast.score.predictor import Prediction, Predictor


class BackendChoice(StrEnum):
    """What runs the network."""

    AUTO = "auto"
    ONNX = "onnx"
    INT8 = "int8"
    TORCH = "torch"
    TORCH_FP32 = "torch-fp32"


Model = Annotated[
    Path | None,
    typer.Option(help="A bundle folder. Default: export/model, else the small model inside the package."),
]
Tta = Annotated[bool, typer.Option("--tta", help="Average each picture with its mirror image.")]
Backend = Annotated[BackendChoice, typer.Option(help="auto: float32; int8 and torch (bfloat16) are faster.")]
Threshold = Annotated[float | None, typer.Option(min=0, max=1, help="Label 'mask' from this probability on.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no news.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command("predict")(predict)
    app.command("submit")(submit)


def predict(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Pictures, folders, zips or 'patterns*'.")],
    model: Model = None,
    out: Annotated[
        str | None, typer.Option(help="Write a .csv, .jsonl or .parquet file; a stopped run is continued.")
    ] = None,
    tta: Tta = False,
    backend: Backend = BackendChoice.AUTO,
    threshold: Threshold = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of CSV.")] = False,
    engine: Annotated[
        EngineChoice, typer.Option(help="ray: on a Ray cluster; INPUT may be lists and URLs, --out is a folder or URL.")
    ] = EngineChoice.LOCAL,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster, auto or host:port. Default: this machine's cores alone.")
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Let fastai open an export.pkl; that runs what its author put there.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Say for each picture how probable it is that it shows a person wearing a face mask.

    Prints image,probability,label,status,reason. Pictures that cannot be used are rows too (exit code 1).

    Example: maskfast predict photo.jpg 'more/*.png' album.zip --out answers.csv
    """
    if engine is EngineChoice.RAY:
        options = {"address": address, "backend": backend.value, "threshold": threshold, "tta": tta}
        failed, total, first = _write_folder(inputs, out, model, options, as_json=as_json, quiet=quiet)
    elif address is not None:
        raise ConfigError(f"--address {address}: only the ray engine joins a cluster; add --engine ray")
    elif out is None:
        predictor = _load(model, backend, threshold, trust_pickle=trust_pickle, quiet=quiet)
        failed, total, first = _print_rows(predictor, inputs, tta=tta, as_json=as_json, quiet=quiet)
    else:
        predictor = _load(model, backend, threshold, trust_pickle=trust_pickle, quiet=quiet)
        failed, total, first = _write_file(predictor, inputs, Path(out), tta=tta, quiet=quiet)
    if failed == total:
        raise MaskfastError(f"no picture could be scored; the first of {total}: {first}")
    if failed:
        raise typer.Exit(1)


def submit(
    data: Annotated[Path, typer.Argument(help="A challenge folder with sample_submission.csv, or that file.")],
    model: Model = None,
    out: Annotated[Path, typer.Option(help="The submission to write.")] = Path("submission.csv"),
    tta: Tta = False,
    backend: Backend = BackendChoice.AUTO,
    missing: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability to write where a picture is missing or broken.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Score exactly the rows of a challenge's sample submission, in its order and under its header.

    Example: maskfast submit data/spot-the-mask --out submission.csv
    """
    from maskfast.apps.cli.console import say, track_rows
    from maskfast.score.submission import write_submission

    predictor = _load(model, backend, None, quiet=quiet)
    counts = write_submission(predictor, data, out, tta=tta, missing=missing, track=track_rows(quiet=quiet))
    for line in counts.filled:
        say(f"{line}; {missing} was written", quiet=quiet)
    say(f"{out}: {counts.rows} rows", quiet=quiet)
    if counts.filled:
        raise typer.Exit(1)


def _load(
    model: Path | None, backend: BackendChoice, threshold: float | None, *, quiet: bool, trust_pickle: bool = False
) -> "Predictor":
    from maskfast.apps.cli.console import choose_model
    from maskfast.score.loading import load

    predictor = load(choose_model(model, quiet=quiet), backend=backend.value, trust_pickle=trust_pickle)
    return predictor if threshold is None else predictor.with_threshold(threshold)


def _print_rows(
    predictor: "Predictor", inputs: list[str], *, tta: bool, as_json: bool, quiet: bool
) -> tuple[int, int, str]:
    """Print a row a picture and return how many failed, how many there are and the first failure."""
    from maskfast.apps.cli.console import track_rows
    from maskfast.score.batch import score_listed
    from maskfast.score.rows import format_csv, format_json

    total, rows = score_listed(predictor, inputs, tta=tta)
    failed: list[str] = []
    shown = track_rows(quiet=quiet or sys.stdout.isatty())(rows, total, 0)
    for text in (format_json if as_json else format_csv)(_note(shown, failed)):
        sys.stdout.write(text)
    sys.stdout.flush()
    return len(failed), total, failed[0] if failed else ""


def _note(rows: "Iterable[Prediction]", failed: list[str]) -> "Iterable[Prediction]":
    for row in rows:
        if row.status == "failed":
            failed.append(f"{row.image}: {row.reason}")
        yield row


def _write_file(
    predictor: "Predictor", inputs: list[str], out: Path, *, tta: bool, quiet: bool
) -> tuple[int, int, str]:
    """Write a row a picture to `out` and return how many failed, how many there are and the first failure."""
    from maskfast.apps.cli.console import say, track_rows
    from maskfast.score.batch import score_to_file

    counts = score_to_file(predictor, inputs, out, tta=tta, track=track_rows(quiet=quiet))
    if counts.resumed:
        say(f"{out}: went on after {counts.resumed} rows of an earlier run", quiet=quiet)
    failed = f", {counts.failed} failed, the first: {counts.first_failure}" if counts.failed else ""
    say(f"{out}: {counts.images} rows{failed}", quiet=quiet)
    return counts.failed, counts.images, counts.first_failure


def _write_folder(
    inputs: list[str], out: str | None, model: Path | None, options: dict[str, Any], *, as_json: bool, quiet: bool
) -> tuple[int, int, str]:
    """Write a row a picture into the folder or URL `out`, on a Ray cluster."""
    import json
    from contextlib import redirect_stdout
    from dataclasses import asdict

    from maskfast.apps.cli.console import choose_model, say, track_partitions
    from maskfast.apps.cluster.engine import ClusterOptions, score_cluster

    out, model = out or "predictions", choose_model(model, quiet=quiet)
    track = track_partitions(quiet=quiet)
    with redirect_stdout(sys.stderr):  # where Ray would tell of lost nodes
        counts = score_cluster(inputs, out, model=model, options=ClusterOptions(**options), track=track)
    if as_json:
        print(json.dumps({"out": out, **asdict(counts)}))
    resumed = f", {counts.resumed} of them from an earlier run" if counts.resumed else ""
    say(f"{out}: {counts.images} rows, {counts.failed} failed{resumed}", quiet=quiet)
    return counts.failed, counts.images, counts.first_failure
