"""Bundles of different backbones flow in, one bundle that averages their answers flows out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from maskfast.bundle.card import write_card
from maskfast.bundle.manifest import Manifest
from maskfast.bundle.network import NetworkSpec, Part
from maskfast.bundle.store import Draft, write_bundle
from maskfast.bundle.verify import verify_bundle
from maskfast.bundle.weights import read_networks
from maskfast.core.errors import BundleError, ConfigError
from maskfast.score.metrics import PROB_FLOOR, compute_metrics

LEAST_COMMON = 20
"""Pictures that all bundles must have answered while they were held out, to fit weights on."""
STEPS = 2000
"""Of expectation maximisation, far beyond what two decimals of a weight need."""
LEAST_WEIGHT = 1e-3
"""A bundle with less has no say and is left out."""


@dataclass(frozen=True)
class Ensembled:
    """The weight of each bundle, and the log loss on held-out pictures of each alone and of all together."""

    weights: list[float]
    alone: list[float]
    together: float
    pictures: int


def ensemble_bundles(folders: Sequence[Path], out: Path) -> Ensembled:
    """Write the bundle `out` that averages the calibrated probabilities of bundles, with weights fitted to log loss.

    The weights are fitted on the answers each bundle gave for pictures it had not learned from (report/validation.csv),
    on those all have in common. Raises ConfigError where they have too few, BundleError for a bundle without them.
    """
    if len(folders) < 2:
        raise ConfigError("ensemble: one bundle is no ensemble; name two or more")
    manifests = [verify_bundle(folder) for folder in folders]
    if len({manifest.method for manifest in manifests}) > 1:
        raise ConfigError(
            "ensemble: the bundles make squares of pictures in different ways; train them with one --method"
        )
    answers = join_answers(folders)
    labels = answers["label"].to_numpy(dtype=int)
    probs = answers[[f"probability_{number}" for number in range(len(folders))]].to_numpy(dtype=float)
    weights = fit_weights(labels, probs)
    together = measure_loss(labels, probs @ weights)
    write_bundle(out, _draft(folders, manifests, answers, weights))
    alone = [measure_loss(labels, column) for column in probs.T]
    return Ensembled(weights.tolist(), alone, together, len(answers))


def join_answers(folders: Sequence[Path]) -> pd.DataFrame:
    """The held-out answers that all bundles have: image, label, probability_0, probability_1, ..."""
    joined: pd.DataFrame | None = None
    for number, folder in enumerate(folders):
        path = folder / "report" / "validation.csv"
        if not path.is_file():
            raise BundleError(f"{path}: is missing; an ensemble needs the answers for held-out pictures of each bundle")
        own = pd.read_csv(path).drop_duplicates("image")[["image", "label", "probability"]]
        own = own.rename(columns={"probability": f"probability_{number}"})
        joined = own if joined is None else joined.merge(own, on=["image", "label"])
    assert joined is not None, "there are two folders at least"
    if len(joined) < LEAST_COMMON or joined["label"].nunique() < 2:
        raise ConfigError(
            f"ensemble: only {len(joined)} held-out pictures are common to all bundles; train them on the same data "
            "with the same --seed, or each with --folds"
        )
    return joined


def fit_weights(labels: NDArray[np.int64], probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights (K,) of a mixture that minimise the log loss of `probs` (N,K), by expectation maximisation.

    The problem is convex, so this is the best mixture; where rounding leaves it behind the best member alone, that
    member gets all the weight.
    """
    right = np.clip(np.where(labels[:, None] == 1, probs, 1 - probs), PROB_FLOOR, 1)
    weights: NDArray[np.float64] = np.full(probs.shape[1], 1 / probs.shape[1])
    for _ in range(STEPS):
        shares = right * weights
        weights = (shares / shares.sum(1, keepdims=True)).mean(0)
    weights = np.where(weights < LEAST_WEIGHT, 0.0, weights)
    weights = weights / weights.sum()
    alone = [measure_loss(labels, column) for column in probs.T]
    if measure_loss(labels, probs @ weights) > min(alone):
        weights = np.eye(probs.shape[1])[int(np.argmin(alone))]
    return weights


def measure_loss(labels: NDArray[np.int64], probs: NDArray[np.float64]) -> float:
    """The log loss of N probabilities of a mask."""
    loss = compute_metrics(labels, np.clip(probs, 0, 1))["log_loss"]
    assert loss is not None, "there are labels"
    return float(loss)


def _draft(
    folders: Sequence[Path], manifests: Sequence[Manifest], answers: pd.DataFrame, weights: NDArray[np.float64]
) -> Draft:
    parts, networks = [], []
    for folder, manifest, weight in zip(folders, manifests, weights, strict=True):
        if weight == 0:
            continue
        members = read_networks(folder, manifest)
        share = float(weight) / len(members)
        networks += members
        parts += [_make_part(manifest, share) for _ in members]
    state = {f"networks.{n}.{k}": v for n, network in enumerate(networks) for k, v in network.state_dict().items()}
    probs = answers[[f"probability_{number}" for number in range(len(folders))]].to_numpy(dtype=float) @ weights
    labels = answers["label"].to_numpy(dtype=int)
    logs = np.log(np.clip(np.stack([1 - probs, probs], axis=1), PROB_FLOOR, 1))
    columns = {"logit_no_mask": logs[:, 0], "logit_mask": logs[:, 1], "probability": probs}
    validation = answers[["image", "label"]].assign(**columns)
    measured = compute_metrics(labels, np.clip(probs, 0, 1), bootstrap=500)
    draft = Draft(
        network=NetworkSpec(arch="ensemble", parts=tuple(parts)),
        state_dicts=[state],
        size=max(part.size for part in parts),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        method=manifests[0].method,
        config={"ensemble": [folder.name for folder in folders], "weights": weights.tolist()},
        metrics={name: float(value) for name, value in measured.items() if value is not None},
        data=manifests[0].data,
        validation=validation,
    )
    return replace(draft, card=write_card(draft, validation=validation))


def _make_part(manifest: Manifest, weight: float) -> Part:
    return Part(
        network=manifest.network, size=manifest.size, mean=manifest.mean, std=manifest.std,
        temperature=manifest.temperature, weight=weight, views=manifest.views,
    )  # fmt: skip
