"""Damages pickles for as long as it is told and reads each: a value or BundleError must come of it, and nothing else.

    python tests/faults/fuzz_pickles.py [--seconds 600] [--seed 0]

It starts from the hostile corpus and from what torch.save writes of a small network, and flips bits of the whole file
of the latter as well. An input that does anything else
is kept as crash-N.bin in the current folder, and the exit code is 1.
"""

import argparse
import io
import random
import resource
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import hostile_pickles
import torch

from maskfast.bundle.fastai_export import list_unknown_names, read_export
from maskfast.bundle.pickles import read_pickle, walk
from maskfast.core.errors import BundleError

LARGEST = 5000
"""Bytes of a hostile pickle that is still damaged; most of a larger one is repetition."""


def save_network() -> bytes:
    stream = io.BytesIO()
    torch.save({"model": torch.nn.Sequential(torch.nn.Linear(2, 2)), "x": [torch.ones(2)]}, stream)
    return stream.getvalue()


def list_seeds() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(save_network())) as archive:
        saved = [archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl")]
    return [*saved, *(each for each in hostile_pickles.list_hostile().values() if len(each) < LARGEST)]


def damage(seeds: list[bytes], chance: random.Random) -> bytes:
    """Return one of the seeds with some bytes changed, cut out, cut off or put in from another."""
    content = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 12)):
        if not content:
            break
        at, kind = chance.randrange(len(content)), chance.random()
        if kind < 0.5:
            content[at] = chance.randrange(256)
        elif kind < 0.7:
            del content[at : at + chance.randint(1, 30)]
        elif kind < 0.9:
            other = chance.choice(seeds)
            start = chance.randrange(max(1, len(other)))
            content[at:at] = other[start : start + chance.randint(1, 60)]
        else:
            del content[at:]
    return bytes(content)


def flip(content: bytes, chance: random.Random) -> bytes:
    """Return `content` with one to three bits flipped."""
    flipped = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def read(content: bytes, path: Path) -> bool:
    """Read `content` alone and inside an archive; say whether it was a value."""
    try:
        found = read_pickle(content, name="fuzzed")
        list(walk(found.value))
    except BundleError:
        return False
    hostile_pickles.write_archive(path, content)
    return read_file(path)


def read_file(path: Path) -> bool:
    """Read the export at `path`; say whether it was a value."""
    try:
        list_unknown_names(read_export(path))
    except BundleError as error:
        if "cannot be read" in str(error):  # the last resort, which hides what happened
            raise RuntimeError(str(error)) from error
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()
    seeds, whole, chance = list_seeds(), save_network(), random.Random(told.seed)
    end = time.monotonic() + told.seconds
    tried = values = crashes = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            path, begun = Path(folder, "fuzzed.pkl"), time.monotonic()
            flipped = tried % 2 == 1
            content = flip(whole, chance) if flipped else damage(seeds, chance)
            tried += 1
            try:
                if flipped:
                    path.write_bytes(content)
                values += read_file(path) if flipped else read(content, path)
            except Exception as error:
                crashes += 1
                Path(f"crash-{crashes}.bin").write_bytes(content)
                print(f"crash-{crashes}.bin: {type(error).__name__}: {error}")
            slowest = max(slowest, time.monotonic() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{tried} inputs: {values} values, {crashes} crashes; slowest {slowest:.2f} s, peak memory {peak} MB")
    sys.exit(crashes > 0)


if __name__ == "__main__":
    main()
