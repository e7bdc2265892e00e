"""A bundle goes in, a folder comes out that starts as a Hugging Face Space, with its model and all that scores it."""

import json
import platform
import shutil
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template

import maskfast
from maskfast._version import __version__
from maskfast.bundle.manifest import MANIFEST_FILE, Manifest, format_manifest, list_bundle_files
from maskfast.bundle.verify import verify_bundle
from maskfast.core.errors import BundleError, ConfigError
from maskfast.core.files import refuse_foreign_folder, replace_folder

GRADIO = "6.31.0"
"""The gradio that the page is tested with."""
REQUIREMENTS = ("numpy", "onnxruntime", "pillow", "pydantic", "defusedxml")
"""What scoring from a bundle imports."""
FLOORS = ("core", "bundle", "score")
NETWORKS = ("model.onnx", "model.int8.onnx")
"""The first of these that the bundle has goes along."""
CARD = "README.md"
LEFT_OUT = "left out of the Space, which scores with onnxruntime alone"


def write_space(model: str | Path, out: str | Path, *, title: str = "maskfast") -> Manifest:
    """Write the Space of the bundle `model` to the folder `out` and return the manifest of the bundle in it.

    Raises BundleError for a bundle that is broken or has no model.onnx, ConfigError where `out` holds something else.
    """
    model, out = Path(model), Path(out)
    manifest = verify_bundle(model)
    if not set(NETWORKS) & set(manifest.sha256):
        raise BundleError(f"{model}: has no ONNX file, which a Space scores with; train or convert it again")
    refuse_foreign_folder(out, "a Space", _list_space_files)
    if not title.strip() or not title.isprintable():
        raise ConfigError(f"--title {title!r}: must be one line of text")
    slim = slim_manifest(manifest)
    with replace_folder(out) as folder:
        _copy_model(model, folder / "model", slim)
        _copy_scoring(folder / "maskfast")
        (folder / "app.py").write_text(_read_template("space_app.py.txt"), encoding="utf-8")
        (folder / "requirements.txt").write_text(list_requirements(), encoding="utf-8")
        (folder / "README.md").write_text(describe_space(slim, title), encoding="utf-8")
    return slim


def _list_space_files(out: Path) -> list[str] | None:
    model = list_bundle_files(out / "model")
    if model is None:
        return None
    code = ["app.py", "requirements.txt", CARD, "maskfast/LICENSE", "maskfast/*.py"]
    return [*code, *(f"model/{name}" for name in model)]


def slim_manifest(manifest: Manifest) -> Manifest:
    """The manifest of the same model with its ONNX file and card alone."""
    kept = {_choose_network(manifest), CARD}
    gone = {name: LEFT_OUT for name in manifest.sha256 if name not in kept and not name.startswith("report/")}
    return manifest.model_copy(
        update={
            "weights": (),
            "sha256": {name: seal for name, seal in manifest.sha256.items() if name in kept},
            "left_out": {**manifest.left_out, **gone},
        }
    )


def _choose_network(manifest: Manifest) -> str:
    return next(name for name in NETWORKS if name in manifest.sha256)


def list_requirements() -> str:
    """The packages of scoring, pinned to the versions that are installed here."""
    return "".join(f"{name}=={version(name)}\n" for name in REQUIREMENTS)


def describe_space(manifest: Manifest, title: str) -> str:
    """The Space's README.md, with the front matter that the hub reads."""
    return Template(_read_template("space_readme.md.txt")).substitute(
        title=title,
        quoted_title=json.dumps(title, ensure_ascii=False),
        gradio=GRADIO,
        python=".".join(platform.python_version_tuple()[:2]),
        network=_choose_network(manifest),
        arch=manifest.network.arch,
        size=manifest.size,
        created=manifest.created or "unknown",
        threshold=manifest.threshold,
        version=__version__,
    )


def _copy_model(model: Path, target: Path, manifest: Manifest) -> None:
    target.mkdir()
    for name in manifest.sha256:
        shutil.copyfile(model / name, target / name)
    (target / MANIFEST_FILE).write_bytes(format_manifest(manifest))


def _copy_scoring(target: Path) -> None:
    package = Path(maskfast.__file__).parent
    target.mkdir()
    for floor in FLOORS:
        for path in sorted((package / floor).rglob("*.py")):
            copy = target / path.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    for name in ("__init__.py", "_version.py"):
        shutil.copyfile(package / name, target / name)
    (target / "LICENSE").write_text(_read_template("space_license.txt"), encoding="utf-8")


def _read_template(name: str) -> str:
    return files("maskfast.apps").joinpath("templates", name).read_text(encoding="utf-8")
