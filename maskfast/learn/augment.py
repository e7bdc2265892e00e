"""Batches of pictures flow in, batches of varied pictures flow out: fastai v1's transforms, drawn and done at once.

Every geometric change of a picture (flip, rotation, zoom, shift, shear, warp) is one 3x3 matrix; their product moves
each picture once, by one bilinear resampling of the whole batch on the device it is on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from math import log, pi
from types import MappingProxyType
from typing import Any, Literal

import torch
from fastai.torch_basics import DisplayedTransform
from fastai.torch_core import TensorImage
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name everybody knows

PadMode = Literal["reflection", "border", "zeros"]


@dataclass(frozen=True)
class AugmentSpec:
    """How far pictures may be changed; the names and meanings are fastai v1's `get_transforms` where it has them."""

    do_flip: bool = True
    flip_vert: bool = False
    max_rotate: float = 10.0
    max_zoom: float = 1.1
    max_lighting: float = 0.2
    max_warp: float = 0.2
    p_affine: float = 0.75
    p_lighting: float = 0.75
    min_zoom: float = 1.0
    max_shear: float = 0.0
    max_shift: float = 0.0
    p_grey: float = 0.0
    p_coarse: float = 0.0
    pad_mode: PadMode = "reflection"


PRESETS: Mapping[str, AugmentSpec | None] = MappingProxyType(
    {
        "default": AugmentSpec(),
        "strong": AugmentSpec(
            max_rotate=20.0, max_zoom=1.3, min_zoom=0.8, max_lighting=0.35, max_shift=0.1, max_shear=0.1,
            p_grey=0.1, p_coarse=0.15,
        ),
        # The values of the challenge entry's Keras ImageDataGenerator, whose zoom_range 0.15 is 0.85 to 1.15.
        "classic": AugmentSpec(
            max_rotate=20.0, max_zoom=1.15, min_zoom=0.85, max_shift=0.2, max_shear=0.15, max_warp=0.0,
            max_lighting=0.0, p_affine=1.0, pad_mode="border",
        ),
        # For photos around one face: zoom both ways and shifts, by which the sizes and places of faces differ.
        "challenge": AugmentSpec(
            min_zoom=0.85, max_zoom=1.25, max_shift=0.08, max_warp=0.0, max_lighting=0.25, p_affine=0.8,
        ),
        # Zooming out makes large faces small, as they are in whole scenes.
        "scenes": AugmentSpec(
            max_zoom=1.4, min_zoom=0.4, max_lighting=0.3, max_shift=0.1, p_affine=0.9, p_grey=0.1, p_coarse=0.3,
        ),
        # For made scenes, whose geometry is varied while they are made.
        "light": AugmentSpec(
            do_flip=False, max_rotate=0.0, max_zoom=1.0, max_warp=0.0, max_lighting=0.25, p_grey=0.05, p_coarse=0.15,
        ),
        "none": None,
    }
)  # fmt: skip
"""Named settings for `--augment`."""


def get_transforms(
    do_flip: bool = True,
    flip_vert: bool = False,
    max_rotate: float = 10.0,
    max_zoom: float = 1.1,
    max_lighting: float = 0.2,
    max_warp: float = 0.2,
    p_affine: float = 0.75,
    p_lighting: float = 0.75,
    *,
    min_zoom: float = 1.0,
    max_shear: float = 0.0,
    max_shift: float = 0.0,
    p_grey: float = 0.0,
    p_coarse: float = 0.0,
    pad_mode: PadMode = "reflection",
    size: int | None = None,
) -> list["Augment"]:
    """Make the batch transforms for training, with the names, meanings and defaults of fastai v1's `get_transforms`.

    do_flip: mirror half of the pictures; flip_vert: any of the eight symmetries of the square instead.
    max_rotate: degrees; max_zoom, min_zoom: enlargement, 1 leaves the size; max_warp: perspective, 0.2 moves corners
    by a tenth of the side; max_shear: tangent of the angle; max_shift: part of the side, for width and height.
    max_lighting: change of brightness and contrast. p_affine, p_lighting: how likely each of them is.
    p_grey, p_coarse: how often a picture loses its colours, or is scaled down to 1/4..1/2 and up again.
    size: side of the pictures that come out (default: as they come in).

    Returns a list for `batch_tfms`. (Version 1 returned a pair for training and validation; since version 2 a
    transform knows by itself that it is for training.) Values out of range raise ValueError.
    """
    options = {name: value for name, value in locals().items() if name != "size"}
    return [Augment(AugmentSpec(**options), size=size)]


def make_augment(preset: str, *, size: int | None = None) -> list["Augment"]:
    """The batch transforms of a preset by name (`PRESETS`); none for "none", unless pictures must be resized."""
    spec = PRESETS[preset]
    return [] if spec is None else [Augment(spec, size=size)]


class Augment(DisplayedTransform):  # type: ignore[misc]
    """A fastai batch transform, for training only, that varies pictures (N,3,H,W) of 0..1 on their own device."""

    split_idx, order = 0, 30  # after IntToFloatTensor, before Normalize

    def __init__(self, spec: AugmentSpec, *, size: int | None = None) -> None:
        super().__init__()
        _check_spec(spec)
        self.spec, self.size = spec, size
        self.generator: torch.Generator | None = None

    def seed(self, seed: int) -> None:
        """Draw from a stream of its own from now on, which does not depend on what else draws numbers."""
        self.generator = torch.Generator().manual_seed(seed)

    def encodes(self, images: TensorImage) -> TensorImage:
        """Vary a batch."""
        plain = images.as_subclass(Tensor)
        size = self.size or plain.shape[-1]
        matrices = draw_matrices(self.spec, len(plain), generator=self.generator)
        if size != plain.shape[-1] or not torch.equal(matrices, torch.eye(3).expand_as(matrices)):
            plain = warp_images(plain, matrices.to(plain.device), size, pad_mode=self.spec.pad_mode)
        plain = change_lighting(plain, *draw_lighting(self.spec, len(plain), generator=self.generator))
        plain = self._coarsen(self._remove_colour(plain))
        return TensorImage(plain)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "generator": None}

    def _remove_colour(self, images: Tensor) -> Tensor:
        chosen = self._choose(self.spec.p_grey, images)
        return torch.where(chosen, images.mean(1, keepdim=True), images) if self.spec.p_grey else images

    def _coarsen(self, images: Tensor) -> Tensor:
        if not self.spec.p_coarse:
            return images
        chosen = self._choose(self.spec.p_coarse, images)
        part = 0.25 + 0.25 * float(torch.rand((), generator=self.generator))
        small = F.interpolate(images, scale_factor=part, mode="bilinear", antialias=True, align_corners=False)
        return torch.where(chosen, F.interpolate(small, size=images.shape[-2:], mode="bilinear"), images)

    def _choose(self, p: float, images: Tensor) -> Tensor:
        return (torch.rand(len(images), generator=self.generator) < p).view(-1, 1, 1, 1).to(images.device)


def draw_matrices(spec: AugmentSpec, n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw n matrices (n,3,3) that take a place of the new picture, from -1 to 1, to a place of the old one."""
    draw = _Draw(n, generator)
    zoom = _exp_between(draw, spec.min_zoom, spec.max_zoom, spec.p_affine)
    parts = [
        flip_matrix(draw.symmetry(do_flip=spec.do_flip, flip_vert=spec.flip_vert)),
        warp_matrix(draw.around(spec.max_warp, spec.p_affine), draw.around(spec.max_warp, spec.p_affine)),
        rotation_matrix(draw.around(spec.max_rotate, spec.p_affine)),
        shear_matrix(draw.around(spec.max_shear, spec.p_affine)),
        zoom_matrix(zoom, draw.around(1.0, 1.0), draw.around(1.0, 1.0)),
        shift_matrix(draw.around(spec.max_shift, spec.p_affine), draw.around(spec.max_shift, spec.p_affine)),
    ]
    return reduce(lambda before, part: part @ before, parts)


def flip_matrix(symmetry: Tensor) -> Tensor:
    """Matrices (n,3,3) of the symmetries 0..7 of the square: bit 0 mirrors x, bit 1 mirrors y, bit 2 swaps them."""
    matrix = _identity(len(symmetry))
    x_sign, y_sign = 1.0 - 2 * (symmetry % 2), 1.0 - 2 * (symmetry // 2 % 2)
    turned = (symmetry >= 4).float()
    matrix[:, 0, 0], matrix[:, 1, 1] = x_sign * (1 - turned), y_sign * (1 - turned)
    matrix[:, 0, 1], matrix[:, 1, 0] = x_sign * turned, y_sign * turned
    return matrix


def rotation_matrix(degrees: Tensor) -> Tensor:
    """Matrices (n,3,3) that turn by `degrees` (n,)."""
    matrix, angle = _identity(len(degrees)), degrees * pi / 180
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 0, 1], matrix[:, 1, 0] = angle.sin(), -angle.sin()
    return matrix


def zoom_matrix(zoom: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Matrices (n,3,3) that enlarge by `zoom`, keeping the part of the picture at x, y (each -1..1) in sight."""
    matrix, room = _identity(len(zoom)), (1 - 1 / zoom)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / zoom
    matrix[:, 0, 2], matrix[:, 1, 2] = room * x, room * y
    return matrix


def shear_matrix(shear: Tensor) -> Tensor:
    """Matrices (n,3,3) that move rows sideways by `shear` times their height."""
    matrix = _identity(len(shear))
    matrix[:, 0, 1] = shear
    return matrix


def shift_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Matrices (n,3,3) that shift by parts x and y of the side."""
    matrix = _identity(len(x))
    matrix[:, 0, 2], matrix[:, 1, 2] = 2 * x, 2 * y
    return matrix


def warp_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Matrices (n,3,3) of fastai's symmetric warp: opposite corners move by x and y, against their neighbours."""
    moved = [[-1 - y, -1 - x], [-1 + y, 1 + x], [1 + y, -1 + x], [1 - y, 1 - x]]
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]).expand(len(x), 4, 2)
    return solve_perspective(torch.stack([torch.stack(corner, dim=1) for corner in moved], dim=1), corners)


def solve_perspective(sources: Tensor, targets: Tensor) -> Tensor:
    """Matrices (n,3,3) that take four points `sources` (n,4,2; x and y) to `targets`."""
    n = len(sources)
    ones, zeros = torch.ones(n, 4, 1), torch.zeros(n, 4, 3)
    points = torch.cat([sources, ones], dim=2)
    left = torch.cat([torch.cat([points, zeros], 2), torch.cat([zeros, points], 2)], dim=1)
    right = torch.cat([targets[:, :, :1], targets[:, :, 1:]], dim=1)
    products = -right * torch.cat([sources, sources], dim=1)
    solved = torch.linalg.solve(torch.cat([left, products], dim=2), right).squeeze(2)
    return torch.cat([solved, torch.ones(n, 1)], dim=1).view(n, 3, 3)


def warp_images(images: Tensor, matrices: Tensor, size: int, *, pad_mode: PadMode = "reflection") -> Tensor:
    """Resample `images` (N,3,H,W) once, place by place through `matrices` (N,3,3), to (N,3,size,size)."""
    side = (torch.arange(size, device=images.device) * 2 + 1) / size - 1
    y, x = torch.meshgrid(side, side, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, -1, 3)
    found = places @ matrices.transpose(1, 2)
    grid = (found[..., :2] / found[..., 2:]).view(len(images), size, size, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=pad_mode, align_corners=False)


def draw_lighting(spec: AugmentSpec, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw n changes of brightness (0.5 leaves it) and n scales of contrast (1 leaves it)."""
    draw, most = _Draw(n, generator), spec.max_lighting
    brightness = 0.5 + draw.around(0.5 * most, spec.p_lighting)
    return brightness, _exp_between(draw, 1 - most, 1 / (1 - most), spec.p_lighting)


def change_lighting(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Change brightness, then contrast, in logit space as fastai does, so that no pixel leaves 0..1."""
    add, scale = (change.view(-1, 1, 1, 1).to(images.device) for change in (brightness.logit(), contrast))
    if not (add.any() or (scale != 1).any()):
        return images
    return torch.sigmoid((torch.logit(images, eps=1e-7) + add) * scale)


class _Draw:
    """Draws of one number a picture from one stream, in a fixed order."""

    def __init__(self, n: int, generator: torch.Generator | None) -> None:
        self.n, self.generator = n, generator

    def rand(self) -> Tensor:
        return torch.rand(self.n, generator=self.generator)

    def around(self, most: float, p: float) -> Tensor:
        """Uniform in -most..most with probability p, else 0."""
        value, chosen = self.rand() * 2 - 1, self.rand() < p
        return value * most * chosen

    def symmetry(self, *, do_flip: bool, flip_vert: bool) -> Tensor:
        value = self.rand()
        return (value * (8 if flip_vert else 2)).floor() if do_flip else torch.zeros(self.n)


def _exp_between(draw: _Draw, low: float, high: float, p: float) -> Tensor:
    value, chosen = draw.rand(), draw.rand() < p
    return torch.where(chosen, torch.exp(log(low) + value * (log(high) - log(low))), torch.ones(()))


def _identity(n: int) -> Tensor:
    return torch.eye(3).repeat(n, 1, 1)


def _check_spec(spec: AugmentSpec) -> None:
    for name in ("p_affine", "p_lighting", "p_grey", "p_coarse"):
        if not 0 <= getattr(spec, name) <= 1:
            raise ValueError(f"{name} is {getattr(spec, name)}; a probability lies in 0..1")
    if not 0 < spec.min_zoom <= 1 <= spec.max_zoom:
        raise ValueError(f"min_zoom {spec.min_zoom} and max_zoom {spec.max_zoom} must lie on both sides of 1")
    if not 0 <= spec.max_lighting < 1:
        raise ValueError(f"max_lighting is {spec.max_lighting}; it lies in 0..1, 1 excluded")
