"""From a request to the pictures it carries: multipart forms or one raw body, held in memory and never on disk."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from maskfast.apps.web.answers import RefusalError

MAX_FIELDS = 16
MAX_NAME = 200
RAW_TYPES = ("application/octet-stream", "binary/octet-stream")


@dataclass(frozen=True)
class Upload:
    """One file as sent: a name to show and its bytes."""

    name: str
    data: bytes


async def read_uploads(
    request: Request, body: AsyncGenerator[bytes, None], *, max_files: int, max_body: int
) -> list[Upload]:
    """The pictures of one request.

    Raises RefusalError: 415 for another content type, 413 for too many files, 422 for a broken form or no picture.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        uploads = await _read_form(request, body, max_files=max_files, max_body=max_body)
    elif kind.startswith("image/") or kind in RAW_TYPES:
        data = b"".join([chunk async for chunk in body])
        uploads = [Upload(clean_name(request.query_params.get("name", "image")), data)]
    else:
        shown = kind[:60] or "no content type"
        raise RefusalError(415, f"{shown}: send multipart/form-data, image/* or application/octet-stream", close=True)
    if not uploads or not any(upload.data for upload in uploads):
        raise RefusalError(422, "the request carries no picture")
    return uploads


async def _read_form(
    request: Request, body: AsyncGenerator[bytes, None], *, max_files: int, max_body: int
) -> list[Upload]:
    parser = MultiPartParser(
        request.headers, body, max_files=max_files, max_fields=MAX_FIELDS, max_part_size=MAX_NAME * 10
    )
    parser.spool_max_size = max_body + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _describe_form_error(error.message, max_files) from error
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [Upload(clean_name(file.filename or ""), await file.read()) for file in files]
    finally:
        await form.close()


def _describe_form_error(message: str, max_files: int) -> RefusalError:
    if message.startswith("Too many files"):
        return RefusalError(413, f"more than {max_files} files in one request", close=True)
    if message.startswith(("Too many fields", "Part exceeded")):
        return RefusalError(413, "the form's fields other than files are too many or too long", close=True)
    return RefusalError(422, "the multipart form is broken", close=True)


def clean_name(name: str) -> str:
    """A file's name without folders and control characters, at most MAX_NAME characters; `image` for none."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(char if char.isprintable() else "�" for char in last).strip()
    return shown[-MAX_NAME:] or "image"
