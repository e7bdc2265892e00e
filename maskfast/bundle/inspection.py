"""An unknown model file goes in; what it is, and what it would have called, comes out; nothing in it is run."""

import importlib.util
from pathlib import Path
from typing import Any

from maskfast.bundle.fastai_export import Export, list_unknown_names, read_export
from maskfast.bundle.verify import verify_bundle
from maskfast.core.errors import MaskfastError

SHOWN = 400
"""Names that are listed at most, of either kind."""


def inspect_file(path: str | Path) -> dict[str, Any]:
    """Describe the bundle folder or the fastai export at `path`.

    Of a bundle: its manifest, after every file was verified. Of an export: its classes, size, normalisation, loss,
    layers, the backbone where it can be rebuilt (`rebuilt` says why where not), the names it refers to (`names`), what
    it would have called (`calls`), and of these names the ones that an export does not need (`unusual`).
    Raises BundleError for anything else.
    """
    path = Path(path)
    if path.is_dir():
        manifest = verify_bundle(path)
        return {"file": str(path), "kind": "maskfast bundle", **manifest.model_dump(mode="json")}
    return _describe_export(read_export(path))


def _describe_export(export: Export) -> dict[str, Any]:
    pickle = export.archive.pickle
    return {
        "file": str(export.archive.path),
        "kind": f"pickle of {export.kind or 'something that it computes'}",
        "opcodes": pickle.opcodes,
        "layers": len(export.modules),
        "parameters": export.count_parameters(),
        **_try_rebuild(export),
        "classes": export.vocab,
        "size": export.size,
        "method": export.method,
        "mean": export.mean,
        "std": export.std,
        "loss": export.loss,
        "notes": export.notes,
        "unusual": list_unknown_names(export)[:SHOWN],
        "names": sorted(pickle.names)[:SHOWN],
        "calls": dict(pickle.calls.most_common(SHOWN)),
    }


def _try_rebuild(export: Export) -> dict[str, str]:
    if importlib.util.find_spec("torch") is None:
        return {"backbone": "", "rebuilt": "not tried, torch is not installed"}
    from maskfast.bundle.rebuild import rebuild_export

    try:
        return {"backbone": rebuild_export(export)[0].arch, "rebuilt": "yes"}
    except MaskfastError as error:
        return {"backbone": "", "rebuilt": str(error)}
