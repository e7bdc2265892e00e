"""The exported names are exactly the documented ones, and `import maskfast` stays light."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import maskfast

REFERENCE = Path(__file__).parents[1] / "docs" / "reference.md"


def read_documented_names() -> set[str]:
    return set(re.findall(r"^### `maskfast\.(\w+)", REFERENCE.read_text(), re.MULTILINE))


def test_exported_names_are_the_documented_ones() -> None:
    assert read_documented_names() == set(maskfast.__all__)


def test_every_exported_name_can_be_used_and_has_a_docstring() -> None:
    for name in maskfast.__all__:
        value = getattr(maskfast, name)
        assert name == "__version__" or value.__doc__, name


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known() -> None:
    with pytest.raises(AttributeError, match="train_learner"):
        maskfast.no_such_name  # noqa: B018


def test_importing_maskfast_imports_nothing_heavy() -> None:
    code = "import maskfast, sys; print([m for m in ('torch', 'fastai', 'matplotlib', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
