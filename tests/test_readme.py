"""Every command and every line of Python in the README, run in its order as a new user would, who has no extras."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PYTHON = shlex.quote(sys.executable)
SERVERS = ("maskfast serve",)
EXTRAS = ("pytorchcv", "ray", "accelerate", "tensorboard", "wandb", "pillow_heif", "gradio")


def read_steps(text: str) -> list[tuple[str, str]]:
    steps = []
    for language, body in BLOCK.findall(text):
        if language == "python":
            steps.append(("python", body))
        else:
            steps += [("console", line[2:]) for line in body.splitlines() if line.startswith("$ ")]
    return steps


def make_environment(folder: Path) -> dict[str, str]:
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({EXTRAS}))\n")
    path = os.pathsep.join([str(hidden), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "MASKFAST_CACHE": str(folder / "cache"), "COLUMNS": "120"}


def run_step(kind: str, step: str, folder: Path) -> str:
    environment = make_environment(folder)
    if kind == "python":
        command, cwd = [sys.executable, "-c", step], folder
    elif step.startswith("make "):
        command, cwd = ["make", "--dry-run", *shlex.split(step)[1:]], ROOT
    elif step.startswith("pip "):
        command, cwd = rewrite_pip(step), ROOT
    else:
        command, cwd = ["bash", "-euc", re.sub(r"\bmaskfast (?=[a-z-])", f"{PYTHON} -m maskfast ", step)], folder
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def rewrite_pip(step: str) -> list[str]:
    """Resolve what the step names without installing it over what is being tested."""
    words = [word.split(";")[0] for word in shlex.split(step)[2:]]
    options = ["--dry-run", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    return [sys.executable, "-m", "pip", "install", *options, *words]


def run_server(step: str, folder: Path) -> None:
    command = [sys.executable, "-m", "maskfast", *shlex.split(step)[1:]]
    server = subprocess.Popen(command, cwd=folder, env=make_environment(folder), stderr=subprocess.PIPE, text=True)
    try:
        assert wait_for_health(), "no answer from the server within a minute"
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0, server.communicate()[1]
    finally:
        server.kill()
        server.communicate()


def wait_for_health() -> bool:
    for _ in range(120):
        try:
            with urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.URLError:
            time.sleep(0.5)
    return False


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_every_step_of_the_readme_works(tmp_path: Path) -> None:
    steps = read_steps((ROOT / "README.md").read_text())
    assert {"make demo", "make test"} <= {step for _, step in steps}
    for kind, step in steps:
        if step.startswith(SERVERS):
            run_server(step, tmp_path)
            continue
        printed = run_step(kind, step, tmp_path)
        if step.startswith("maskfast demo"):
            assert read_accuracy(printed) >= 0.95


def read_accuracy(printed: str) -> float:
    return float(re.search(r"^accuracy +([0-9.]+)$", printed, re.MULTILINE)[1])  # type: ignore[index]


def test_what_a_plain_install_has_not_is_hidden(tmp_path: Path) -> None:
    for extra in EXTRAS:
        code = f"import importlib.util; print(importlib.util.find_spec({extra!r}))"
        assert run_step("python", code, tmp_path).strip() == "None"


def test_make_demo_is_the_demo_of_the_command_line() -> None:
    printed = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "maskfast demo --out demo" in printed.stdout
