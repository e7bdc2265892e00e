import tracemalloc
from pathlib import Path

import pytest
from hostile import CASES, Case, render_page

from maskfast.apps.cli.main import run
from maskfast.data import audit, audit_page, tables  # noqa: F401  imported before memory is counted

ALL = [case for cases in CASES.values() for case in cases]
PAGE = Path(__file__).parents[2] / "docs" / "hostile-inputs.md"


def list_files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "cache" not in path.relative_to(folder).parts}


@pytest.mark.faults
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.title)
def test_hostile_input(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    data = case.make(tmp_path / "data")
    before = list_files(tmp_path)
    tracemalloc.start()
    code = run(["audit", str(data), "--quiet"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    printed = capsys.readouterr()
    assert code == case.code, printed
    assert case.answer in (printed.err if code == 2 else printed.out)
    assert "Traceback" not in printed.err
    assert printed.err.count("\n") == (1 if code == 2 else 0)
    assert list_files(tmp_path) == before
    if code == 2:
        assert not [path for path in (tmp_path / "cache").rglob("*.png") if "archives" in path.parts]
    assert peak < 64 * 2**20


def test_the_page_lists_every_case() -> None:
    assert len(ALL) >= 25
    assert PAGE.read_text() == render_page()
