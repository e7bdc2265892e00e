"""What people call the two classes: a spelling goes in, 1 (mask), 0 (no mask) or None (not known) comes out."""

import math
import re

CLASSES = ("no_mask", "mask")
"""The classes in the order of their index."""

SPELLINGS: dict[str, int] = {
    "mask": 1,
    "masks": 1,
    "masked": 1,
    "with mask": 1,
    "withmask": 1,
    "face mask": 1,
    "facemask": 1,
    "face with mask": 1,
    "wearing mask": 1,
    "wearing a mask": 1,
    "mask on": 1,
    "has mask": 1,
    "incorrect mask": 1,
    "mask worn incorrectly": 1,
    "mask weared incorrect": 1,
    "face with mask incorrect": 1,
    "true": 1,
    "yes": 1,
    "y": 1,
    "t": 1,
    "positive": 1,
    "no mask": 0,
    "nomask": 0,
    "without mask": 0,
    "withoutmask": 0,
    "unmasked": 0,
    "un masked": 0,
    "not masked": 0,
    "no masks": 0,
    "non mask": 0,
    "nonmask": 0,
    "no face mask": 0,
    "face no mask": 0,
    "face without mask": 0,
    "not wearing mask": 0,
    "not wearing a mask": 0,
    "mask off": 0,
    "none": 0,
    "false": 0,
    "no": 0,
    "n": 0,
    "f": 0,
    "negative": 0,
}
"""Spellings of the classes, as `fold_spelling` writes them; a badly worn mask is worn."""

BOX_CLASSES: dict[str, str] = {
    # Kaggle wobotintelligence/face-mask-detection-dataset, all twenty
    "face_with_mask": "mask",
    "face_with_mask_incorrect": "mask",
    "mask_colorful": "mask",
    "mask_surgical": "mask",
    "face_no_mask": "no_mask",
    "face_other_covering": "no_mask",
    "balaclava_ski_mask": "ignored",
    "eyeglasses": "ignored",
    "face_shield": "ignored",
    "gas_mask": "ignored",
    "goggles": "ignored",
    "hair_net": "ignored",
    "hat": "ignored",
    "helmet": "ignored",
    "hijab_niqab": "ignored",
    "hood": "ignored",
    "other": "ignored",
    "scarf_bandana": "ignored",
    "sunglasses": "ignored",
    "turban": "ignored",
    # Kaggle andrewmvd/face-mask-detection, all three
    "with_mask": "mask",
    "mask_weared_incorrect": "mask",
    "without_mask": "no_mask",
}
"""What an annotated box says: a badly worn mask is worn; what is worn beside a mask says nothing about it."""

MASK_ALONE = frozenset({"mask_colorful", "mask_surgical"})
"""Boxes around the mask and not the face: they count for the picture and are not cropped."""

_MISSING = {"", "nan", "na", "n/a", "null", "<na>", "?", "unknown", "nat"}


def fold_spelling(text: str) -> str:
    """Return `text` in small letters with single blanks for `_`, `-` and `.`: the form that SPELLINGS has."""
    return re.sub(r"[\s_\-.]+", " ", text.strip().casefold()).strip()


def is_missing(text: str) -> bool:
    """Tell whether a cell without blanks around it says nothing: empty, or as NaN and the like are written."""
    return text.casefold() in _MISSING


def read_label(value: object, *, positive: str | None = None) -> int | None:
    """Return 1, 0 or, for an empty cell, None.

    Numbers from 0 to 1 count as probabilities: above one half is a mask. With `positive`, a value of that spelling
    is a mask and every other is none. Raises ValueError for what is unclear.
    """
    text = str(value).strip()
    if is_missing(text):
        return None
    if positive is not None:
        return int(fold_spelling(text) == fold_spelling(positive))
    spelled = SPELLINGS.get(fold_spelling(text))
    return _read_number(text) if spelled is None else spelled


def _read_number(text: str) -> int:
    try:
        number = float(text.replace(",", "."))  # a decimal comma
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"label {text[:40]!r} is neither mask nor no mask")
    if number == 0.5:
        raise ValueError("label 0.5 says neither mask nor no mask")
    return int(number > 0.5)
