"""The light install: scoring and serving in an environment that has neither torch nor fastai."""

import configparser
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import maskfast

ROOT = Path(maskfast.__file__).parent.parent
REQUIREMENTS = ROOT / "maskfast" / "requirements-score.txt"
MAX_MEGABYTES = 400
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from maskfast.apps.cli.main import run
sys.exit(run(sys.argv[1:]))
"""
HEAVY = {
    "torch",
    "torchvision",
    "fastai",
    "fastcore",
    "timm",
    "matplotlib",
    "sklearn",
    "scipy",
    "onnx",
    "pyarrow",
    "safetensors",
}


def name_package(line):
    return re.split("[>=;]", line)[0].strip()


def read_lines(path):
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_the_light_requirements_are_a_part_of_all():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    everything = {name_package(line) for line in setup["options"]["install_requires"].splitlines() if line}
    light = {name_package(line) for line in read_lines(REQUIREMENTS)}
    assert light < everything
    assert not light & HEAVY


def run_without(blocked, *args):
    command = [sys.executable, "-c", BLOCKER.format(blocked=blocked), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_scoring_needs_nothing_heavy(toy_bundle, picture_folder, tmp_path):
    (tmp_path / "sample_submission.csv").write_text("image,target\n0.jpg,0\n3.jpg,0\n")
    (tmp_path / "images").symlink_to(picture_folder)
    for args in (
        ["predict", picture_folder, "--out", tmp_path / "rows.csv"],
        ["predict", picture_folder / "0.jpg", "--json"],
        ["submit", tmp_path, "--out", tmp_path / "submission.csv"],
    ):
        done = run_without(HEAVY, *args, "--model", toy_bundle)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["predict", "{picture}", "--model", "{model}", "--backend", "torch"], "torch is not installed"),
        (["predict", "{picture}", "--model", "{model}", "--out", "rows.parquet"], "pip install pyarrow"),
        (["train", "nowhere", "--weights", "none"], "is not installed; pip install"),
    ],
)
def test_what_needs_more_says_which_command(toy_bundle, picture_folder, args, message):
    told = [each.format(picture=picture_folder / "0.jpg", model=toy_bundle) for each in args]
    done = run_without(HEAVY, *told)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_fresh_environment_scores_within_the_bound(toy_bundle, picture_folder, tmp_path):
    venv.create(tmp_path / "light", with_pip=True)
    python = tmp_path / "light" / "bin" / "python"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["-c", ROOT / "constraints.txt"] if (ROOT / "constraints.txt").exists() else []
    needed = subprocess.run(
        [*pip, *constraints, "-r", REQUIREMENTS], capture_output=True, text=True, env=environment, check=False
    )
    if needed.returncode and re.search("Could not find a version|connection|No matching", needed.stderr):
        pytest.skip("no package index can be reached here")
    assert needed.returncode == 0, needed.stderr
    subprocess.run([*pip, "--no-deps", ROOT], env=environment, check=True, capture_output=True)
    site = next((tmp_path / "light" / "lib").glob("python*/site-packages"))
    assert not {path.name for path in site.iterdir()} & HEAVY
    size = sum(path.lstat().st_size for path in (tmp_path / "light").rglob("*"))
    assert size <= MAX_MEGABYTES * 2**20
    command = [python.with_name("maskfast"), "predict", picture_folder, "--model", toy_bundle]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 13
