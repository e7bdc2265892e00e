"""A toy network and the draft of its bundle, for tests of several floors."""

from functools import cache

import numpy as np
from PIL import Image

TOY_SIZE = 32
TOY_MEAN = (0.485, 0.456, 0.406)
TOY_STD = (0.229, 0.224, 0.225)


def draw_smooth_images(count, *, seed=0, size=TOY_SIZE):
    """Images (N, size, size, 3) uint8 of a few soft colour patches each."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BICUBIC)) for each in small]
    )


@cache
def make_toy_network(seed=0):
    """An untrained simple_cnn whose answers are as spread as a trained network's: it has seen drawn pictures."""
    import torch

    from maskfast.bundle.network import NetworkSpec, build_network

    spec = NetworkSpec(arch="simple_cnn", hidden=16, dropout=0)
    images = torch.from_numpy(draw_smooth_images(64, seed=seed)).permute(0, 3, 1, 2) / 255 - 0.5
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        network = build_network(spec)
        for part in network.modules():
            if hasattr(part, "momentum"):
                part.momentum = 1.0
        network(images / 0.225)
        logits = network.eval()(images / 0.225)
        network[1][-1].weight *= 0.6 / (logits[:, 1] - logits[:, 0]).std()
    return spec, network


def score_toy(network, images, *, temperature):
    import torch

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    pixels = (pixels - torch.tensor(TOY_MEAN).view(3, 1, 1)) / torch.tensor(TOY_STD).view(3, 1, 1)
    with torch.no_grad():
        return (network(pixels) / temperature).softmax(1)[:, 1].numpy()


def make_toy_draft(*, members=1, seed=0, **changes):
    """A draft of toy networks with drawn validation pictures, none close to the threshold, labelled at random."""
    from maskfast.bundle.store import Draft

    networks = [make_toy_network(seed + member) for member in range(members)]
    images = draw_smooth_images(96, seed=seed + 1)
    images = images[np.abs(score_toy(networks[0][1], images, temperature=1.5) - 0.4) > 0.03]
    fields = {
        "network": networks[0][0],
        "state_dicts": [network.state_dict() for _, network in networks],
        "size": TOY_SIZE,
        "mean": TOY_MEAN,
        "std": TOY_STD,
        "temperature": 1.5,
        "threshold": 0.4,
        "check_images": images,
        "check_labels": np.random.default_rng(seed).integers(0, 2, len(images)),
    }
    return Draft(**(fields | changes))
