"""Configuration files: a JSON or TOML file, or the name of a shipped one, flows in, checked options flow out.

The challenge entry's own config.json is understood as well; notes say what each of its keys became.
"""

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from maskfast.core.config import TrainConfig, suggest
from maskfast.core.errors import ConfigError

MAX_CONFIG_BYTES = 2**20


def list_configs() -> list[str]:
    """The names of the configurations shipped in the package."""
    folder = resources.files("maskfast") / "configs"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_config(given: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Read the options in a file, or in the shipped configuration of that name, and notes on translated keys.

    Raises ConfigError for a file that is missing or broken, and for an unknown key, with the nearest known name.
    """
    if str(given) in list_configs():
        text = (resources.files("maskfast") / "configs" / f"{given}.toml").read_text()
        return _check_keys(_parse(text, f"--config {given}", toml=True), str(given)), []
    path = Path(given)
    if not path.is_file():
        raise ConfigError(f"--config {given}: no such file, and the shipped names are {', '.join(list_configs())}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"--config {given}: has {path.stat().st_size} bytes; no configuration is so long")
    try:
        options = _parse(path.read_text(encoding="utf-8-sig"), str(given), toml=path.suffix.lower() == ".toml")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {given}: is no text in UTF-8") from error
    if isinstance(options.get("config"), dict) and "schema_version" in options:
        options = options["config"]  # a bundle.json: train it again
    if CHALLENGE_KEYS & set(options):
        return translate_challenge(options, path)
    return _check_keys(options, str(given)), []


CHALLENGE_KEYS = {
    "im_width", "im_height", "Epochs", "Batch", "Dropout", "compressFile", "TrainFolder", "TestFolder", "LabelFiles",
    "Model_Path",
}  # fmt: skip
"""The keys of the challenge entry's config.json."""


def translate_challenge(options: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[str]]:
    """Turn the challenge entry's keys into our options; each note says what one of them became."""
    ours = {key: value for key, value in options.items() if key not in CHALLENGE_KEYS}
    _check_keys(ours, str(path))
    notes: list[str] = []
    for theirs, name in (("Epochs", "epochs"), ("Batch", "batch_size"), ("Dropout", "dropout")):
        if theirs in options:
            ours.setdefault(name, options[theirs])
            notes.append(f"{theirs} {options[theirs]} became {name}")
    _translate_size(options, ours, notes)
    _translate_places(options, ours, notes, path.parent)
    return ours, notes


def export_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **TrainConfig.model_json_schema()}


def _translate_size(options: dict[str, Any], ours: dict[str, Any], notes: list[str]) -> None:
    sides = [options[key] for key in ("im_width", "im_height") if key in options]
    if not sides:
        return
    if not all(isinstance(side, int) for side in sides):
        raise ConfigError(f"im_width, im_height: seen {sides}; whole numbers of pixels")
    ours.setdefault("size", max(sides))
    uneven = "; pictures are squares here: the larger side" if len(set(sides)) > 1 else ""
    notes.append(f"im_width, im_height {' x '.join(map(str, sides))} became size {max(sides)}{uneven}")


def _translate_places(options: dict[str, Any], ours: dict[str, Any], notes: list[str], beside: Path) -> None:
    places = {key: str(options[key]) for key in ("compressFile", "LabelFiles", "TrainFolder") if options.get(key)}
    for key in ("LabelFiles", "compressFile", "TrainFolder"):
        if key in places and "data" not in ours:
            folder = beside / Path(places[key]).parent
            ours["data"] = [str(folder)]
            notes.append(f"{key} {places[key]} became data {folder}, the folder in the challenge's layout")
    notes += [f"{key} {places[key]} is found in the data folder" for key in places if f"{key} " not in " ".join(notes)]
    if options.get("TestFolder"):
        notes.append(
            f"TestFolder {options['TestFolder']} is not needed: submit scores the rows of sample_submission.csv"
        )
    if options.get("Model_Path"):
        out = Path(str(options["Model_Path"]))
        ours.setdefault("out", str(beside / (out.with_suffix("") if out.suffix else out)))
        notes.append(f"Model_Path {out} became out {ours['out']}, a bundle's folder")


def _parse(text: str, origin: str, *, toml: bool) -> dict[str, Any]:
    try:
        options = tomllib.loads(text) if toml else json.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{origin}: is no {'TOML' if toml else 'JSON'}: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{origin}: holds {type(options).__name__}; names with values are needed")
    return options


def _check_keys(options: dict[str, Any], origin: str) -> dict[str, Any]:
    for key in options:
        if key not in TrainConfig.model_fields:
            raise ConfigError(f"--config {origin}: {key}: is no option{suggest(key)}")
    return options
