"""The verbs `serve`, `watch` and `space`: a model on the web, at a camera or video, and as a Hugging Face Space."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from maskfast.apps.video.events import Event


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(serve)
    app.command()(watch)
    app.command()(space)


def serve(
    model: Annotated[
        Path | None, typer.Option(help="Bundle to answer with; default: export/model, else the model in the package.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx, int8, torch or torch-fp32.")] = "auto",
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="MASKFAST_TOKEN", help="What clients must send as a bearer token.")
    ] = None,
    max_body: Annotated[int, typer.Option(help="Largest body of a request, in MiB.", min=1)] = 32,
    max_files: Annotated[int, typer.Option(help="Most pictures in one request.", min=1, max=64)] = 32,
    rate: Annotated[int, typer.Option(help="Requests a minute from one address; 0: unbounded.", min=0)] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Serve a web page and an HTTP API that answer with one model; pictures stay in memory and are never stored.

    Example: maskfast serve --model export/model --port 8000
    """
    from pydantic import SecretStr

    from maskfast.apps.cli.console import choose_model, say
    from maskfast.apps.web.server import run_server
    from maskfast.apps.web.settings import MEBIBYTE, ServeSettings
    from maskfast.score.loading import load

    settings = ServeSettings(
        host=host,
        port=port,
        token=SecretStr(token) if token is not None else None,
        max_body=max_body * MEBIBYTE,
        max_files=max_files,
        max_waiting=max(32, max_files),
        rate=rate,
    )
    predictor = load(choose_model(model, quiet=quiet), backend=cast(Any, backend))
    run_server(predictor, settings, announce=lambda address: say(f"open {address} (Ctrl+C ends)", quiet=quiet))


def watch(
    source: Annotated[str, typer.Argument(help="Camera index (0), rtsp or http stream, or video file.")],
    model: Annotated[
        Path | None, typer.Option(help="Bundle to answer with; default: export/model, else the model in the package.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx, int8, torch or torch-fp32.")] = "auto",
    headless: Annotated[bool, typer.Option("--headless", help="Open no window.")] = False,
    out: Annotated[Path | None, typer.Option(help="Annotated video to write, in .mp4.")] = None,
    events: Annotated[Path | None, typer.Option(help="Table of events to write: start,end,peak_probability.")] = None,
    snapshot: Annotated[Path | None, typer.Option(help="Folder for the frame that begins each event.")] = None,
    webhook: Annotated[str | None, typer.Option(help="Address to post every event to, as JSON.")] = None,
    smoothing: Annotated[float, typer.Option(help="Time constant of the smoothing, in seconds.", min=0)] = 0.5,
    hysteresis: Annotated[
        float, typer.Option(help="An event begins this much above the threshold and ends this much below.")
    ] = 0.1,
    give_up: Annotated[float, typer.Option(help="End after a lost stream's seconds; 0: never.", min=0)] = 0,
    json_lines: Annotated[bool, typer.Option("--json", help="Print events as JSON lines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Watch a camera, a stream or a video file and print when somebody wears a mask, until Ctrl+C or its end.

    Exit code 1 where frames of a file cannot be read, or end well before its head says.

    Example: maskfast watch entrance.mp4 --headless --events events.csv --out annotated.mp4
    """
    from maskfast.apps.cli.console import choose_model, say
    from maskfast.apps.video.watch import WatchOptions, watch_source
    from maskfast.score.loading import load

    options = WatchOptions(
        smoothing=smoothing,
        hysteresis=hysteresis,
        give_up=give_up,
        out=out,
        events=events,
        snapshot=snapshot,
        webhook=webhook,
        window=not headless,
    )
    predictor = load(choose_model(model, quiet=quiet), backend=cast(Any, backend))
    with stop_on_signals() as stop:
        summary = watch_source(
            predictor, source, options, stop=stop, announce=lambda event, live: print_event(event, live, json_lines)
        )
    say(
        f"{summary.scored} frames scored, {summary.dropped} dropped, {summary.unreadable} unreadable, "
        f"{summary.reconnects} reconnects, {summary.events} events",
        quiet=quiet,
    )
    if summary.unreadable or summary.cut_off:
        raise typer.Exit(1)


def space(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    model: Annotated[
        Path | None, typer.Option(help="Bundle to show; default: export/model, else the model in the package.")
    ] = None,
    title: Annotated[str, typer.Option(help="The Space's title.")] = "maskfast",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Write a folder that runs as a Hugging Face Space: a gradio page, its requirements and the model without a pickle.

    Example: maskfast space my-space --model export/model
    """
    from maskfast.apps.cli.console import choose_model, say
    from maskfast.apps.space import write_space

    write_space(choose_model(model, quiet=quiet), out, title=title)
    say(f"{out}: push it to https://huggingface.co/new-space, or start it with: python {out / 'app.py'}", quiet=quiet)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set instead of ending the process."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def print_event(event: "Event", live: bool, json_lines: bool) -> None:
    """Print an event that ended as a line of text or JSON."""
    from maskfast.apps.video.sinks import format_event

    start, end, peak = format_event(event, live=live)
    words = {"start": start, "end": end, "peak_probability": float(peak)}
    print(json.dumps(words) if json_lines else f"{start} to {end}: mask, at most {peak}", flush=True)
