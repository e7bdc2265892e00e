import re
from pathlib import Path

from typer.main import get_command

from maskfast.apps.cli.main import make_app
from maskfast.apps.web.openapi import describe_api

TEXT = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def test_every_option_in_the_documentation_exists() -> None:
    commands = get_command(make_app()).commands  # type: ignore[attr-defined]
    lines = re.findall(r"^    maskfast (serve|watch|space)(.*?)(?:#.*)?$", TEXT, re.MULTILINE)
    assert {verb for verb, _ in lines} == {"serve", "watch", "space"}
    for verb, rest in lines:
        known = {option for param in commands[verb].params for option in param.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, verb


def test_every_endpoint_is_documented() -> None:
    assert [path for path in describe_api()["paths"] if path not in TEXT] == []
