from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from maskfast.core.image import open_image
from maskfast.data import fingerprints
from maskfast.data.duplicates import find_pairs, number_groups
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
    prints = measure_pictures(variants)
    pairs = find_pairs(prints)
    groups = number_groups(len(prints), pairs)
    assert len(set(groups[:5])) == 1
    assert len(set(groups)) == 4
    assert {(0, 4), (1, 4)} <= set(zip(pairs.first[pairs.mirrored], pairs.second[pairs.mirrored], strict=True))
    assert (np.diff(pairs.distance) >= 0).all()


def test_distances_are_those_of_imagehash(variants: list[str]) -> None:
    prints = measure_pictures(variants[:7])
    hashes = [
        imagehash.phash(open_image(path).convert("L").resize((64, 64), Image.Resampling.LANCZOS), 16)
        for path in variants[:7]
    ]
    pairs = find_pairs(prints, max_distance=256)
    assert len(pairs.first) == 21
    for first, second, distance, mirrored in zip(
        pairs.first, pairs.second, pairs.distance, pairs.mirrored, strict=True
    ):
        if not mirrored:
            assert distance == hashes[first] - hashes[second]


def test_tiles_do_not_change_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    base = chance.bytes(32).hex()
    hashes = [base if chance.random() < 0.3 else chance.bytes(32).hex() for _ in range(50)]
    prints = pd.DataFrame({"hash": hashes, "mirrored": [chance.bytes(32).hex() for _ in range(50)]})
    whole = find_pairs(prints)
    monkeypatch.setattr("maskfast.data.duplicates._TILE", 7)
    tiled = find_pairs(prints)
    same = [i for i, value in enumerate(hashes) if value == base]
    assert len(whole.first) == len(same) * (len(same) - 1) // 2
    for name in ("first", "second", "distance"):
        assert np.array_equal(getattr(whole, name), getattr(tiled, name))


def test_no_picture_and_one_picture(variants: list[str]) -> None:
    assert len(find_pairs(measure_pictures([])).first) == 0
    assert number_groups(1, find_pairs(measure_pictures(variants[:1]))).tolist() == [0]


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
