"""The decoder process: picture files in on standard input, square uint8 arrays or reasons out on standard output.

A question is a 4-byte little-endian length and the file's bytes. An answer is one byte (ARRAY or REASON), a length and
the bytes. The process ends with its standard input, so it never outlives the server.
"""

import signal
import sys
from typing import BinaryIO, Literal

from maskfast.core.errors import ImageError
from maskfast.core.image import MAX_PIXELS, load_image

ARRAY, REASON = b"\0", b"\1"
LENGTH_BYTES = 4
MEMORY = 4 << 30
"""Address space of one decoder, in bytes; a picture that needs more fails alone."""


def main(args: list[str]) -> None:
    """Answer until standard input ends; `args` are size, method and the bound on pixels (0: the loader's own)."""
    size, method, max_pixels = int(args[0]), args[1], int(args[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound_memory()
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr
    while (data := read_frame(sys.stdin.buffer)) is not None:
        kind, payload = answer_picture(data, size, method, max_pixels or MAX_PIXELS)  # type: ignore[arg-type]
        answers.write(kind + len(payload).to_bytes(LENGTH_BYTES, "little"))
        answers.write(payload)
        answers.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """One question's bytes, or None at the end."""
    head = stream.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    return stream.read(int.from_bytes(head, "little"))


def answer_picture(
    data: bytes, size: int, method: Literal["squish", "pad", "crop"], max_pixels: int
) -> tuple[bytes, bytes]:
    """One answer's kind and bytes."""
    try:
        return ARRAY, load_image(data, size, method, max_pixels=max_pixels).tobytes()
    except ImageError as error:
        return REASON, error.reason.encode()


def _bound_memory() -> None:
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
