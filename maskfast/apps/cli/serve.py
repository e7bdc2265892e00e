"""The verb `serve`: a model as a web page and an HTTP API on this machine."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from maskfast.core.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(serve)


def serve(
    model: Annotated[
        Path | None, typer.Option(help="Bundle to answer with; default: export/model, else the model in the package.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, onnx, int8 or torch.")] = "auto",
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

    from maskfast.apps.cli.console import say
    from maskfast.apps.web.server import run_server
    from maskfast.apps.web.settings import MEBIBYTE, ServeSettings
    from maskfast.score.predictor import load

    if token is not None and not token.strip():
        raise ConfigError("--token: is empty; give a secret of at least a few characters")
    settings = ServeSettings(
        host=host,
        port=port,
        token=SecretStr(token) if token else None,
        max_body=max_body * MEBIBYTE,
        max_files=max_files,
        rate=rate,
    )
    predictor = load(model, backend=cast(Any, backend))
    run_server(predictor, settings, announce=lambda address: say(f"open {address} (Ctrl+C ends)", quiet=quiet))
