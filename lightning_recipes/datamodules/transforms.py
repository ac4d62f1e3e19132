"""Augmentation in two forms with the same draws: a sample with torchvision, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log, pi

import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode, v2

from ..layers import augment, boxes
from ..preprocessing import fit_geometry
from .augmentation import Augmentation

RATIO = (3 / 4, 4 / 3)  # width over height of a random crop, as in the Inception papers
ERASED = (0.02, 0.2)  # share of the area that erasing takes, as in the random-erasing paper up to 0.2


def sample_transform(
    augmentation: Augmentation, image_size: int, crop_pct: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Return the torchvision transform of one image: uint8 (C, h, w) to uint8 (C, image_size, image_size).

    It draws from torch's global generator. Lighting and cutout are no part of it, nor of `batch_transform`:
    `Finish` does both.

    Raises:
        UserError: The images are too small for what is asked.
    """
    a = augmentation
    a.check_size(image_size)
    steps: list[Callable[[Tensor], Tensor]] = []
    if a.crop_scale < 1:
        steps.append(v2.RandomResizedCrop(image_size, scale=(a.crop_scale, 1.0), ratio=RATIO, antialias=True))
    elif a.short_side is not None:
        steps.append(partial(_random_scale_crop, sides=_sides(a.short_side, image_size), size=image_size))
    else:
        steps.append(partial(fit_geometry, image_size=image_size, crop_pct=crop_pct))
        if a.shift:
            steps.append(v2.RandomCrop(image_size, padding=a.padding(image_size)))
    if a.flip:
        steps.append(v2.RandomHorizontalFlip())
    if a.rotation or a.shear or a.translate:
        steps.append(
            v2.RandomAffine(
                a.rotation,
                translate=(a.translate, a.translate),
                shear=a.shear,
                interpolation=InterpolationMode.BILINEAR,
            )
        )
    if a.elastic is not None:
        steps.append(v2.ElasticTransform(*a.elastic))
    if a.jitter:
        steps.append(v2.ColorJitter(brightness=a.jitter, contrast=a.jitter, saturation=a.jitter))
    if a.erase:
        steps.append(v2.RandomErasing(a.erase, scale=ERASED, ratio=RATIO))
    return v2.Compose(steps) if len(steps) > 1 else steps[0]


def batch_transform(augmentation: Augmentation, images: Tensor, generator: Generator) -> Tensor:
    """Augment images that are already in their final geometry, a draw for each sample.

    The draws are distributed as those of `sample_transform`. One thing differs: a crop that is also turned,
    sheared or moved shows here what lies beyond it, there black.

    Args:
        augmentation: What to do.
        images: uint8, (B, C, S, S).
        generator: Where all draws come from.

    Returns:
        uint8, or float in [0, 255] where pixels were resampled or scaled; (B, C, S, S).

    Raises:
        UserError: The images are too small for what is asked.
    """
    a, batch, size = augmentation, len(images), images.shape[-1]
    a.check_size(size)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, generator=generator) * (high - low) + low

    flip = uniform(0, 1) < 0.5 if a.flip else torch.zeros(batch, dtype=torch.bool)
    moves = a.rotation or a.shear or a.translate
    warps = a.crop_scale < 1 or a.short_side is not None or moves
    if a.shift or (a.flip and not warps):
        pad = a.padding(size)
        dy, dx = torch.randint(0, 2 * pad + 1, (2, batch), generator=generator)
        images = boxes.shift_flip(images, dy, dx, flip, pad)
        flip = torch.zeros_like(flip)
    if warps:
        scale, centre = torch.ones(batch, 2), torch.zeros(batch, 2)
        if a.crop_scale < 1:
            scale, centre = _resized_crop(a.crop_scale, size, batch, generator)
        elif a.short_side is not None:
            scale, centre = _scale_crop(_sides(a.short_side, size), size, batch, generator)
        angle = uniform(-a.rotation, a.rotation) * pi / 180
        shear = uniform(-a.shear, a.shear) * pi / 180
        shift: Tensor | None = None
        if a.translate:  # whole pixels, as torchvision moves
            most = a.translate * size
            shift = torch.stack([uniform(-most, most), uniform(-most, most)], 1).round() * (2 / size)
        theta = augment.affine(scale, centre, angle, shear, flip, shift)
        images = augment.warp(images.float(), theta, "zeros" if moves else "border")
    if a.elastic is not None:
        noise = torch.rand(batch, 2, size, size, generator=generator) * 2 - 1
        images = augment.elastic(images.float(), noise, *a.elastic)
    if a.jitter:
        factors = [uniform(max(0.0, 1 - a.jitter), 1 + a.jitter) for _ in range(3)]
        images = augment.jitter(images.float(), *factors)
    if a.erase:
        area = uniform(*ERASED) * (uniform(0, 1) < a.erase)
        ratio = uniform(log(RATIO[0]), log(RATIO[1])).exp()
        height = ((area / ratio).sqrt() * size).round().long()
        width = ((area * ratio).sqrt() * size).round().long()
        top = (uniform(0, 1) * (size - height + 1)).long()
        left = (uniform(0, 1) * (size - width + 1)).long()
        images = boxes.erase(images, top, left, height, width)
    return images


def _resized_crop(least: float, size: int, batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return extent (share of the side) and centre (in [-1, 1]) of random crops, both (batch, 2), y and x.

    As torchvision draws them: area and log ratio are uniform, sides are whole pixels, what does not fit is
    drawn again, after ten times the whole image is taken, and the place is uniform.
    """
    tries = 10
    area = torch.rand(batch, tries, generator=generator) * (1 - least) + least
    low, high = log(RATIO[0]), log(RATIO[1])
    ratio = (torch.rand(batch, tries, generator=generator) * (high - low) + low).exp()
    sides = (
        torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()], 2) * size
    ).round()  # (batch, tries, 2)
    fits = (sides <= size).all(2)
    first = sides[torch.arange(batch), fits.int().argmax(1)]
    sides = torch.where(fits.any(1, keepdim=True), first, torch.tensor(float(size)))  # (batch, 2)
    corner = (torch.rand(batch, 2, generator=generator) * (size - sides + 1)).floor()
    return sides / size, (2 * corner + sides) / size - 1


def _sides(short_side: tuple[float, float], size: int) -> tuple[int, int]:
    """Return the least and the largest shorter side, pixels."""
    return round(short_side[0] * size), round(short_side[1] * size)


def _random_scale_crop(image: Tensor, sides: tuple[int, int], size: int) -> Tensor:
    """Draw the shorter side and the crop's place, uniform in whole pixels, from torch's global generator."""
    side = int(torch.randint(sides[0], sides[1] + 1, ()))
    height, width = (
        max(side, int(side * edge / min(image.shape[-2:]))) for edge in image.shape[-2:]
    )  # as `resize` makes them
    top, left = int(torch.randint(height - size + 1, ())), int(torch.randint(width - size + 1, ()))
    return boxes.scale_crop(image, side, top, left, size)


def _scale_crop(sides: tuple[int, int], size: int, batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Return extent and centre of the crops of `_random_scale_crop`, as `_resized_crop` does."""
    side = torch.randint(sides[0], sides[1] + 1, (batch, 1), generator=generator)
    corner = (torch.rand(batch, 2, generator=generator) * (side - size + 1)).floor()
    scale = (size / side).expand(-1, 2)
    return scale, (2 * corner + size) / side - 1
