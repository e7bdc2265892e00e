"""A model's path goes in, a Predictor comes out, once every file of the model proved to be the one that was written."""

from pathlib import Path
from typing import TYPE_CHECKING

import maskfast.bundle
from maskfast.bundle.manifest import MANIFEST_FILE
from maskfast.bundle.verify import verify_meanwhile

if TYPE_CHECKING:
    from maskfast.score.backends import BackendName
    from maskfast.score.predictor import Predictor

DEFAULT_MODEL = Path("export/model")
SMALL_MODEL = Path(maskfast.bundle.__file__).parent / "small"


def load(path: str | Path | None = None, *, backend: "BackendName" = "auto", trust_pickle: bool = False) -> "Predictor":
    """Open the bundle folder `path`, verified, without opening a pickle and without writing anything.

    Without `path`: export/model where there is a bundle, else the small model inside the package.
    An export.pkl of fastai is read inertly and rebuilt in code; `trust_pickle` lets fastai open it instead, after what
    it refers to was logged: that runs whatever its author put there.
    Raises BundleError naming the file or field that is wrong.
    """
    folder = find_model(path)
    if folder.is_file():
        from maskfast.score.foreign import load_export

        return load_export(folder, backend=backend, trust_pickle=trust_pickle)
    with verify_meanwhile(folder) as manifest:
        # imported while the files are checked: numpy, Pillow and onnxruntime take about as long
        from maskfast.score.backends import open_backend
        from maskfast.score.predictor import Predictor

        opened = open_backend(folder, manifest, backend)
    return Predictor(manifest, opened, folder=folder)


def find_model(path: str | Path | None) -> Path:
    """Return `path`, or where there is none the default: export/model, else the small model inside the package."""
    if path is not None:
        return Path(path)
    return DEFAULT_MODEL if (DEFAULT_MODEL / MANIFEST_FILE).exists() else SMALL_MODEL
