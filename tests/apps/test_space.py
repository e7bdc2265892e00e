import os
import re
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from serving import make_picture

from maskfast.apps.cli.main import run
from maskfast.apps.space import GRADIO, write_space
from maskfast.core.errors import BundleError, ConfigError
from maskfast.score.loading import SMALL_MODEL, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def space(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("space") / "space"
    write_space(toy_bundle, out, title='Masks: "yes" or no?')
    return out


def test_the_model_answers_as_before_without_pickle_and_torch(space: Path, toy_bundle: Path) -> None:
    names = {path.relative_to(space / "model").as_posix() for path in (space / "model").rglob("*")}
    assert names <= {"bundle.json", "model.onnx", "README.md"}
    assert not list(space.rglob("*.pkl"))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    expected = load(toy_bundle, backend="onnx").predict_arrays(images)
    np.testing.assert_array_equal(load(space / "model").predict_arrays(images), expected)


def test_the_model_inside_the_package_makes_a_space(tmp_path: Path) -> None:
    write_space(SMALL_MODEL, tmp_path / "out")
    assert "`model.int8.onnx`" in (tmp_path / "out" / "README.md").read_text(), "the one it has"
    picture = make_picture(90)
    assert load(tmp_path / "out" / "model").predict(picture) == load(SMALL_MODEL).predict(picture)


def test_the_scoring_that_is_carried_along_stands_alone(space: Path, toy_bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(make_picture(90))
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'fastai', 'pandas', 'timm', 'matplotlib']))\n"
        "import maskfast; from maskfast import load; from maskfast.score.explain import explain\n"
        "model = load('model'); explain(model, sys.argv[1])\n"
        "print(maskfast.__file__, model.predict(sys.argv[1]).probability)"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(picture)], cwd=space, env=env, text=True, capture_output=True, check=True
    )
    home, probability = done.stdout.split()
    assert Path(home).is_relative_to(space)
    assert float(probability) == pytest.approx(load(toy_bundle).predict(picture).probability, abs=1e-7)


def test_the_card_is_what_the_hub_reads(space: Path) -> None:
    front = yaml.safe_load((space / "README.md").read_text().split("---\n")[1])
    assert front["title"] == 'Masks: "yes" or no?'
    assert (front["sdk"], front["sdk_version"], front["app_file"]) == ("gradio", GRADIO, "app.py")
    assert (space / front["app_file"]).is_file()
    assert "$" not in (space / "README.md").read_text()
    assert {"green", "gray"} == {front["colorFrom"], front["colorTo"]}


def test_the_requirements_are_pinned_to_what_is_here(space: Path) -> None:
    for line in (space / "requirements.txt").read_text().splitlines():
        name, pinned = line.split("==")
        assert version(name) == pinned
    assert f"gradio=={GRADIO}" in (ROOT / "setup.cfg").read_text()


def test_the_licence_travels_with_the_code(space: Path) -> None:
    assert (space / "maskfast" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_a_foreign_folder_is_kept_and_a_space_is_replaced(space: Path, toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(ConfigError, match="holds other things than a Space"):
        write_space(toy_bundle, tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "keep"
    write_space(toy_bundle, space, title='Masks: "yes" or no?')
    (space / ".git").mkdir()
    (space / ".git" / "HEAD").write_text("ref: refs/heads/main")
    with pytest.raises(ConfigError, match=r"holds \.git/HEAD, which is no part of a Space"):
        write_space(toy_bundle, space)
    assert (space / ".git" / "HEAD").exists()


def test_what_is_no_bundle_or_title_is_refused(toy_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        write_space(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ConfigError, match="--title"):
        write_space(toy_bundle, tmp_path / "out", title="a\nb")
    assert not (tmp_path / "out").exists()


def test_the_command_says_how_to_go_on(toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["space", str(tmp_path / "out"), "--model", str(toy_bundle)]) == 0
    assert "app.py" in capsys.readouterr().err
    assert (tmp_path / "out" / "app.py").is_file()


@pytest.mark.slow
def test_the_space_starts_as_it_is_and_answers(space: Path, toy_bundle: Path, tmp_path: Path) -> None:
    gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed: it is in the dev extra")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    keep = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env = {**keep, "GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    picture = tmp_path / "a.png"
    picture.write_bytes(make_picture(90))
    log = tmp_path / "log.txt"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            [sys.executable, "-u", str(space / "app.py")],
            cwd=tmp_path,
            env=env,
            stdout=stream,
            stderr=subprocess.STDOUT,
        ) as server,
    ):
        try:
            for _ in range(600):
                if server.poll() is not None or re.search(r"Running on local URL", log.read_text()):
                    break
                time.sleep(0.1)
            assert server.poll() is None, log.read_text()
            client = gradio_client.Client(f"http://127.0.0.1:{port}", verbose=False)
            label, words, heat = client.predict(gradio_client.handle_file(str(picture)), 0.5, True, api_name="/predict")
        finally:
            server.terminate()
    expected = load(toy_bundle).predict(picture).probability
    shown = {each["label"]: each["confidence"] for each in label["confidences"]}
    assert shown["mask"] == pytest.approx(expected, abs=1e-6)
    assert words == ("Somebody wears a mask." if expected >= 0.5 else "Nobody is seen wearing a mask.")
    with Image.open(heat) as shown_heat:
        assert shown_heat.size == (32, 32)
