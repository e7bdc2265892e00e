"""Items and a training's setting go in, the finished state of every fold comes out: trained side by side on Ray."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from maskfast.apps.cluster.session import open_ray

if TYPE_CHECKING:
    from maskfast.learn.fit import Setting

RETRIES = 3
"""How often a fold is begun again, elsewhere, after its worker or its node was lost."""


def train_folds_on_ray(items: pd.DataFrame, setting: "Setting", *, address: str | None = None) -> None:
    """Train the folds that `setting.folder` has no finished state of, and put their states there.

    A fold takes a GPU where the cluster has any, else an equal share of the cores. Every node must see the pictures
    under the same paths. The states are those of folds trained one after another with as many threads.
    """
    from maskfast.learn.checkpoint import save_checkpoint
    from maskfast.learn.progress import log
    from maskfast.learn.runs import name_finished

    missing = [fold for fold in range(setting.folds) if not name_finished(setting.folder, fold).is_file()]
    with open_ray(address) as ray:
        start = _plan_task(ray, len(missing))
        told = replace(setting, interrupted=never)
        shared = ray.put(items)
        folds = {start.remote(shared, told, fold): fold for fold in missing}
        while folds:
            (ready, *_), _ = ray.wait(list(folds), num_returns=1)
            fold = folds.pop(ready)
            state, log_loss = _get(ray, ready)
            save_checkpoint(name_finished(setting.folder, fold), state)
            log.info("fold %d/%d is trained: log loss %.4f", fold + 1, setting.folds, log_loss)


def train_fold(items: pd.DataFrame, setting: "Setting", fold: int) -> tuple[dict[str, Any], float]:
    """Train one fold in a folder of its own; return its finished state and its log loss on the validation pictures."""
    import torch

    from maskfast.learn.checkpoint import load_checkpoint
    from maskfast.learn.fit import fit_fold
    from maskfast.learn.prepare import choose_split
    from maskfast.learn.runs import name_finished

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))  # Ray sets it to the task's cores
    with tempfile.TemporaryDirectory(prefix="maskfast-fold-") as folder:
        setting = replace(setting, folder=Path(folder))
        result = fit_fold(choose_split(items, fold if setting.config.folds else None), setting, fold=fold)
        return load_checkpoint(name_finished(setting.folder, fold)), result.progress.best_loss


def never() -> bool:
    """Answer for a process that is not asked to stop, but stopped."""
    return False


def _plan_task(ray: Any, folds: int) -> Any:
    resources = ray.cluster_resources()
    gpus = float(resources.get("GPU", 0) > 0)
    largest = max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])
    cores = max(1, min(int(resources.get("CPU", 1)) // max(1, folds), int(largest)))
    return ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=RETRIES)(train_fold)


def _get(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
