"""The process that decodes for others: names and sources come in on standard input, pixels or reasons go out.

`decoders.DecoderPool` and the web server's pool start it as a program of its own, so that a decoder that crashes or
hangs takes nothing with it. A request is a length and a pickled pair (name, source). A reply is a status byte, a length
and that many bytes: the pixels, or in UTF-8 the reason why there are none.
"""

import os
import pickle
import signal
import struct
import sys
from typing import Protocol

from PIL import Image

from maskfast.core.errors import ImageError, MaskfastError
from maskfast.core.image import MAX_PIXELS, ImageSource, Method, load_square

LENGTH = struct.Struct("<I")
READY, PIXELS, REFUSED = b"R", b"P", b"E"
MEMORY = 4 << 30
"""Address space of one decoder, in bytes; a picture that needs more fails alone."""
_START = (
    "import sys; sys.path[:] = {path!r}; "
    "from maskfast.score.decode_worker import serve; serve({size}, {method!r}, {max_pixels})"
)


class Stored(Protocol):
    """A picture inside something else, as a member of a zip archive."""

    def read_bytes(self) -> bytes:
        """Return the picture's file."""
        ...


def make_command(size: int, method: Method, max_pixels: int = MAX_PIXELS) -> list[str]:
    """Return the command that starts a worker."""
    return [sys.executable, "-c", _START.format(path=sys.path, size=size, method=method, max_pixels=max_pixels)]


def make_environment() -> dict[str, str]:
    """Return the environment of a worker: numpy's linear algebra, never called there, else starts a thread a core."""
    return os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def make_request(name: str, source: "ImageSource | Stored") -> bytes:
    """Return the bytes that ask a worker for one picture."""
    content = pickle.dumps((name, source), protocol=5)
    return LENGTH.pack(len(content)) + content


def decode(
    name: str, source: "ImageSource | Stored", size: int, method: Method, max_pixels: int = MAX_PIXELS
) -> Image.Image | ImageError:
    """Return the picture, square and in RGB, or the error that says why it cannot be used."""
    try:
        if hasattr(source, "read_bytes") and not isinstance(source, os.PathLike):
            source = source.read_bytes()
        return load_square(source, size, method, name=name, max_pixels=max_pixels)
    except ImageError as error:
        return error
    except (MaskfastError, OSError) as error:
        return ImageError(name, " ".join(str(error).split()))


def serve(size: int, method: Method, max_pixels: int) -> None:
    """Answer requests until standard input ends; the first byte written says that the imports are done."""
    # Ctrl-C is for whoever asks, who begins a session of its own for this process; Windows has no such thing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound_memory()
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what C libraries print about broken pictures would be taken for a reply, or for news
        os.dup2(silence, stream)
    replies.write(READY)
    replies.flush()
    while header := requests.read(LENGTH.size):
        # Only maskfast's own process writes here; nothing in a reply is ever unpickled.
        name, source = pickle.loads(requests.read(*LENGTH.unpack(header)))
        decoded = decode(name, source, size, method, max_pixels)
        if isinstance(decoded, ImageError):
            status, content = REFUSED, decoded.reason.encode("utf-8", "replace")
        else:
            status, content = PIXELS, decoded.tobytes()
        replies.write(status + LENGTH.pack(len(content)))
        replies.write(content)
        replies.flush()


def _bound_memory() -> None:
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
