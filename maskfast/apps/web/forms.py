"""A multipart form as it arrives goes in, its files as names and bytes in memory come out; bounded, never on disk."""

import re
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING
from urllib.parse import unquote

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from maskfast.apps.web.answers import RefusalError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELDS = 16
MAX_FIELD_BYTES = 2000
"""The fields other than files mean nothing here; a few are let through for clients that send some."""


async def read_form(content_type: str, body: AsyncGenerator[bytes, None], *, max_files: int) -> list[tuple[str, bytes]]:
    """The names and bytes of a form's files, in order.

    Raises RefusalError: 413 for too many files or fields, 422 for a form that is broken or ends too early.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise RefusalError(422, "the multipart form names no boundary", close=True)
    reader = _Reader(max_files)
    try:
        parser = MultipartParser(boundary, reader.list_callbacks())
        async for chunk in body:
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RefusalError(422, "the multipart form is broken", close=True) from error
    if not reader.complete:
        raise RefusalError(422, "the multipart form ends too early")
    return [(name, bytes(data)) for name, data in reader.files]


class _Reader:
    """Collects what the parser finds; `into` is the file or field whose bytes are being read."""

    def __init__(self, max_files: int) -> None:
        self.max_files = max_files
        self.files: list[tuple[str, bytearray]] = []
        self.fields = 0
        self.complete = False
        self.into = bytearray()
        self.in_field = True
        self.header = bytearray()
        self.value = bytearray()
        self.disposition = b""

    def list_callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self.begin_part,
            "on_header_field": lambda data, start, end: self.header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self.value.extend(data[start:end]),
            "on_header_end": self.end_header,
            "on_headers_finished": self.open_part,
            "on_part_data": self.add,
            "on_end": self.finish,
        }

    def begin_part(self) -> None:
        self.disposition = b""

    def end_header(self) -> None:
        if bytes(self.header).lower() == b"content-disposition":
            self.disposition = bytes(self.value)
        self.header.clear()
        self.value.clear()

    def open_part(self) -> None:
        name = _read_name(self.disposition)
        self.into = bytearray()
        self.in_field = name is None
        if name is None:
            self.fields += 1
        else:
            self.files.append((name, self.into))
        if len(self.files) > self.max_files:
            raise RefusalError(413, f"more than {self.max_files} files in one request", close=True)
        if self.fields > MAX_FIELDS:
            raise RefusalError(413, f"more than {MAX_FIELDS} form fields that are no files", close=True)

    def add(self, data: bytes, start: int, end: int) -> None:
        if self.in_field and len(self.into) + end - start > MAX_FIELD_BYTES:
            raise RefusalError(413, f"a form field that is no file has more than {MAX_FIELD_BYTES} bytes", close=True)
        self.into.extend(data[start:end])

    def finish(self) -> None:
        self.complete = True


def _read_name(disposition: bytes) -> str | None:
    """The name of a part's file, None for a field.

    Some clients write `filename*=UTF-8''...` (RFC 5987), which RFC 7578 forbids in forms: beside a `filename` it is
    ignored, alone it will do.
    """
    plain = parse_options_header(disposition)[1].get(b"filename")
    if plain is not None:
        return plain.decode(errors="replace")
    extended = re.search(rb";\s*filename\*=[^';]*'[^';]*'([^;\s]*)", disposition, re.IGNORECASE)
    return unquote(extended[1].decode("latin-1")) if extended else None
