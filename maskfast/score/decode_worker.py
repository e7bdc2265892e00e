"""The process that decodes for batch scoring: names and sources come in on standard input, pixels or reasons go out.

`decoders.DecoderPool` starts it as a program of its own, so that a decoder that crashes or hangs takes nothing with it.
A reply is a status byte, a length and that many bytes: the pixels, or in UTF-8 the reason why there are none.
"""

import os
import pickle
import struct
import sys
from typing import Protocol

from maskfast.core.errors import ImageError, MaskfastError
from maskfast.core.image import ImageSource, Method, Pixels, load_image

LENGTH = struct.Struct("<I")
READY, PIXELS, REFUSED = b"R", b"P", b"E"


class Stored(Protocol):
    """A picture inside something else, as a member of a zip archive."""

    def read_bytes(self) -> bytes:
        """Return the picture's file."""
        ...


def decode(name: str, source: ImageSource | Stored, size: int, method: Method) -> Pixels | ImageError:
    """Return the pixels (size, size, 3) of the picture, or the error that says why it cannot be used."""
    try:
        if hasattr(source, "read_bytes") and not isinstance(source, os.PathLike):
            source = source.read_bytes()
        return load_image(source, size, method, name=name)
    except ImageError as error:
        return error
    except (MaskfastError, OSError) as error:
        return ImageError(name, " ".join(str(error).split()))


def serve(size: int, method: Method) -> None:
    """Answer requests until standard input ends; the first byte written says that the imports are done."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what C libraries print about broken pictures would be taken for a reply, or for news
        os.dup2(silence, stream)
    replies.write(READY)
    replies.flush()
    while header := requests.read(LENGTH.size):
        # Only maskfast's own process writes here; nothing in a reply is ever unpickled.
        name, source = pickle.loads(requests.read(*LENGTH.unpack(header)))
        decoded = decode(name, source, size, method)
        if isinstance(decoded, ImageError):
            status, content = REFUSED, decoded.reason.encode("utf-8", "replace")
        else:
            status, content = PIXELS, decoded.tobytes()
        replies.write(status + LENGTH.pack(len(content)) + content)
        replies.flush()
