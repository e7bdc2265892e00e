"""Runs the application under uvicorn until it is told to stop, and finishes what it accepted."""

import contextlib
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from maskfast.core.errors import ConfigError

if TYPE_CHECKING:
    from maskfast.apps.web.settings import ServeSettings
    from maskfast.score.predictor import Predictor

logger = logging.getLogger(__name__)


def run_server(
    predictor: "Predictor", settings: "ServeSettings", *, announce: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until SIGINT or SIGTERM; `announce` is told the address once connections are accepted.

    What was accepted is answered, unless SIGINT comes again.
    Raises ConfigError where the address cannot be used.
    """
    import uvicorn

    from maskfast.apps.web.app import create_app
    from maskfast.apps.web.protocol import MAX_HEAD, make_protocol

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                announce(format_address(settings.host, listener))

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            if self.force_exit:  # what is broken off now is told in one line, and not in a traceback a request
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    config = uvicorn.Config(
        create_app(predictor, settings),
        http=make_protocol(head_seconds=settings.head_seconds, max_connections=settings.max_connections),
        ws="none",
        loop="auto",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=settings.stop_seconds,
    )
    # uvicorn raises the signals that stopped it again: both then end this call and not the process
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = Server(config)
    with bind(settings.host, settings.port) as listener, contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    if server.force_exit:
        logger.warning("ended at once: requests that were under way got no answer")


def format_address(host: str, listener: socket.socket) -> str:
    """The URL to open, with the port that was taken."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; ConfigError where the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"--host {host} --port {port}: {error.strerror or error}; choose another") from error
    return listener
