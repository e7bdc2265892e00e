"""The convolutional network that is trained from scratch with plain SGD: images flow in, feature maps flow out.

Read it from the bottom: five blocks, each of which looks for patterns in 3x3 neighbourhoods (convolution), drops what
speaks against them (ReLU), and halves the picture (max pooling), so that later blocks see larger parts of a face. A
picture of 224 pixels becomes 256 maps of 7x7 places; the head then says whether any of it looks like a mask.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

WIDTHS = (16, 32, 64, 128, 256)
"""Number of patterns each block looks for."""


def build_simple_cnn() -> "nn.Sequential":
    """Build the untrained network: float images (N,3,H,W) to maps (N,256,H/32,W/32)."""
    from torch import nn

    return nn.Sequential(*(_build_block(n_in, n_out) for n_in, n_out in zip((3, *WIDTHS), WIDTHS, strict=False)))


def _build_block(n_in: int, n_out: int) -> "nn.Sequential":
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),  # keeps the numbers in a range in which plain SGD learns
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
