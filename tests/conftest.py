"""What tests of several floors share: a toy network as a bundle, and a few drawn pictures."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_bundles import make_toy_draft

from maskfast.core.cores import count_cores


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several test processes, and the programs it starts, its part of the cores.

    Threads of several processes that wait for one another on the same cores cost several times what they gain.
    """
    if processes := config.getoption("numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // processes)))
    # At Ray's own niceness of 15 its workers stand still while other tests compute.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  as Ray spells it


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the whole walks beside this file: they take longest, and nobody should wait for them alone.

    Of tests of one name several processes would run a single one, so there may be none.
    """
    names = Counter(item.nodeid for item in items)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise pytest.UsageError(f"several tests are called {repeated[0]}")
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.fixture(scope="session")
def toy_draft():
    return make_toy_draft()


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory, toy_draft) -> Path:
    """A whole bundle with its ONNX files; read it, never change it."""
    from maskfast.bundle.store import write_bundle

    folder = tmp_path_factory.mktemp("toy") / "model"
    write_bundle(folder, toy_draft)
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory) -> Path:
    """Twelve drawn pictures of several formats and sizes; read it, never change it."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(12):
        small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        suffix = ("jpg", "png", "webp")[index % 3]
        Image.fromarray(small).resize((50 + 9 * index, 90), Image.Resampling.BICUBIC).save(folder / f"{index}.{suffix}")
    return folder
