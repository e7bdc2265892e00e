import io
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from toy_bundles import make_toy_draft, make_toy_network

from maskfast.bundle.network import build_network
from maskfast.bundle.store import write_bundle
from maskfast.core.errors import BundleError, ConfigError, ImageError
from maskfast.core.image import load_image
from maskfast.learn.validate import predict_logits
from maskfast.score import backends
from maskfast.score.loading import SMALL_MODEL, load
from maskfast.score.predictor import AHEAD, Predictor


@pytest.fixture(scope="module")
def predictor(toy_bundle):
    return load(toy_bundle)


@pytest.fixture(scope="module")
def images(picture_folder):
    return np.stack([load_image(path, 32) for path in sorted(picture_folder.iterdir())])


def score_by_hand(draft, images, member=0):
    """The oracle: fastai's arithmetic in plain torch, before the temperature."""
    network = build_network(draft.network).eval()
    network.load_state_dict(draft.state_dicts[member])
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255)
    pixels = (pixels - torch.tensor(draft.mean).view(3, 1, 1)) / torch.tensor(draft.std).view(3, 1, 1)
    with torch.no_grad():
        return network(pixels)


def test_probability_is_the_networks_after_the_temperature(predictor, toy_draft, images):
    logits = score_by_hand(toy_draft, images)
    assert predictor.backend.name == "onnx"
    np.testing.assert_allclose(predictor.logits_arrays(images), logits.numpy(), rtol=1e-5, atol=1e-5)
    expected = (logits / toy_draft.temperature).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(predictor.predict_arrays(images), expected, atol=5e-6)
    assert expected.std() > 0.05


def test_torch_agrees_with_onnx(predictor, toy_bundle, images):
    exact = load(toy_bundle, backend="torch-fp32").predict_arrays(images)
    np.testing.assert_allclose(exact, predictor.predict_arrays(images), atol=5e-6)
    np.testing.assert_allclose(load(toy_bundle, backend="torch").predict_arrays(images), exact, atol=0.02)


def scale(images, size):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    scaled = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1).numpy()


def test_views_are_averaged_as_logits_and_members_as_probabilities(tmp_path, images):
    draft = make_toy_draft(members=2, views=("plain", "flip", "plain@48"))
    write_bundle(tmp_path / "model", draft)
    views = (images, images[:, :, ::-1].copy(), scale(images, 48))
    logits = [torch.stack([score_by_hand(draft, view, member) for view in views]).mean(0) for member in (0, 1)]
    expected = torch.stack([(each / draft.temperature).softmax(1) for each in logits]).mean(0).numpy()
    for backend in ("onnx", "torch-fp32"):
        predictor = load(tmp_path / "model", backend=backend)
        np.testing.assert_allclose(predictor.predict_arrays(images), expected[:, 1], atol=5e-6)
        np.testing.assert_allclose(np.exp(predictor.logits_arrays(images)), expected, atol=5e-6)
        assert np.array_equal(predictor.predict_arrays(images, tta=True), predictor.predict_arrays(images))


def test_training_and_scoring_average_views_alike(tmp_path, images):
    draft = make_toy_draft(views=("flip", "plain@40", "flip@64"))
    write_bundle(tmp_path / "model", draft)
    network = build_network(draft.network)
    network.load_state_dict(draft.state_dicts[0])
    expected = predict_logits(network, images, mean=draft.mean, std=draft.std, views=draft.views)
    for backend in ("onnx", "torch-fp32"):
        found = load(tmp_path / "model", backend=backend)
        np.testing.assert_allclose(found.logits_arrays(images), expected, atol=1e-5)
        margin = (expected[:, 1] - expected[:, 0]) / draft.temperature
        np.testing.assert_allclose(found.predict_arrays(images), 1 / (1 + np.exp(-margin)), atol=1e-5)


def test_tta_averages_the_mirror_image(predictor, images):
    both = [predictor.predict_arrays(each) for each in (images, np.ascontiguousarray(images[:, :, ::-1]))]
    np.testing.assert_allclose(predictor.predict_arrays(images, tta=True), np.mean(both, axis=0), atol=1e-7)


def test_every_kind_of_source_gives_the_same_answer(predictor, picture_folder):
    path = picture_folder / "4.png"
    img = Image.open(path).convert("RGB")
    sources = [path, str(path), path.read_bytes(), img, np.asarray(img)]
    answers = [predictor.predict(source) for source in sources]
    assert len({answer.probability for answer in answers}) == 1
    assert answers[0].image == str(path)
    assert answers[0].label == ("mask" if answers[0].probability >= 0.4 else "no_mask")


def test_a_batch_keeps_order_and_bad_pictures(predictor, picture_folder):
    paths = sorted(picture_folder.iterdir())
    pairs = [(path.name, path) for path in paths]
    pairs[3:3] = [("gone.jpg", picture_folder / "gone.jpg"), ("junk", b"no picture")]
    rows = list(predictor.predict_many(pairs, batch_size=4))
    assert [row.image for row in rows] == [name for name, _ in pairs]
    assert [row.status for row in rows].count("failed") == 2
    assert rows[3].probability is None
    assert rows[3].label == ""
    assert "no such file" in rows[3].reason
    for row, (name, source) in zip(rows, pairs, strict=True):
        if row.status == "ok":
            assert row.probability == pytest.approx(predictor.predict(source).probability, abs=1e-6), name


def test_pictures_are_named_by_themselves_or_by_their_pair(predictor, picture_folder):
    path = picture_folder / "4.png"
    given = [path, str(path), path.read_bytes(), ("it", path), ("it", Image.open(path).convert("RGB")), "no", "ab"]
    rows = list(predictor.predict_many(given))
    assert [row.image for row in rows] == [str(path), str(path), "<bytes>", "it", "it", "no", "ab"]
    assert len({row.probability for row in rows[:5]}) == 1
    assert [row.reason for row in rows[5:]] == ["no such file or directory"] * 2
    assert list(predictor.predict_many([])) == []


@pytest.mark.parametrize("given", ["photo.jpg", b"GIF89a", Image.new("RGB", (9, 9)), [("a", "b", "c")], [(1, "b")]])
def test_what_is_no_list_of_pictures_is_refused(predictor, given):
    with pytest.raises(ConfigError, match=r"is one picture; give a list|give pictures, or tuples of a name and a pict"):
        list(predictor.predict_many(given))


def test_no_pictures_have_no_answers():
    small = load(SMALL_MODEL)
    none = np.zeros((0, small.size, small.size, 3), np.uint8)
    assert small.predict_arrays(none).shape == small.predict_arrays(none, tta=True).shape == (0,)
    assert small.logits_arrays(none).shape == (0, 2)


class FakeBackend:
    """Answers what it is told to, whatever the pictures."""

    name, lanes = "fake", 1

    def __init__(self, logits, probability):
        self.scores = np.zeros(logits, np.float32), np.array(probability, np.float32)

    def run(self, _):
        return self.scores


@pytest.mark.parametrize(
    ("logits", "probability", "message"),
    [
        ((3, 2), [0.5, 0.5, 0.5], r"gave logits \(3, 2\) and probabilities \(3,\) for 2 pictures"),
        ((1, 2), [0.5], "gave .* for 2 pictures"),
        ((2, 2), [[0.5], [0.5]], "gave .* for 2 pictures"),
        ((2, 2), [0.5, np.nan], "gave a value that is not finite"),
        ((2, 2), [65, 0.5], "gave the probability 65;"),
        ((2, 2), [-0.25, 0.5], "gave the probability -0.25;"),
    ],
)
def test_answers_that_cannot_be_are_refused(predictor, picture_folder, logits, probability, message):
    broken = Predictor(predictor.manifest, FakeBackend(logits, probability), folder="model")
    with pytest.raises(BundleError, match=f"model: fake {message}.* the model is broken"):
        list(broken.predict_many([picture_folder / "0.jpg", picture_folder / "1.png"]))


def test_a_probability_beyond_one_by_rounding_is_one(predictor, images):
    rounded = Predictor(predictor.manifest, FakeBackend((2, 2), [1.0000001, -1e-7]))
    assert rounded.predict_arrays(images[:2]).tolist() == [1, 0]


@pytest.mark.parametrize(("lanes", "most"), [(1, 16), (2, 4 * (AHEAD + 1) * 2)])
def test_a_batch_is_read_lazily(lanes, most, predictor, monkeypatch):
    monkeypatch.setattr(predictor.backend, "lanes", lanes)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    taken = 0

    def count():
        nonlocal taken
        while True:
            taken += 1
            yield str(taken), buffer.getvalue()

    rows = predictor.predict_many(count(), batch_size=4)
    assert next(rows).image == "1"
    assert taken <= most


def test_one_bad_picture_is_one_error(predictor):
    with pytest.raises(ImageError, match="<bytes>"):
        predictor.predict(b"no picture")


def test_a_wrong_batch_is_refused(predictor):
    with pytest.raises(ConfigError, match="size 32"):
        predictor.predict_arrays(np.zeros((1, 16, 16, 3), np.uint8))


def test_a_missing_file_says_why(toy_bundle, tmp_path):
    write_bundle(tmp_path / "model", make_toy_draft(onnx=False))
    assert load(tmp_path / "model").backend.name == "torch-fp32"
    with pytest.raises(BundleError, match=r"model\.onnx: this bundle has no such file"):
        load(tmp_path / "model", backend="onnx")
    with pytest.raises(ConfigError, match="unknown"):
        load(toy_bundle, backend="abacus")
    with pytest.raises(BundleError, match="nowhere: is no bundle folder"):
        load(tmp_path / "nowhere")


def test_load_writes_nothing(toy_bundle, tmp_path):
    folder = shutil.copytree(toy_bundle, tmp_path / "model")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    for backend in ("onnx", "torch"):
        load(folder, backend=backend)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_scoring_imports_neither_torch_nor_fastai_nor_pandas(toy_bundle, picture_folder):
    code = (
        "import sys\n"
        "from maskfast import load\n"
        f"assert 0 <= load({str(toy_bundle)!r}).predict({str(picture_folder / '0.jpg')!r}).probability <= 1\n"
        "print(sorted({'torch', 'fastai', 'matplotlib', 'pandas', 'onnx', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_bfloat16_folds_batch_norms_where_it_can_be_traced():
    from maskfast.bundle.scorer import fold_norms

    _, network = make_toy_network()
    fused = fold_norms(network)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(fused(images), network(images), rtol=1e-4, atol=1e-4)
    kinds = [type(each).__name__ for each in fused.modules()]
    assert "BatchNorm2d" not in kinds

    class Moody(torch.nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    moody = Moody()
    assert fold_norms(moody) is moody


def test_lanes_keep_order_and_answers(monkeypatch, picture_folder):
    monkeypatch.setattr(backends, "count_cores", lambda: 3)
    monkeypatch.setattr(backends, "LANE_IMAGES", 4)
    monkeypatch.setattr("maskfast.score.predictor.LANE_IMAGES", 4)
    small = load(SMALL_MODEL, backend="int8")
    assert small.backend.lanes == 3
    assert small.backend.lane.lanes == 1
    paths = sorted(picture_folder.iterdir())
    pairs = [(f"{number}", paths[number % len(paths)]) for number in range(30)]
    pairs[5] = ("junk", b"no picture")
    rows = list(small.predict_many(pairs))
    assert [row.image for row in rows] == [name for name, _ in pairs]
    assert rows[5].status == "failed"
    for row, (_, source) in zip(rows, pairs, strict=True):
        if row.status == "ok":
            assert row.probability == pytest.approx(small.predict(source).probability, abs=1e-5)
    arrays = np.stack([load_image(source, small.size, small.method) for _, source in pairs if source != b"no picture"])
    answers = [row.probability for row in rows if row.status == "ok"]
    np.testing.assert_allclose(small.predict_arrays(arrays), answers, atol=1e-5)


@pytest.mark.parametrize("backend", ["int8", "onnx", "torch-fp32", "torch"])
def test_the_rest_of_many_is_answered_as_among_all(backend, monkeypatch, toy_bundle, picture_folder):
    monkeypatch.setattr(backends, "count_cores", lambda: 2)
    paths = sorted(picture_folder.iterdir())
    pairs = [(f"{number}", paths[number % len(paths)]) for number in range(40)]
    predictor, seen = load(toy_bundle, backend=backend), []
    assert predictor.backend.lanes == 2
    together, lane = predictor.backend, predictor.backend.lane
    run = type(lane).run
    monkeypatch.setattr(type(lane), "run", lambda self, images: seen.append(self) or run(self, images))
    rows = list(predictor.predict_many(pairs))
    assert seen
    assert together not in seen
    assert list(predictor.predict_many(pairs[32:], total=40)) == rows[32:]
    assert [row.image for row in predictor.predict_many(iter(pairs[39:]), total=40)] == ["39"]


def test_a_lane_of_torch_leaves_the_threads_of_others_alone(monkeypatch, toy_bundle, toy_draft):
    monkeypatch.setattr(backends, "count_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predictor = load(toy_bundle, backend="torch-fp32")
        images = np.tile(toy_draft.check_images[:1], (2 * backends.LANE_IMAGES, 1, 1, 1))
        np.testing.assert_allclose(predictor.predict_arrays(images), predictor.predict_arrays(images[:1])[0], atol=1e-5)
        predictor.backend.lane.run(images[:2])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_torch_takes_no_more_threads_than_the_container_gives_cores(monkeypatch, toy_bundle, toy_draft):
    monkeypatch.setattr(backends, "count_cores", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        backend, seen = load(toy_bundle, backend="torch-fp32").backend, []
        backend._scorer.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        backend.run(toy_draft.check_images[:1])
        backend.lane.run(toy_draft.check_images[:1])
        assert seen == [2, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_lanes_are_the_model_that_was_verified(monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "count_cores", lambda: 2)
    shutil.copytree(SMALL_MODEL, tmp_path / "model")
    small = load(tmp_path / "model", backend="int8")
    (tmp_path / "model" / "model.int8.onnx").write_bytes(b"of a later training")
    images = np.zeros((2 * backends.LANE_IMAGES, small.size, small.size, 3), np.uint8)
    np.testing.assert_allclose(small.predict_arrays(images), small.predict_arrays(images[:1])[0], atol=1e-5)
