"""Labelled pictures and pretrained weights go in; the small model that the package carries comes out.

    python -m maskfast.learn.small SHARED [--seed 0] [--out maskfast/bundle/small]

SHARED is a folder with data/spot-the-mask, data/face-boxes and weights/mobilenet_v2-imagenet.safetensors. The recipe
is the shipped configuration "scenes".
"""

import argparse
import tempfile
from pathlib import Path

import maskfast.bundle
from maskfast.bundle.manifest import Manifest
from maskfast.bundle.small import shrink_bundle
from maskfast.core.config_files import read_config
from maskfast.learn.train import train_learner

ARCH, WEIGHTS = "mobilenet_v2", "mobilenet_v2-imagenet.safetensors"
DATA = ("spot-the-mask", "face-boxes")


def train_small_model(shared: Path, out: Path, *, seed: int = 0) -> Manifest:
    """Train on what is in `shared` and write the small bundle to `out`."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "model"
        data = [shared / "data" / name for name in DATA]
        told = {"arch": ARCH, "weights": str(shared / "weights" / WEIGHTS), "seed": seed, "out": whole}
        train_learner(data, **read_config("scenes")[0] | told)
        return shrink_bundle(whole, out)


def main() -> None:
    """Read the command's arguments, train, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(maskfast.bundle.__file__).parent / "small")
    told = parser.parse_args()
    manifest = train_small_model(told.shared, told.out, seed=told.seed)
    print(f"{told.out}: {sum(path.stat().st_size for path in told.out.iterdir())} bytes, {manifest.metrics}")


if __name__ == "__main__":
    main()
