import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from maskfast.data.audit import Audit, audit_items, clean_items, describe_items
from maskfast.data.audit_page import render_audit, write_audit
from maskfast.data.tables import read_items


def draw(seed: int, size: tuple[int, int] = (200, 180)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def found(write_challenge: Callable[..., Path]) -> Audit:
    """The audit of a folder with one of everything that can be wrong."""
    names = [f"plain{number}.png" for number in range(8)]
    more = [
        "copy.png",
        "small_copy.jpg",
        "other_label.png",
        "dark.png",
        "flat.png",
        "blurred.png",
        "tiny.png",
        "wrong.jpg",
    ]
    rows = [f"{name},{number % 2}" for number, name in enumerate(names + more)]
    rows[8], rows[9], rows[10] = "copy.png,0", "small_copy.jpg,0", "other_label.png,0"
    rows += ["broken.jpg,1", "none.jpg,0", "plain2.png,0", "@x.png,1"]
    sample = "image,target\nleak.png,0\n"
    folder = write_challenge("image,target\n" + "\n".join(rows) + "\n", sample=sample, names=())
    images = folder / "images"
    for seed, name in enumerate(names):
        draw(seed).save(images / name)
    (images / "copy.png").write_bytes((images / "plain0.png").read_bytes())
    draw(0).resize((100, 90)).save(images / "small_copy.jpg")
    draw(1).save(images / "other_label.png", compress_level=1)
    Image.fromarray(np.asarray(draw(20)) // 8).save(images / "dark.png")
    Image.fromarray((np.asarray(draw(21)) // 16 + 120).astype(np.uint8)).save(images / "flat.png")
    draw(22).resize((5, 5)).resize((200, 180), Image.Resampling.BICUBIC).save(images / "blurred.png")
    draw(23, (20, 20)).save(images / "tiny.png")
    draw(24).save(images / "wrong.jpg", "PNG")
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    draw(25, (1200, 60)).save(images / "@x.png")
    draw(3).save(images / "leak.png", compress_level=1)
    return audit_items(read_items(folder))


def names_of(found: Audit, finding: str) -> list[str]:
    return found.findings.loc[found.findings["finding"] == finding, "image"].tolist()


@pytest.mark.parametrize(
    ("finding", "names"),
    [
        ("missing", ["none.jpg"]), ("refused", ["broken.jpg"]), ("conflict", ["plain1.png", "other_label.png"]),
        ("duplicate row", ["plain2.png"]), ("exact duplicate", ["copy.png"]), ("leak", ["leak.png"]),
        ("dark", ["dark.png"]), ("small", ["tiny.png"]),
        ("odd format", ["wrong.jpg"]), ("odd shape", ["@x.png"]),
    ],
)  # fmt: skip
def test_every_fault_is_found_once(found: Audit, finding: str, names: list[str]) -> None:
    assert names_of(found, finding) == names


def test_more_findings(found: Audit) -> None:
    assert {"small_copy.jpg", "other_label.png", "leak.png"} <= set(names_of(found, "near-duplicate"))
    assert "flat.png" in names_of(found, "flat")
    assert "blurred.png" in names_of(found, "blurred")
    assert "tiny.png" in names_of(found, "odd size")


def test_the_summary_adds_up(found: Audit) -> None:
    summary = json.loads(json.dumps(found.summary))
    assert summary["pictures"] == 21
    assert summary["status"] == {"ok": 18, "refused": 1, "missing": 1, "duplicate": 1}
    assert sum(summary["classes"].values()) == 18
    assert summary["formats"] == {"PNG": 17, "JPEG": 1}
    sizes = found.items.loc[found.items["status"] == "ok", "width"]
    assert summary["width"]["median"] == np.median(sizes)
    assert summary["findings"] == {**summary["findings"], **Counter(found.findings["finding"])}


def test_the_line_names_what_matters(found: Audit) -> None:
    line = describe_items(found.items)
    assert line.startswith("17 labelled pictures")
    for part in ("1 missing", "1 refused", "1 duplicate", "2 stand in two of train, valid and test"):
        assert part in line


def test_the_clean_table_can_be_trained_on(found: Audit, tmp_path: Path) -> None:
    clean_items(found).to_csv(tmp_path / "clean.csv", index=False)
    items = read_items(tmp_path / "clean.csv")
    assert (items["status"] == "ok").all()
    names = {Path(path).name for path in items["path"]}
    assert "plain0.png" in names
    assert names.isdisjoint({"copy.png", "plain1.png", "other_label.png", "broken.jpg", "none.jpg", "leak.png"})


def test_the_files_hold_all_findings_and_no_formula(found: Audit, tmp_path: Path) -> None:
    written = write_audit(found, tmp_path / "out")
    assert [path.name for path in written] == ["audit.html", "findings.csv", "pictures.csv", "audit.json"]
    findings = pd.read_csv(tmp_path / "out" / "findings.csv")
    assert len(findings) == len(found.findings)
    assert "./@x.png" in set(findings["image"])
    text = (tmp_path / "out" / "pictures.csv").read_text()
    assert not re.search(r"(^|,)[=+@]", text, re.MULTILINE)


def test_the_page_stands_alone_and_escapes_names(write_pictures: Callable[..., Path]) -> None:
    folder = write_pictures("mask/<img src=x onerror=alert(1)>.png", "no_mask/b.png")
    page = render_audit(audit_items(read_items(folder)))
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)
    assert page.count("data:image/jpeg;base64,") >= 2


@pytest.mark.shared
@pytest.mark.slow
def test_all_exact_duplicates_of_spot_the_mask_are_found(shared: Path) -> None:
    items = read_items(shared / "data" / "spot-the-mask")
    found = audit_items(items)
    digests = Counter(hashlib.sha1(Path(path).read_bytes()).hexdigest() for path in items["path"])
    exact = found.findings[found.findings["finding"] == "exact duplicate"]
    assert len(exact) == sum(count - 1 for count in digests.values())
    for row in exact.itertuples():
        assert Path(row.path).read_bytes() == Path(row.other).read_bytes()
    sha1 = found.items["sha1"]
    assert found.items.groupby(sha1)["group"].nunique().max() == 1
