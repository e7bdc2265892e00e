"""The middleware around every endpoint: host and token checks, security headers, crashes, request metrics."""

import hmac
import logging
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskfast.apps.web.answers import RefusalError, answer_crash, answer_refusal
from maskfast.apps.web.metrics import Metrics
from maskfast.apps.web.settings import LOOPBACK

logger = logging.getLogger(__name__)
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
GUARDED = ("/api/", "/metrics")


class Guard:
    """Wraps `app`; `token` is what clients must bear for the API and the metrics, None on loopback without one.

    Without a token only requests to a loopback name are answered, so that a page elsewhere cannot reach the server
    through a name of its own that it points at 127.0.0.1 (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, token: str | None, metrics: Metrics, paths: Collection[str]) -> None:
        self.app = app
        self.token = token
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it; a bug below is logged and answered without a word of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURITY)
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            await self.app(scope, receive, send_guarded)
        except RefusalError as refusal:
            await answer_refusal(refusal)(scope, receive, send_guarded)
        except Exception:
            logger.exception("a request failed")
            if status:
                raise
            await answer_crash()(scope, receive, send_guarded)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.observe_request(path, status, time.perf_counter() - started)

    def _check(self, path: str, headers: Headers) -> None:
        if self.token is None:
            if strip_port(headers.get("host", "")) not in (*LOOPBACK, "[::1]"):
                raise RefusalError(421, "this server answers only to localhost", close=True)
        elif path.startswith(GUARDED) and not _bears(headers, self.token):
            raise RefusalError(401, "send the server's token: Authorization: Bearer TOKEN", close=True)


def strip_port(host: str) -> str:
    """The Host header's name without its port."""
    name, colon, port = host.rpartition(":")
    return name.lower() if colon and port.isdigit() else host.lower()


def _bears(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())
