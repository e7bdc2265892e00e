"""What a network costs: a name flows in, its parameters, multiply-adds and the whereabouts of its weights flow out."""

from typing import Any

from maskfast.bundle.backbones import describe_backbone
from maskfast.bundle.network import NetworkSpec, build_network
from maskfast.bundle.pretrained import find_weights
from maskfast.core.errors import MissingExtraError


def describe_costs(arch: str) -> dict[str, Any]:
    """Describe `arch` with our head: library, size, parameters, multiply-adds a picture at that size, weights.

    `weights_here` is None where nobody publishes pretrained weights. Where the library is an extra that is missing,
    `needs` is the pip command that brings it, and the parameters and multiply-adds are None. Nothing is downloaded or
    computed.
    """
    backbone, weights = describe_backbone(arch), find_weights(arch)
    parameters, multiply_adds, needs = None, None, None
    try:
        parameters, multiply_adds = count_costs(arch, backbone.size)
    except MissingExtraError as error:
        needs = error.command
    return {
        "name": arch,
        "library": backbone.library,
        "entry": backbone.entry,
        "size": backbone.size,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "licence": backbone.licence,
        "weights_here": weights.found if weights else None,
        "weights_file": str(weights.file) if weights else None,
        "weights_url": weights.url if weights else None,
        "needs": needs,
    }


def count_costs(arch: str, size: int) -> tuple[int, int]:
    """Count the parameters of a whole network and its multiply-adds for one picture of `size` pixels a side."""
    try:
        return _count_on("meta", arch, size)
    except NotImplementedError:  # a few networks compute numbers while they are built
        return _count_on("cpu", arch, size)


def _count_on(device: str, arch: str, size: int) -> tuple[int, int]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device(device), torch.no_grad():
        network, image = build_network(NetworkSpec(arch=arch)).eval(), torch.empty(1, 3, size, size)
        with FlopCounterMode(display=False) as counter:
            network(image)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2
