"""The OpenAPI 3.1 description of the HTTP API, made from the same models that answer."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from maskfast._version import __version__
from maskfast.apps.web.answers import Explanation, FailedRows, Health, ModelInfo, Problem, Rows

MODELS: tuple[type[BaseModel], ...] = (Rows, FailedRows, Explanation, ModelInfo, Health, Problem)
REFUSALS = {
    "400": "The request is malformed.",
    "401": "The server has a token and the request does not bear it.",
    "408": "The body came too slowly.",
    "413": "The body is too large, or carries too many files.",
    "415": "The body is no form, image or octet stream.",
    "421": "The server answers only to localhost.",
    "429": "Too many requests a minute; Retry-After says when to come back.",
    "503": "Too many pictures at once, or no decoder starts; Retry-After says when to come back.",
}


def describe_api() -> dict[str, Any]:
    """The description as plain values, ready for JSON."""
    _, definitions = models_json_schema(
        [(model, "serialization") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "maskfast",
            "version": __version__,
            "description": "Does this picture contain at least one person wearing a face mask?",
        },
        "paths": {
            "/api/predict": {"post": _describe_upload("predict", "Score pictures.", Rows, many=True)},
            "/api/explain": {
                "post": _describe_upload("explain", "Show where the model looked.", Explanation, many=False)
            },
            "/api/model": {"get": _describe_get("model", "The model that answers.", ModelInfo, guarded=True)},
            "/health": {"get": _describe_get("health", "Whether the server answers.", Health, guarded=False)},
            "/metrics": {"get": _describe_metrics()},
        },
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _describe_upload(name: str, summary: str, model: type[BaseModel], *, many: bool) -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": file, "minItems": 1, "maxItems": None if many else 1}
    form = {
        "type": "object",
        "properties": {"files": {key: value for key, value in files.items() if value is not None}},
        "required": ["files"],
    }
    return {
        "operationId": name,
        "summary": summary,
        "security": [{}, {"token": []}],
        "parameters": [
            {
                "name": "name",
                "in": "query",
                "required": False,
                "description": "the picture's name, when it is sent as a raw body",
                "schema": {"type": "string"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {"schema": file},
                "image/jpeg": {"schema": file},
                "image/png": {"schema": file},
            },
        },
        "responses": {
            "200": _describe_answer("The results.", model),
            "422": _describe_answer("No picture, a broken form, or no picture that can be used.", FailedRows, Problem),
            **{status: _describe_answer(words, Problem) for status, words in REFUSALS.items()},
        },
    }


def _describe_get(name: str, summary: str, model: type[BaseModel], *, guarded: bool) -> dict[str, Any]:
    statuses = ("400", "401", "421") if guarded else ("400", "421")
    return {
        "operationId": name,
        "summary": summary,
        "security": [{}, {"token": []}] if guarded else [],
        "responses": {
            "200": _describe_answer(summary, model),
            **{status: _describe_answer(REFUSALS[status], Problem) for status in statuses},
        },
    }


def _describe_metrics() -> dict[str, Any]:
    described = _describe_get("metrics", "Numbers for Prometheus.", Health, guarded=True)
    described["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return described


def _describe_answer(words: str, *models: type[BaseModel]) -> dict[str, Any]:
    refs = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]
    return {
        "description": words,
        "content": {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}},
    }
