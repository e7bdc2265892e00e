"""Folds trained side by side on Ray are those that are trained one after another."""

from importlib.util import find_spec

import pandas as pd
import pytest
import torch
from toys import draw_toy

from maskfast.apps.cli.main import run
from maskfast.learn.train import train_learner
from maskfast.score.loading import load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra maskfast[ray]"),
]
TOY = {"arch": "simple_cnn", "weights": "none", "size": 32, "epochs": 1, "batch_size": 8, "lr": 0.02, "folds": 2}


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_folds_on_ray_are_those_of_one_process(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MASKFAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("maskfast.apps.cluster.session.count_cores", lambda: 2)
    toy = draw_toy(tmp_path / "toy")
    train_learner(toy, **TOY, precision="fp32", out=tmp_path / "alone")
    flags = [text for name, value in TOY.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = ["train", str(toy), *flags, "--precision", "fp32", "--engine", "ray", "--out", str(tmp_path / "ray")]
    assert run(command) == 0, capsys.readouterr().err
    assert "fold 2/2 is trained" in capsys.readouterr().err
    answers = [pd.read_csv(tmp_path / name / "report" / "validation.csv") for name in ("alone", "ray")]
    pd.testing.assert_frame_equal(*answers, check_exact=True)
    alone, ray = load(tmp_path / "alone").manifest, load(tmp_path / "ray").manifest
    assert alone.metrics == ray.metrics
    for name in alone.weights:
        assert alone.sha256[name] == ray.sha256[name]
