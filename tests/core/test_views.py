import pytest

from maskfast.core.views import parse_view


def test_a_view_is_a_turn_and_a_size():
    assert parse_view("plain") == (False, None)
    assert parse_view("flip") == (True, None)
    assert parse_view("flip@256") == (True, 256)


@pytest.mark.parametrize(
    "name", ["", "plain@", "plain@31", "plain@1025", "plain@99999", "turn", "flip@-64", "flip@64 "]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="no view"):
        parse_view(name)
