"""From DataLoaders and a backbone's name to a fastai Learner, and from that to a learning rate."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastai.callback.schedule import SuggestionMethod
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.optimizer import SGD
from fastai.vision.learner import vision_learner
from torch import nn

from maskfast.bundle.backbones import build_body
from maskfast.bundle.network import NetworkSpec, build_head
from maskfast.bundle.pretrained import load_weights
from maskfast.core.errors import ConfigError
from maskfast.core.files import write_whole
from maskfast.learn.adam import adam
from maskfast.learn.muon import muon
from maskfast.learn.plots import draw_lr_find

FALLBACK_LR = {"adam": 2e-3, "sgd": 1e-2, "muon": 2e-3}
"""Rates that train most networks where the finder sees no valley."""
LR_RANGE = (1e-5, 2e-2)
"""A found rate outside is a sign of a curve without a valley."""


def make_learner(
    dls: DataLoaders,
    arch: str = "resnet34",
    *,
    weights: str | Path = "imagenet",
    spec: NetworkSpec | None = None,
    optimizer: str = "adam",
    loss_func: Any = None,
    metrics: Sequence[Any] = (accuracy,),
    path: str | Path = ".",
    **options: Any,
) -> Learner:
    """Make a fastai vision Learner whose model is exactly `build_network(spec)` with pretrained weights in its body.

    `weights`: "imagenet", "none" or a file. `spec` says more than `arch` about the network where it is given.
    `optimizer`: "adam", "sgd" or "muon". The body is frozen where it has pretrained weights. Further options go to
    fastai's `vision_learner`. Raises ConfigError for an unknown `arch` or `optimizer` and for weights that do not fit.
    """
    spec = spec or NetworkSpec(arch=arch)
    pretrained = str(weights) != "none"
    options = {"opt_func": _choose_optimizer(optimizer), **options}
    learn = vision_learner(
        dls,
        partial(_build_uncut_body, spec.arch, str(weights)),
        normalize=False,  # the DataBlock does
        n_out=2,
        pretrained=pretrained,
        custom_head=build_head(spec),
        init=nn.init.kaiming_normal_ if spec.head == "concat" else None,
        splitter=split_parameters,
        loss_func=loss_func,
        metrics=list(metrics),
        path=Path(path),
        **options,
    )
    learn.model[0] = learn.model[0][0]  # fastai's cut leaves the body alone in a chain of one
    return learn


def split_parameters(model: nn.Module) -> list[list[nn.Parameter]]:
    """Split a network into three groups for discriminative rates: first layers, last layers of the body, head.

    The body is parted at 7/10 of its chain of layers, as fastai parts a resnet (six of eight).
    """
    body, head = model[0], model[1:]  # type: ignore[index]
    layers = find_chain(body)
    cut = round(len(layers) * 0.7)
    while cut > 1 and not any(True for layer in layers[cut:] for _ in layer.parameters()):
        cut -= 1
    late = {id(p) for layer in layers[cut:] for p in layer.parameters()}
    groups = [[p for p in body.parameters() if id(p) not in late], [p for p in body.parameters() if id(p) in late]]
    return [*groups, list(head.parameters())]


def find_lr(learn: Learner, *, plot: str | Path | None = None, steps: int = 100, optimizer: str = "adam") -> float:
    """Find a learning rate with fastai's finder (the valley of the curve), and save the plot to `plot`.

    The learner is as it was afterwards, and no file stays. Where the curve has no valley between 1e-5 and 2e-2 the
    result is a rate that trains most networks (2e-3 for Adam, 1e-2 for SGD).
    """
    rates, losses, found = _run_finder(learn, steps)
    lr = float(found) if found is not None and LR_RANGE[0] <= found <= LR_RANGE[1] else FALLBACK_LR[optimizer]
    if plot is not None:
        write_whole(plot, draw_lr_find(rates, losses, lr))
    return lr


def _run_finder(learn: Learner, steps: int) -> tuple[list[float], list[float], float | None]:
    folder, states = learn.path, _save_random_states()
    with tempfile.TemporaryDirectory() as temporary:
        learn.path = Path(temporary)
        try:
            with learn.no_bar(), learn.no_logging():
                found = learn.lr_find(num_it=steps, show_plot=False, suggest_funcs=(SuggestionMethod.Valley,))
        finally:
            learn.path = folder
            _restore_random_states(states)
    rates, losses = list(map(float, learn.recorder.lrs)), [float(loss) for loss in learn.recorder.losses]
    return rates, losses, float(found.valley)


def _save_random_states() -> tuple[Any, ...]:
    import random

    import numpy as np

    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _restore_random_states(states: tuple[Any, ...]) -> None:
    import random

    import numpy as np

    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def _build_uncut_body(arch: str, weights: str, *, pretrained: bool) -> nn.Sequential:
    # fastai cuts a network at its last pooling layer: here is one to cut.
    body = build_body(arch)
    if pretrained:
        load_weights(body, weights, arch)
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1))


def _choose_optimizer(name: str) -> Callable[..., Any]:
    known: dict[str, Callable[..., Any]] = {"adam": adam, "sgd": partial(SGD, mom=0.9), "muon": muon}
    if name not in known:
        raise ConfigError(f"optimizer: {name!r} is unknown; use {', '.join(known)}")
    return known[name]


def find_chain(module: nn.Module) -> list[nn.Module]:
    """The layers of the longest chain near the top: what is left after unwrapping modules of one or two children."""
    children = list(module.children())
    if len(children) > 2 or not children:
        return children or [module]
    return find_chain(max(children, key=lambda child: sum(p.numel() for p in child.parameters())))
