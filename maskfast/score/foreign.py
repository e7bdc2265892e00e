"""A fastai export.pkl goes in, a Predictor comes out: rebuilt in code, or (only when trusted) opened by fastai."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from maskfast.bundle.convert import draft_export, find_mask, read_draft_fields
from maskfast.bundle.fastai_export import Export, read_export
from maskfast.bundle.manifest import Manifest
from maskfast.bundle.network import NetworkSpec
from maskfast.bundle.store import draft_manifest
from maskfast.bundle.weights import restore_network
from maskfast.core.errors import ConfigError
from maskfast.score.backends import BackendName, TorchBackend
from maskfast.score.predictor import Predictor

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger("maskfast")


def load_export(path: Path, *, backend: BackendName = "auto", trust_pickle: bool = False) -> Predictor:
    """Return a predictor of the fastai export at `path`; nothing is written.

    The file is read inertly and its network rebuilt in code. With `trust_pickle`, what the pickle refers to is logged
    and fastai opens it, which runs whatever its author put there. What its pictures went through and ours do not is
    logged as a warning.
    """
    if backend in ("onnx", "int8"):
        raise ConfigError(
            f"--backend {backend}: {path} holds no ONNX; make a bundle of it: maskfast convert {path} OUT"
        )
    bf16 = backend == "torch"
    if trust_pickle:
        network, manifest = _open_with_fastai(read_export(path))
    else:
        draft = draft_export(path)
        manifest = draft_manifest(draft, ())
        network = restore_network(draft.network, draft.state_dicts[0], name=str(path))
    if notes := manifest.config["notes"]:
        log.warning("%s: %s", path, "; ".join(notes))
    return Predictor(manifest, TorchBackend([network], manifest, bf16=bf16), folder=path)


def _open_with_fastai(export: Export) -> "tuple[nn.Module, Manifest]":
    from fastai.learner import load_learner

    path = export.archive.path
    fields = read_draft_fields(export, None)
    manifest = Manifest(network=NetworkSpec(arch="opened by fastai"), **fields)
    mask = find_mask(export, None)
    log.warning(
        "%s is opened by pickle, which runs its code; it refers to %s", path, ", ".join(export.archive.pickle.names)
    )
    network: nn.Module = load_learner(path).model.eval()
    return (network if mask == 1 else _swap_outputs(network)), manifest


def _swap_outputs(network: "nn.Module") -> "nn.Module":
    from torch import nn

    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: "Tensor") -> "Tensor":
            logits: Tensor = self.network(images)
            return logits.flip(1)

    return Swapped()
