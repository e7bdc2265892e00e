"""The command line as a whole: its verbs, and the modules they come from."""

import pytest

from maskfast.apps.cli.main import VERBS, make_app, run

ALL = [verb for verbs in VERBS.values() for verb in verbs]


def list_verbs(app):
    return [command.name or command.callback.__name__ for command in app.registered_commands]


def test_the_verbs_are_those_that_the_modules_add():
    assert list_verbs(make_app()) == ALL


@pytest.mark.parametrize("module", VERBS)
def test_a_verb_brings_its_own_module_alone(module):
    for verb in VERBS[module]:
        assert list_verbs(make_app(verb)) == list(VERBS[module])


def test_the_help_lists_every_verb(capsys):
    assert run([]) == 0
    shown = capsys.readouterr().out.split("Commands:")[1]
    assert [line.split()[0] for line in shown.splitlines() if line[:2] == "  " and line[2:3].strip()] == ALL


@pytest.mark.parametrize("verb", ALL)
def test_every_verb_has_its_help(verb, capsys):
    assert run([verb, "--help"]) == 0
    assert f" {verb} [OPTIONS]" in capsys.readouterr().out


def test_an_unknown_verb_is_one_line(capsys):
    assert run(["predct", "photo.jpg"]) == 2
    told = capsys.readouterr().err
    assert "predct" in told
    assert told.count("\n") == 1
