"""The notebooks run from their first cell to their last, small, on drawn pictures."""

import os
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_notebook(name: str, folder: Path) -> Any:
    nbformat = pytest.importorskip("nbformat", reason="pip install 'maskfast[notebooks]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install 'maskfast[notebooks]'")
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def list_outputs(notebook: Any) -> list[dict[str, Any]]:
    return [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKFAST_QUICK", "1")
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*(zmq|Proactor|event loop).*:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*jupyter.*:DeprecationWarning"),
]


def test_from_a_folder_to_a_submission(tmp_path: Path) -> None:
    notebook = run_notebook("from_folder_to_submission.ipynb", tmp_path)
    assert sum("image/png" in data for data in list_outputs(notebook)) >= 7, "every plot is there"
    sample = (tmp_path / "drawn" / "sample_submission.csv").read_text().splitlines()
    submission = (tmp_path / "submission.csv").read_text().splitlines()
    assert submission[0] == sample[0]
    assert [row.split(",")[0] for row in submission] == [row.split(",")[0] for row in sample]
    assert (tmp_path / "export" / "model" / "README.md").read_text().startswith("---\n")
    assert (tmp_path / "export" / "in-one-call" / "bundle.json").is_file()


def test_the_study_compares_six_networks_and_says_where_weights_are_missing(tmp_path: Path) -> None:
    notebook = run_notebook("backbone_study.ipynb", tmp_path)
    (table,) = [data["text/html"] for data in list_outputs(notebook) if "<table" in data.get("text/html", "")][-1:]
    for backbone in ("simple_cnn", "squeezenet1_1", "mobilenet_v2", "resnet34", "efficientnet_b0", "densenet121"):
        assert backbone in table
    assert table.count("<td>none</td>") == 6
