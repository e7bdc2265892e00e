"""The ASGI application: a predictor and settings in; page, API, health and metrics out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from maskfast.apps.web.answers import HANDLERS
from maskfast.apps.web.api import Api
from maskfast.apps.web.guard import Guard
from maskfast.apps.web.metrics import Metrics
from maskfast.apps.web.openapi import describe_api
from maskfast.apps.web.service import Scorer
from maskfast.apps.web.settings import ServeSettings

if TYPE_CHECKING:
    from maskfast.score.predictor import Predictor

STATIC = Path(__file__).parent / "static"
PATHS = ("/", "/api/predict", "/api/explain", "/api/model", "/health", "/metrics", "/openapi.json")


def create_app(predictor: "Predictor", settings: ServeSettings) -> Starlette:
    """The application; its decoders and its model's thread live as long as its lifespan.

    `app.state.scorer` is the scoring service.
    """
    metrics = Metrics()
    scorer = Scorer(predictor, settings, metrics)
    api = Api(scorer)

    @asynccontextmanager
    async def live(_: Starlette) -> AsyncIterator[None]:
        await scorer.start()
        try:
            yield
        finally:
            await scorer.stop()

    token = settings.token.get_secret_value() if settings.token else None
    app = Starlette(
        routes=[
            Route("/", show_page),
            Route("/api/predict", api.predict, methods=["POST"]),
            Route("/api/explain", api.explain, methods=["POST"]),
            Route("/api/model", api.model),
            Route("/health", api.health),
            Route("/metrics", api.metrics),
            Route("/openapi.json", show_description),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, token=token, metrics=metrics, paths=PATHS)],
        exception_handlers=HANDLERS,
        lifespan=live,
    )
    app.state.scorer = scorer
    return app


async def show_page(_: Request) -> Response:
    """GET /: the page."""
    return FileResponse(STATIC / "index.html")


async def show_description(_: Request) -> Response:
    """GET /openapi.json: the API's description."""
    return JSONResponse(describe_api())
