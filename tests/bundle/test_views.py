"""Views of a picture: one mean of logits, with as few passes through the network as there are sizes."""

import torch

from maskfast.bundle.views import average_views, make_view

VIEWS = ("plain", "flip", "plain@32", "flip@32")


class Network(torch.nn.Module):
    """Answers with two sums over the left half of the picture, and counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(images.shape))
        half = images[..., : images.shape[-1] // 2]
        return torch.stack([half[:, 0].mean((1, 2)), half[:, 1].mean((1, 2))], 1)


def test_the_mean_of_the_views_is_that_of_each_alone_for_every_picture() -> None:
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([Network()(make_view(images, view)) for view in VIEWS]).mean(0)
    torch.testing.assert_close(average_views(Network(), images, VIEWS), alone)


def test_views_of_one_size_share_a_pass() -> None:
    network = Network()
    average_views(network, torch.zeros(3, 3, 48, 48), VIEWS)
    assert network.shapes == [(6, 3, 48, 48), (6, 3, 32, 32)]
