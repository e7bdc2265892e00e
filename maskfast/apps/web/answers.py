"""What the server says: result rows, descriptions and refusals as pydantic models, and their JSON responses."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response


class Row(BaseModel):
    """One picture's result; the same names as the columns of `maskfast predict`."""

    model_config = ConfigDict(frozen=True)

    image: str = Field(description="the file's name as sent, without folders")
    probability: float | None = Field(description="P(at least one mask), calibrated; null when the picture failed")
    label: Literal["mask", "no_mask", ""] = Field(description="the answer at the model's threshold; empty when failed")
    status: Literal["ok", "failed"]
    reason: str = Field(description="why the picture could not be used; empty when ok")


class Rows(BaseModel):
    """The results of one request, in the order the pictures were sent."""

    results: list[Row]


class FailedRows(Rows):
    """The rows of a request none of whose pictures could be used."""

    error: str


class Explanation(BaseModel):
    """One picture's result and where the model looked."""

    result: Row
    method: Literal["squish", "pad", "crop"] = Field(description="how the picture became the model's square")
    heat_map: str = Field(description="base64 of a square PNG with transparency, to lay over the model's square")


class ModelInfo(BaseModel):
    """The model that answers, and what it takes."""

    arch: str
    classes: list[str]
    positive: str
    threshold: float
    size: int = Field(description="side of the model's square input, in pixels")
    method: Literal["squish", "pad", "crop"]
    created: str
    metrics: dict[str, float]
    max_files: int = Field(description="pictures in one request")
    max_body: int = Field(description="bytes of one request's body")


class Health(BaseModel):
    """Says that the server answers."""

    status: Literal["ok"] = "ok"


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    error: str


class RefusalError(Exception):
    """A request that is answered with `status` and one line of JSON instead of results."""

    def __init__(self, status: int, error: str, *, retry_after: int | None = None, close: bool = False) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.retry_after = retry_after
        self.close = close


def answer_model(model: BaseModel, *, status: int = 200) -> Response:
    """A JSON response of one model."""
    return Response(model.model_dump_json(), status_code=status, media_type="application/json")


def answer_refusal(refusal: RefusalError) -> Response:
    """One line of JSON; `Retry-After` where trying later helps, `Connection: close` where a body was left unread."""
    response = answer_model(Problem(error=refusal.error), status=refusal.status)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if refusal.close:
        response.headers["Connection"] = "close"
    return response


async def handle_refusal(_: Request, error: Exception) -> Response:
    """Starlette's handler of RefusalError."""
    assert isinstance(error, RefusalError)
    return answer_refusal(error)


async def handle_http(request: Request, error: Exception) -> Response:
    """Starlette's handler of its own 404 and 405."""
    assert isinstance(error, HTTPException)
    words = {404: "no such page", 405: f"{request.method} is not possible here"}
    response = answer_model(Problem(error=words.get(error.status_code, error.detail)), status=error.status_code)
    response.headers.update(error.headers or {})
    return response


def answer_crash() -> Response:
    """The answer to a request that met a bug; it says nothing of it."""
    return answer_model(Problem(error="the server failed on this request"), status=500)


HANDLERS: dict[Any, Any] = {RefusalError: handle_refusal, HTTPException: handle_http}
