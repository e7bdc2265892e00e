"""A predictor with known answers and a real server around it, for the tests of the web application."""

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette

from maskfast.apps.web.app import create_app
from maskfast.apps.web.protocol import MAX_HEAD, make_protocol
from maskfast.apps.web.settings import ServeSettings
from maskfast.core.image import load_image
from maskfast.score.predictor import Prediction


class BrightnessPredictor:
    """Answers with the mean brightness in 0..1, so that the right answer for a grey picture is known."""

    size = 64
    method = "squish"
    threshold = 0.5
    classes = ("no_mask", "mask")
    manifest = SimpleNamespace(
        network=SimpleNamespace(arch="brightness"),
        classes=classes,
        positive="mask",
        created="2025-01-01",
        metrics={"accuracy": 0.75},
    )

    def __init__(self, work: Callable[[int], None] = lambda _: None) -> None:
        self.work = work

    def predict(self, image: Any) -> Prediction:
        prob = float(self.predict_arrays(load_image(image, self.size)[None])[0])
        return Prediction("frame", prob, self.classes[prob >= self.threshold])

    def predict_arrays(self, batch: np.ndarray) -> np.ndarray:
        self.work(len(batch))
        return batch.mean(axis=(1, 2, 3), dtype=np.float32) / 255

    def logits_arrays(self, batch: np.ndarray) -> np.ndarray:
        probs = batch.mean(axis=(1, 2, 3), dtype=np.float64) / 255
        return np.stack([np.zeros(len(batch)), 40 * probs], axis=1).astype(np.float32)


def make_picture(level: int = 200, size: tuple[int, int] = (40, 30), kind: str = "PNG") -> bytes:
    """A grey picture whose probability is level / 255."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(buffer, kind)
    return buffer.getvalue()


def _run(server: uvicorn.Server, config: uvicorn.Config, listener: socket.socket) -> None:
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))


@contextmanager
def run_app(app: Starlette, settings: ServeSettings) -> Iterator[str]:
    """The application on a free loopback port in a thread; yields its address and ends it cleanly."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=make_protocol(head_seconds=settings.head_seconds, max_connections=settings.max_connections),
        ws="none",
        loop="auto",
        lifespan="on",
        log_level="warning",
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: _run(server, config, listener))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.02)
        assert server.started, "the server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"


@contextmanager
def serve(
    predictor: Any = None, *, decoder: list[str] | None = None, **options: Any
) -> Iterator[tuple[str, Starlette]]:
    """A server with the brightness predictor and few processes; yields its address and its application.

    `decoder` is the command of another decoder than the real one.
    """
    settings = ServeSettings(**{"decoders": 1, "body_seconds": 5, **options})
    app = create_app(predictor or BrightnessPredictor(), settings)
    if decoder is not None:
        app.state.scorer.decoders.command = decoder
    with run_app(app, settings) as address:
        yield address, app
