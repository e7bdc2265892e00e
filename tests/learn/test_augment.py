"""The batch transforms, held against fastai's own, which do one change at a time."""

import pickle

import pytest
import torch
from fastai.vision.augment import Brightness, Contrast, Flip, Rotate, Warp, Zoom
from fastai.vision.core import TensorImage

from maskfast.learn.augment import (
    PRESETS,
    Augment,
    AugmentSpec,
    change_lighting,
    draw_matrices,
    flip_matrix,
    get_transforms,
    make_augment,
    rotation_matrix,
    shear_matrix,
    shift_matrix,
    warp_images,
    warp_matrix,
    zoom_matrix,
)


@pytest.fixture
def images() -> torch.Tensor:
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")


def fastai_apply(transform: object, images: torch.Tensor) -> torch.Tensor:
    return transform(TensorImage(images.clone()), split_idx=0).as_subclass(torch.Tensor)


def full(images: torch.Tensor, value: float) -> torch.Tensor:
    return torch.full((len(images),), value)


def test_rotation_is_fastais(images: torch.Tensor) -> None:
    theirs = fastai_apply(Rotate(p=1.0, draw=15.0, align_corners=False), images)
    torch.testing.assert_close(warp_images(images, rotation_matrix(full(images, 15.0)), 32), theirs, atol=1e-4, rtol=0)


def test_zoom_is_fastais(images: torch.Tensor) -> None:
    theirs = fastai_apply(Zoom(p=1.0, draw=1.5, draw_x=0.25, draw_y=0.75, align_corners=False), images)
    matrices = zoom_matrix(full(images, 1.5), full(images, -0.5), full(images, 0.5))
    torch.testing.assert_close(warp_images(images, matrices, 32), theirs, atol=1e-4, rtol=0)


def test_warp_is_fastais(images: torch.Tensor) -> None:
    theirs = fastai_apply(Warp(p=1.0, draw_x=0.2, draw_y=-0.1, align_corners=False), images)
    matrices = warp_matrix(full(images, 0.2), full(images, -0.1))
    torch.testing.assert_close(warp_images(images, matrices, 32), theirs, atol=1e-4, rtol=0)


def test_flip_is_fastais(images: torch.Tensor) -> None:
    theirs = fastai_apply(Flip(p=1.0, draw=1, align_corners=False), images)
    torch.testing.assert_close(warp_images(images, flip_matrix(full(images, 1.0)), 32), theirs, atol=1e-5, rtol=0)


def test_the_eight_symmetries_are_those_of_torch(images: torch.Tensor) -> None:
    made = {
        tuple(warp_images(images[:1], flip_matrix(torch.tensor([float(k)])), 32).flatten().tolist()) for k in range(8)
    }
    wanted = [torch.rot90(turned, k, (2, 3)) for k in range(4) for turned in (images[:1], images[:1].flip(3))]
    assert len(made) == 8
    for one in wanted:
        assert any(torch.allclose(torch.tensor(other), one.flatten(), atol=1e-4) for other in made)


@pytest.mark.parametrize(("brightness", "contrast"), [(0.6, 1.0), (0.5, 1.2), (0.42, 1.0), (0.5, 0.8)])
def test_lighting_is_fastais(images: torch.Tensor, brightness: float, contrast: float) -> None:
    theirs = fastai_apply(
        Brightness(p=1.0, draw=brightness) if contrast == 1 else Contrast(p=1.0, draw=contrast), images
    )
    ours = change_lighting(images, full(images, brightness), full(images, contrast))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_shift_moves_by_a_part_of_the_side(images: torch.Tensor) -> None:
    moved = warp_images(images, shift_matrix(full(images, 0.25), full(images, 0.0)), 32)
    torch.testing.assert_close(moved[..., :24], images[..., 8:], atol=1e-4, rtol=0)


def test_shear_moves_rows_by_their_height() -> None:
    grid = shear_matrix(torch.tensor([0.5])) @ torch.tensor([0.0, 1.0, 1.0])
    torch.testing.assert_close(grid, torch.tensor([[0.5, 1.0, 1.0]]))


def test_draws_stay_within_their_bounds() -> None:
    spec = AugmentSpec(do_flip=False, max_warp=0.0, max_rotate=0.0, max_zoom=1.5, min_zoom=0.5, p_affine=1.0)
    matrices = draw_matrices(spec, 4000, generator=torch.Generator().manual_seed(0))
    zoom = 1 / matrices[:, 0, 0]
    assert 0.5 <= zoom.min() < 0.52
    assert 1.48 < zoom.max() <= 1.5
    assert (matrices[:, 0, 2].abs() <= (1 - 1 / zoom).abs() + 1e-6).all()


def test_probabilities_are_kept() -> None:
    spec = AugmentSpec(do_flip=False, max_warp=0.0, max_zoom=1.0, p_affine=0.3)
    matrices = draw_matrices(spec, 4000, generator=torch.Generator().manual_seed(0))
    changed = (matrices - torch.eye(3)).abs().amax((1, 2)) > 0
    assert changed.float().mean().item() == pytest.approx(0.3, abs=0.03)


def test_half_of_the_pictures_are_mirrored() -> None:
    spec = AugmentSpec(max_warp=0.0, max_zoom=1.0, max_rotate=0.0)
    mirrored = draw_matrices(spec, 4000, generator=torch.Generator().manual_seed(0))[:, 0, 0] < 0
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_keep_shape_type_and_range(preset: str, images: torch.Tensor) -> None:
    for transform in make_augment(preset, size=24):
        made = transform(TensorImage(images), split_idx=0)
        assert isinstance(made, TensorImage)
        assert made.shape == (3, 3, 24, 24)
        assert 0 <= made.min() <= made.max() <= 1


def test_a_seeded_transform_ignores_other_draws(images: torch.Tensor) -> None:
    transform = get_transforms(max_shift=0.2, p_coarse=0.5, p_grey=0.5)[0]
    transform.seed(7)
    first = transform(TensorImage(images), split_idx=0)
    torch.rand(5)
    transform.seed(7)
    assert torch.equal(first, transform(TensorImage(images), split_idx=0))
    assert not torch.equal(first, transform(TensorImage(images), split_idx=0))


def test_validation_pictures_are_left_alone(images: torch.Tensor) -> None:
    assert torch.equal(get_transforms()[0](TensorImage(images), split_idx=1), images)


def test_a_transform_is_pickled_without_its_stream() -> None:
    transform = Augment(AugmentSpec())
    transform.seed(3)
    assert pickle.loads(pickle.dumps(transform)).generator is None


@pytest.mark.parametrize("wrong", [{"p_affine": 1.5}, {"max_zoom": 0.9}, {"min_zoom": 1.1}, {"max_lighting": 1.0}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        get_transforms(**wrong)
