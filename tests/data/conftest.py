"""Small data sets on disk, drawn from a seed."""

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def make_picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shared() -> Path:
    """Return the folder of the real pictures."""
    if "MASKFAST_SHARED" not in os.environ:
        pytest.skip("MASKFAST_SHARED does not name the real pictures")
    return Path(os.environ["MASKFAST_SHARED"])


@pytest.fixture
def write_pictures(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes pictures of the given names below a folder and returns it."""

    def write(*names: str, folder: str = "data") -> Path:
        for seed, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            make_picture(seed).save(path)
        return tmp_path / folder

    return write


@pytest.fixture
def write_challenge(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a challenge folder with the given label table, zipped pictures or not."""

    def write(
        labels: str,
        *,
        sample: str = "",
        names: tuple[str, ...] = ("a.jpg", "b.png", "c.webp", "d.jpg"),
        zipped: bool = False,
        files: Mapping[str, bytes] | None = None,
    ) -> Path:
        folder = tmp_path / "challenge"
        images = folder / "images"
        images.mkdir(parents=True)
        for seed, name in enumerate(names):
            make_picture(seed).save(images / name)
        for name, content in (files or {}).items():
            (images / name).write_bytes(content)
        if zipped:
            with zipfile.ZipFile(folder / "images.zip", "w") as archive:
                for path in sorted(images.iterdir()):
                    archive.write(path, f"images/{path.name}")
                    path.unlink()
            images.rmdir()
        (folder / "train_labels.csv").write_bytes(labels.encode())
        if sample:
            (folder / "sample_submission.csv").write_text(sample)
        return folder

    return write
