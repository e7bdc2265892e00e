"""What the tests of training share: a cache of their own, and small drawn data."""

from pathlib import Path

import pytest
import torch
from toys import draw_toy


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)  # toy networks are faster so, above all on a busy machine


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return draw_toy(tmp_path / "toy")
