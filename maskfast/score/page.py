"""The name of a template in, a jinja2 template out that escapes what it shows and shares the pages' look."""

from base64 import b64encode
from typing import Any


def read_template(name: str) -> Any:
    """Return the template `name` of maskfast/score/templates, with the filters `base64` and `thousands`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("maskfast.score", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda content: b64encode(content).decode()
    environment.filters["thousands"] = lambda number: f"{int(number):,}"
    return environment.get_template(name)
