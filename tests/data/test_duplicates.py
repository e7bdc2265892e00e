import tracemalloc
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from maskfast.core.image import open_image
from maskfast.data import fingerprints
from maskfast.data.duplicates import match_pictures
from maskfast.data.fingerprints import measure_pictures
from maskfast.data.splits import add_groups
from maskfast.data.tables import read_items


def draw(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((300, 260), Image.Resampling.BICUBIC)


@pytest.fixture
def variants(tmp_path: Path) -> list[str]:
    """Five files of one photo, two others, and one that is broken."""
    photo = draw(0)
    photo.save(tmp_path / "0.png")
    photo.save(tmp_path / "1.jpg", quality=40)
    photo.resize((80, 70)).save(tmp_path / "2.webp")
    ImageEnhance.Brightness(photo).enhance(0.6).save(tmp_path / "3.png")
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "4.png")
    draw(1).save(tmp_path / "5.png")
    draw(2).save(tmp_path / "6.png")
    (tmp_path / "7.jpg").write_bytes(b"\xff\xd8\xff broken")
    return [str(path) for path in sorted(tmp_path.glob("?.*"))]


def test_one_photo_in_many_forms_is_one_group(variants: list[str]) -> None:
    matches = match_pictures(measure_pictures(variants))
    assert len(set(matches.group[:5])) == 1
    assert len(set(matches.group)) == 4
    assert matches.nearest.tolist()[0] == -1
    assert (matches.nearest[1:5] >= 0).all()
    assert matches.nearest.tolist()[5:] == [-1, -1, -1]
    assert matches.mirrored.tolist() == [False] * 4 + [True] + [False] * 3


def test_distances_are_those_of_imagehash(variants: list[str]) -> None:
    greys = [open_image(path).convert("L").resize((64, 64), Image.Resampling.LANCZOS) for path in variants[:7]]
    plain = [imagehash.phash(grey, 16) for grey in greys]
    turned = [imagehash.phash(grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 16) for grey in greys]
    matches = match_pictures(measure_pictures(variants[:7]), max_distance=256)
    assert len(set(matches.group)) == 1
    for row in range(1, 7):
        expected = min(min(plain[row] - plain[other], plain[other] - turned[row]) for other in range(row))
        assert matches.distance[row] == expected


def test_tiles_and_copies_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    base = [chance.bytes(32).hex() for _ in range(3)]
    hashes = [base[int(chance.integers(3))] if chance.random() < 0.6 else chance.bytes(32).hex() for _ in range(60)]
    hashes[7] = ""
    prints = pd.DataFrame({"hash": hashes, "mirrored": [chance.bytes(32).hex() for _ in range(60)]})
    whole = match_pictures(prints)
    for side in (1, 7, 59):
        monkeypatch.setattr("maskfast.data.duplicates._TILE", side)
        tiled = match_pictures(prints)
        assert np.array_equal(whole.nearest, tiled.nearest)
        assert len(set(zip(whole.group, tiled.group, strict=True))) == len(set(whole.group))
    for value in base:
        rows = [row for row, other in enumerate(hashes) if other == value]
        assert whole.nearest[rows].tolist() == [-1] + [rows[0]] * (len(rows) - 1)
    assert whole.nearest[7] == -1


@pytest.mark.parametrize("alike", [0, 2])
def test_thousands_of_copies_take_no_more_memory(monkeypatch: pytest.MonkeyPatch, alike: int) -> None:
    monkeypatch.setattr("maskfast.data.duplicates._TILE", 256)
    chance = np.random.default_rng(0)
    tails = [chance.bytes(alike).hex() for _ in range(3000)]
    prints = pd.DataFrame({"hash": ["ab" * (32 - alike) + tail for tail in tails], "mirrored": ["cd" * 32] * 3000})
    tracemalloc.start()
    matches = match_pictures(prints)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(matches.group) == {0}
    assert peak < 40 * 2**20  # the 4.5 million pairs alone would be 144 MB


def test_no_picture_and_one_picture(variants: list[str]) -> None:
    assert match_pictures(measure_pictures([])).group.tolist() == []
    assert match_pictures(measure_pictures(variants[:1])).group.tolist() == [0]


def test_measures(tmp_path: Path) -> None:
    Image.new("L", (50, 50), 8).save(tmp_path / "dark.png")
    noise = np.random.default_rng(0).integers(0, 256, (128, 128), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "sharp.png")
    prints = measure_pictures([str(tmp_path / "dark.png"), str(tmp_path / "sharp.png")])
    assert prints["brightness"].tolist() == [8, pytest.approx(noise.mean(), abs=0.01)]
    assert prints["contrast"].tolist() == [0, pytest.approx(noise.std(), abs=0.01)]
    assert prints["sharpness"][0] == 0
    assert prints["sharpness"][1] > 10_000


def test_prints_are_remembered_until_the_file_changes(variants: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = measure_pictures(variants)
    asked: list[str] = []
    really = fingerprints.measure_picture
    monkeypatch.setattr(fingerprints, "measure_picture", lambda path: asked.append(path) or really(path))
    pd.testing.assert_frame_equal(measure_pictures(variants), before)
    assert asked == []
    draw(9).save(variants[0])
    assert measure_pictures(variants)["sha1"][0] != before["sha1"][0]
    assert asked == variants[:1]


def test_add_groups_refuses_what_cannot_be_read(write_challenge: Callable[..., Path]) -> None:
    folder = write_challenge(
        "image,target\na.jpg,1\nb.png,0\nbad.jpg,1\nnone.jpg,0\n", files={"bad.jpg": b"\xff\xd8\xff broken"}
    )
    items = add_groups(read_items(folder))
    assert items["status"].tolist() == ["ok", "ok", "refused", "missing"]
    assert items["reason"][2] == "its header is broken"
    assert items["group"].notna().tolist() == [True, True, False, False]
    assert items["group"][0] != items["group"][1]
