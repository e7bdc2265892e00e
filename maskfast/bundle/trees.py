"""An inert tree goes in, the entries and items of its objects come out: so many in all, however they are shared."""

from maskfast.bundle.pickles import Made, Pairs, Value
from maskfast.core.errors import BundleError

MAX_STEPS = 500_000
"""What is looked at of one file: about a second. An honest network has some 40 entries a layer."""


class TreeReader:
    """Reads objects of the tree of the file `name`.

    A small file may refer to one large list from thousands of places, so what is read is counted each time it is read.
    All raise BundleError where that is more than MAX_STEPS.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._left = MAX_STEPS

    def list_entries(self, value: Value) -> dict[str, Value]:
        """Return the text keys and values of a dictionary or an OrderedDict; none of anything else."""
        if not isinstance(value, Pairs | Made):
            return {}
        given = _first_argument(value)
        given = given if isinstance(given, list) else []
        self._spend(len(value.pairs) + len(given))
        pairs = [*value.pairs, *(item for item in given if isinstance(item, list | tuple) and len(item) == 2)]
        return {key: item for key, item in pairs if type(key) is str}

    def read_state(self, value: Value) -> dict[str, Value]:
        """Return the attributes of an object by name, none of a plain value."""
        return self.list_entries(value.state) if isinstance(value, Made) else {}

    def get(self, value: Value, *names: str) -> Value:
        """Return what lies under `names` in the states of nested objects, None where the way ends."""
        for name in names:
            value = self.read_state(value).get(name)
        return value

    def list_items(self, value: Value) -> list[Value]:
        """Return the items of a list, a tuple, or fastcore's L."""
        if isinstance(value, Made):
            value = value.items or self.get(value, "items") or _first_argument(value)
        if not isinstance(value, list | tuple):
            return []
        self._spend(len(value))
        return list(value)

    def _spend(self, steps: int) -> None:
        self._left -= 1 + steps
        if self._left < 0:
            raise BundleError(f"{self.name}: its objects have more than {MAX_STEPS} parts; no network needs so many")


def _first_argument(value: Value) -> Value:
    given = isinstance(value, Made) and isinstance(value.args, tuple) and value.args
    return value.args[0] if given else None
