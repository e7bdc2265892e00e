"""docs/data.md says what the code does."""

from pathlib import Path

from maskfast.core.image import DRAFT_MARGIN, MAX_PIXELS
from maskfast.data import audit
from maskfast.data.crops import MARGIN, MIN_SIZE
from maskfast.data.duplicates import MAX_DISTANCE
from maskfast.data.fingerprints import HASH_SIDE

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_every_finding_is_explained() -> None:
    rows = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("|"))
    named = {name.strip() for name in rows.replace("  ", ", ").split(",")}
    assert named >= set(audit.FINDINGS)


def test_the_figures_are_those_of_the_code() -> None:
    for text in (
        f"of {HASH_SIDE**2} bits differs in at most {MAX_DISTANCE}",
        f"mean grey below {audit.DARK:g}; its deviation below {audit.FLAT:g};",
        f"below {audit.BLURRED:g} |",
        f"the shorter side below {audit.SMALL} pixels",
        f"beyond {audit.OUTLIER:g} interquartile ranges",
        f"[--margin {MARGIN:g}] [--min-size {MIN_SIZE}]",
        f"{MAX_PIXELS // 10**6} million pixels",
    ):
        assert text in " ".join(PAGE.split()), text
    assert DRAFT_MARGIN == 1.5
    assert "1.5 times the pixels" in " ".join(PAGE.split())
