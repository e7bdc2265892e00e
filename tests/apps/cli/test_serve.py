import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from serving import make_picture

from maskfast.apps.cli.main import run
from maskfast.apps.web.settings import ServeSettings


def test_an_address_beyond_loopback_needs_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--host", "0.0.0.0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--token" in error


@pytest.mark.parametrize("token", ["", " ", "geheim-ü", "two\nlines"])
def test_a_token_that_no_client_could_send_is_refused(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--token", token]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--token" in error


def test_blanks_around_a_token_are_none_of_it() -> None:
    token = ServeSettings(host="0.0.0.0", token=SecretStr(" sesame\n")).token
    assert token == SecretStr("sesame")


def test_a_taken_port_is_named(toy_bundle, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        before = signal.getsignal(signal.SIGTERM)
        try:
            assert run(["serve", "--model", str(toy_bundle), "--port", port]) == 2
        finally:
            signal.signal(signal.SIGTERM, before)
    assert f"--port {port}" in capsys.readouterr().err


def test_the_command_serves_a_bundle_and_ends_with_zero(toy_bundle) -> None:
    command = [sys.executable, "-m", "maskfast", "serve", "--model", str(toy_bundle), "--port", "0"]
    env = {**os.environ, "PYTHONWARNINGS": "error"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as server:
        line = server.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line + server.stderr.read()
        answer = httpx.post(f"{address[0]}/api/predict", files=[("files", ("a.png", make_picture(90)))])
        explained = httpx.post(f"{address[0]}/api/explain", files=[("files", ("a.png", make_picture(90)))])
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0
        assert server.stdout.read() == ""
    from maskfast.score.loading import load

    expected = load(toy_bundle).predict(make_picture(90))
    (row,) = answer.json()["results"]
    assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert row["label"] == expected.label
    assert explained.json()["result"] == row


def test_ctrl_c_while_the_decoders_start_ends_it_without_a_word(toy_bundle) -> None:
    command = [sys.executable, "-m", "maskfast", "serve", "--model", str(toy_bundle), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as server:
        children, deadline = Path(f"/proc/{server.pid}/task/{server.pid}/children"), time.monotonic() + 60
        while not any(os.getsid(int(child)) == int(child) for child in children.read_text().split()):
            if time.monotonic() > deadline:
                server.kill()
                pytest.fail("no decoder was started")
        os.killpg(server.pid, signal.SIGINT)  # as a terminal does: to all that run in its foreground
        news = server.stderr.read()
        assert server.wait(60) == 0, news
    assert "Traceback" not in news
    assert "ERROR" not in news


def test_a_second_ctrl_c_ends_it_at_once_with_one_line(toy_bundle) -> None:
    command = [sys.executable, "-m", "maskfast", "serve", "--model", str(toy_bundle), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        port = int(re.search(r":(\d+) ", server.stderr.readline())[1])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
            slow.sendall(b"Content-Length: 1000\r\n\r\nabc")
            assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
            server.send_signal(signal.SIGINT)
            wait_until_closed(port)
            server.send_signal(signal.SIGINT)
            news = server.stderr.read()
            assert server.wait(10) == 0
    assert news == "ended at once: requests that were under way got no answer\n"


def wait_until_closed(port: int) -> None:
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return
        time.sleep(0.01)
    pytest.fail("the server still takes connections")


def test_the_quiet_server_says_nothing(toy_bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "maskfast", "serve", "--model", str(toy_bundle), "--port", str(port), "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        for _ in range(200):
            try:
                model = httpx.get(f"http://127.0.0.1:{port}/api/model").json()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        server.terminate()
        assert server.wait(10) == 0
        assert server.stderr.read() == server.stdout.read() == ""
    assert json.dumps(model["classes"]) == '["no_mask", "mask"]'
