"""Pickles as an attacker would write them; none of them is ever opened by pickle here."""

import pickle
import struct
import zipfile

import cloudpickle


class Reduced:
    """Pickles into a call of whatever it is given."""

    def __init__(self, callee, *args):
        self.call = (callee, args)

    def __reduce__(self):
        return self.call


def _run(command):
    import os

    return os.system(command)


def list_hostile() -> dict[str, bytes]:
    """Name and bytes of each hostile pickle; `touch` of a file that must never appear."""
    import os
    import subprocess

    text = "touch /tmp/maskfast-was-here"
    corpus = {f"reduce-{protocol}": pickle.dumps(Reduced(os.system, text), protocol=protocol) for protocol in range(6)}
    corpus |= {
        "popen": pickle.dumps(Reduced(subprocess.Popen, ["touch", "/tmp/maskfast-was-here"])),
        "eval": pickle.dumps(Reduced(eval, "__import__('os').getcwd()")),
        "exec": pickle.dumps(Reduced(exec, "import socket; socket.socket()")),
        "getattr-chain": pickle.dumps(Reduced(getattr, Reduced(__import__, "os"), "system")),
        "inst": b"(S'touch /tmp/maskfast-was-here'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'touch /tmp/maskfast-was-here'\no.",
        "newobj": b"\x80\x02csubprocess\nPopen\n](X\x05\x00\x00\x00touchX\x04\x00\x00\x00/tmpe\x85\x81.",
        "newobj-ex": b"\x80\x04\x8c\x0asubprocess\x8c\x05Popen\x93)}\x92.",
        "stack-global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
        "build": b"\x80\x02cargparse\nNamespace\n)\x81}(X\x01\x00\x00\x00xK\x01ub.",
        "build-global": b"\x80\x02cos\nsystem\n}(X\x04\x00\x00\x00nameK\x01ub.",
        "cloudpickle": cloudpickle.dumps(lambda: _run(text)),
        "extension": b"\x80\x02\x82\x01.",
        "unknown-module": b"cno_such_module_anywhere\nthing\n.",
        "long-name": b"c" + b"a" * 100_000 + b"\nb\n.",
        "deep-marks": b"(" * 200_000 + b".",
        "deep-tuples": b"\x80\x02)" + b"\x85" * 400_000 + b".",
        "deep-lists": b"]" + b"]a" * 0 + b"".join([b"(l" for _ in range(10)]) + b".",
        "deep-tuple-as-key": b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.",
        "self-list": b"]\x94h\x00a.",
        "self-module": b"]q\x00h\x00a.",
        "laughs": _nest_shared_lists(60),
        "huge-claim": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
        "huge-binbytes": b"\x80\x03B" + struct.pack("<I", 2**32 - 1) + b"x.",
        "huge-number": b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".",
        "huge-decimal": b"I" + b"9" * 100_000 + b"\n.",
        "huge-memo": b"Nr\xff\xff\xff\xff.",
        "text-memo": b"Np" + b"9" * 4000 + b"\n.",
        "many-opcodes": b"N0" * 2_000_000 + b"N.",
        "many-memos": b"\x80\x04" + b"N\x94" * 1_000_000 + b".",
        "append-to-tuple": b")Na.",
        "set-on-number": b"K\x01NNs.",
        "persistent": b"\x80\x02X\x0b\x00\x00\x00/etc/passwdQ.",
        "no-stop": b"N",
        "nothing": b"",
        "stop-only": b".",
        "pop-empty": b"0.",
        "get-unknown": b"h\x07.",
        "broken-text": b"X\x02\x00\x00\x00\xff\xfe.",
        "bad-string": b"S'abc\n.",
        "text-float": b"Fnan\n.",
        "buffer": b"\x80\x05\x97.",
        "nested-pickle": pickle.dumps(pickle.dumps(Reduced(os.system, text))),
    }
    return corpus


def _nest_shared_lists(levels: int) -> bytes:
    """Lists of twice the list before: 2**levels of them for whoever walks without remembering."""
    steps = b"".join(
        b"(h" + bytes([index]) + b"h" + bytes([index]) + b"lq" + bytes([index + 1]) for index in range(levels)
    )
    return b"\x80\x02]q\x00" + steps + b"."


def wrap_in_learner(inner: bytes) -> bytes:
    """A pickle that looks like a Learner whose network is the value of the pickle `inner` of protocol 2 or less."""
    body = inner.removeprefix(b"\x80\x02").removesuffix(b".")
    return b"\x80\x02cfastai.learner\nLearner\n)\x81}X\x05\x00\x00\x00model" + body + b"sb."


def write_archive(path, content: bytes, **entries: bytes) -> None:
    """A file as torch.save writes it, around the pickle `content`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
