import io

import numpy as np
from PIL import Image

from maskfast.apps.web.heat import MAX_ALPHA, colour_heat


def paint(values: list[float]) -> np.ndarray:
    with Image.open(io.BytesIO(colour_heat(np.array([values], np.float32)))) as image:
        return np.asarray(image)[0].astype(int)


def test_more_heat_is_brighter_and_less_transparent() -> None:
    colours = paint([0, 0.3, 0.6, 1])
    assert (np.diff(colours[:, 3]) > 0).all()
    assert (np.diff(colours[:, :3].sum(axis=1)) > 0).all()
    assert colours[0, 3] == 0
    assert colours[-1, 3] == MAX_ALPHA


def test_faint_heat_leaves_the_picture_clear_and_values_beyond_the_range_are_bounded() -> None:
    colours = paint([0.1, -3, 7])
    assert list(colours[:, 3]) == [0, 0, MAX_ALPHA]
