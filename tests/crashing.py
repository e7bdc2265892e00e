"""A picture that takes its decoder process with it, by a name that other processes can import."""

import os
import signal


class CrashingPicture:
    def read_bytes(self) -> bytes:
        os.kill(os.getpid(), signal.SIGSEGV)
        raise AssertionError("still here")
