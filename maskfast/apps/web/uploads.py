"""From a request to the pictures it carries: multipart forms or one raw body, held in memory and never on disk."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.requests import Request

from maskfast.apps.web.answers import RefusalError
from maskfast.apps.web.forms import read_form

MAX_NAME = 200
RAW_TYPES = ("application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True)
class Upload:
    """One file as sent: a name to show and its bytes."""

    name: str
    data: bytes


async def read_uploads(request: Request, body: AsyncGenerator[bytes, None], *, max_files: int) -> list[Upload]:
    """The pictures of one request.

    Raises RefusalError: 415 for another content type, 413 for too many files, 422 for a broken form or no picture.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        files = await read_form(request.headers["content-type"], body, max_files=max_files)
        uploads = [Upload(clean_name(name), data) for name, data in files]
    elif kind.startswith("image/") or kind in RAW_TYPES:
        data = b"".join([chunk async for chunk in body])
        uploads = [Upload(clean_name(request.query_params.get("name", "image")), data)]
    else:
        shown = kind[:60] or "no content type"
        raise RefusalError(415, f"{shown}: send multipart/form-data, image/* or application/octet-stream", close=True)
    if not uploads or not any(upload.data for upload in uploads):
        raise RefusalError(422, "the request carries no picture")
    return uploads


def clean_name(name: str) -> str:
    """A file's name without folders and control characters, at most MAX_NAME characters; `image` for none."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(char if char.isprintable() else "�" for char in last).strip()
    return shown[-MAX_NAME:] or "image"
