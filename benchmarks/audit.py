"""Drawn photos in, time and peak memory of `maskfast audit` at several numbers of pictures out: a table and JSON.

    python benchmarks/audit.py --counts 1000 20000 --out audit.json

Each count runs in a process of its own with an empty cache, so that its peak memory is its own. Beside it stands what a
user would otherwise write: imagehash's 64-bit hash of every picture and a comparison of all pairs in plain Python. That
one is timed at `--pairs` pictures at most and scaled by the square, since at 20,000 it would take an hour.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import processes
from PIL import Image

from maskfast.core.files import write_whole


def draw_photos(folder: Path, count: int) -> None:
    """Write `count` JPEGs of 300 x 240 pixels in two class folders; every tenth is a smaller copy of the one before."""
    for name in ("mask", "no_mask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    img = Image.new("RGB", (1, 1))
    for number in range(count):
        if number % 10 == 9:
            img = img.resize((200, 160))
        else:
            noise = np.random.default_rng(number).integers(0, 256, (12, 15, 3), dtype=np.uint8)
            img = Image.fromarray(noise).resize((300, 240), Image.Resampling.BICUBIC)
        img.save(folder / ("mask", "no_mask")[number // 10 % 2] / f"{number:06d}.jpg", quality=85)


def measure_audit(folder: Path) -> dict[str, Any]:
    """Audit `folder` in this process and return seconds, peak megabytes and the near-duplicates found."""
    from maskfast.data.audit import audit_items
    from maskfast.data.audit_page import write_audit
    from maskfast.data.tables import read_items

    start = time.perf_counter()
    audit = audit_items(read_items(folder))
    with tempfile.TemporaryDirectory() as out:
        write_audit(audit, Path(out))
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "near_duplicates": audit.summary["findings"]["near-duplicate"],
    }


def measure_plain(folder: Path, most: int, count: int) -> float:
    """Return the seconds of the plain way, measured on at most `most` pictures and scaled to `count`."""
    from imagehash import phash

    paths = sorted(folder.rglob("*.jpg"))[:most]
    start = time.perf_counter()
    hashes = []
    for path in paths:
        with Image.open(path) as img:
            hashes.append(phash(img))
    hashed = time.perf_counter()
    sum(first - second <= 6 for first, second in combinations(hashes, 2))
    compared = time.perf_counter()
    return (hashed - start) * count / len(paths) + (compared - hashed) * (count / len(paths)) ** 2


def run_count(count: int, most: int) -> dict[str, Any]:
    """Measure one count in a process of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "photos")
        draw_photos(folder, count)
        command = [sys.executable, __file__, "--measure", str(folder)]
        environment = os.environ | {"MASKFAST_CACHE": str(Path(temporary, "cache"))}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        plain = round(measure_plain(folder, most, count), 1)
    return {"pictures": count, **json.loads(done.stdout), "plain_seconds": plain}


def main() -> None:
    """Run the counts given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--pairs", type=int, default=1000, help="pictures of the plain comparison")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure_audit(options.measure)))
        return
    rows = [run_count(count, options.pairs) for count in options.counts]
    print(f"{'pictures':>9} {'seconds':>8} {'peak MB':>8} {'copies':>7} {'plain s':>8} {'ratio':>6}")
    for row in rows:
        ratio = row["plain_seconds"] / row["seconds"]
        print(
            f"{row['pictures']:>9} {row['seconds']:>8} {row['peak_mb']:>8} {row['near_duplicates']:>7} "
            f"{row['plain_seconds']:>8} {ratio:>6.1f}"
        )
    if options.out:
        write_whole(options.out, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    processes.run_main(main)
