"""fastai's own tools work on our DataLoaders and Learner as on any other."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from fastai.interpret import ClassificationInterpretation
from fastai.learner import Learner
from fastai.torch_core import to_np
from sklearn.metrics import confusion_matrix
from toys import draw_toy

from maskfast.data.splits import split_items
from maskfast.data.tables import read_items
from maskfast.learn.blocks import make_dls
from maskfast.learn.learner import make_learner
from maskfast.score.explain import find_gradient_heat


@pytest.fixture(scope="module")
def learn(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKFAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = draw_toy(tmp_path_factory.mktemp("data") / "toy")
        dls = make_dls(split_items(read_items(data), valid=0.25), size=64, batch_size=8)
    learn = make_learner(dls, "simple_cnn", weights="none", optimizer="sgd")
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 1e-2)
    return learn


@pytest.fixture
def drawn() -> Iterator[list[object]]:
    """The figures that were shown."""
    import matplotlib.pyplot as plt

    with mpl.rc_context({"backend": "Agg"}):
        plt.close("all")
        figures: list[object] = []
        yield figures
        figures.clear()
        plt.close("all")


def count_pictures() -> int:
    import matplotlib.pyplot as plt

    return sum(bool(axes.images) for number in plt.get_fignums() for axes in plt.figure(number).axes)


@pytest.mark.usefixtures("drawn")
def test_show_batch_draws_pictures_and_show_results_their_answers(learn: Learner) -> None:
    learn.dls.show_batch(max_n=4)
    assert count_pictures() == 4
    learn.show_results(max_n=3)
    assert count_pictures() == 7


@pytest.mark.usefixtures("drawn")
def test_interpretation_counts_as_scikit_learn_does(learn: Learner) -> None:
    interpretation = ClassificationInterpretation.from_learner(learn)
    probs, targets = (to_np(part) for part in learn.get_preds(ds_idx=1))
    expected = confusion_matrix(targets, probs.argmax(1), labels=[0, 1])
    assert np.array_equal(interpretation.confusion_matrix(), expected)
    interpretation.plot_confusion_matrix()
    before = count_pictures()
    interpretation.plot_top_losses(2)
    assert count_pictures() == before + 2
    losses, _ = interpretation.top_losses()
    assert to_np(losses).tolist() == sorted(to_np(losses).tolist(), reverse=True)


def test_grad_cam_takes_the_learners_own_batches(learn: Learner) -> None:
    images = learn.dls.valid.one_batch()[0]
    heat = find_gradient_heat(learn.model, images)
    assert heat.shape == (len(images), 64, 64)
    assert 0 <= heat.min() <= heat.max() <= 1


def test_show_batch_needs_no_import_of_fastai(tmp_path: Path) -> None:
    data = draw_toy(tmp_path / "toy", count=8)
    script = (
        "import sys, matplotlib; matplotlib.use('Agg')\n"
        "from maskfast import make_dls, read_items\n"
        "items = read_items(sys.argv[1])\n"
        "items['split'] = ['train', 'valid'] * 4\n"
        "make_dls(items, size=32, batch_size=2).show_batch(nrows=1)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(data)], check=True, cwd=Path(__file__).parents[2])
