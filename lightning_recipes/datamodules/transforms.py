"""Augmentation presets, in two forms with the same draws: a sample with torchvision, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import log, pi
from typing import Literal, get_args

import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode, v2

from ..layers import augment
from ..preprocessing import fit_geometry
from ..utils.errors import UserError, did_you_mean

Preset = Literal["none", "light", "standard", "strong"]
RATIO = (3 / 4, 4 / 3)  # width over height of a random crop, as in the Inception papers
ERASED = (0.02, 0.2)  # share of the area that erasing takes, as in the random-erasing paper up to 0.2


@dataclass(frozen=True)
class Augmentation:
    """What a preset does to a training image.

    Args:
        flip: Mirror half of the images left to right.
        shift: Zero padding before a random crop of the old size, as a share of the side.
        crop_scale: Least area of a random resized crop; 1 takes none.
        rotation: Largest angle either way, degrees.
        shear: Largest shear either way, degrees.
        jitter: Brightness, contrast and saturation factors lie in [1 - jitter, 1 + jitter].
        erase: Probability of erasing a rectangle.
    """

    flip: bool = False
    shift: float = 0.0
    crop_scale: float = 1.0
    rotation: float = 0.0
    shear: float = 0.0
    jitter: float = 0.0
    erase: float = 0.0

    def padding(self, image_size: int) -> int:
        """Return `shift` in pixels."""
        return round(self.shift * image_size)


PRESETS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation(shift=1 / 8),
    "standard": Augmentation(crop_scale=0.35, jitter=0.2),
    "strong": Augmentation(crop_scale=0.2, rotation=15, shear=10, jitter=0.4, erase=0.25),
}


def preset(name: str, *, horizontal_flip: bool) -> Augmentation:
    """Return the preset `name`; `none` never mirrors, the others do when `horizontal_flip` is set.

    Raises:
        UserError: There is no such preset.

    >>> preset("light", horizontal_flip=True)
    Augmentation(flip=True, shift=0.125, crop_scale=1.0, rotation=0.0, shear=0.0, jitter=0.0, erase=0.0)
    """
    if name not in PRESETS:
        listed = ", ".join(get_args(Preset))
        raise UserError(f"`augment` must be one of {listed}, got {name!r}.{did_you_mean(name, PRESETS)}")
    return replace(PRESETS[name], flip=horizontal_flip and name != "none")


def sample_transform(
    augmentation: Augmentation, image_size: int, crop_pct: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """Return the torchvision transform of one image: uint8 (C, h, w) to uint8 (C, image_size, image_size).

    It draws from torch's global generator.
    """
    a = augmentation
    steps: list[Callable[[Tensor], Tensor]] = []
    if a.crop_scale < 1:
        steps.append(v2.RandomResizedCrop(image_size, scale=(a.crop_scale, 1.0), ratio=RATIO, antialias=True))
    else:
        steps.append(partial(fit_geometry, image_size=image_size, crop_pct=crop_pct))
        if a.shift:
            steps.append(v2.RandomCrop(image_size, padding=a.padding(image_size)))
    if a.flip:
        steps.append(v2.RandomHorizontalFlip())
    if a.rotation or a.shear:
        steps.append(v2.RandomAffine(a.rotation, shear=a.shear, interpolation=InterpolationMode.BILINEAR))
    if a.jitter:
        steps.append(v2.ColorJitter(brightness=a.jitter, contrast=a.jitter, saturation=a.jitter))
    if a.erase:
        steps.append(v2.RandomErasing(a.erase, scale=ERASED, ratio=RATIO))
    return v2.Compose(steps) if len(steps) > 1 else steps[0]


def batch_transform(augmentation: Augmentation, images: Tensor, generator: Generator) -> Tensor:
    """Augment images that are already in their final geometry, a draw for each sample.

    The draws are distributed as those of `sample_transform`. One thing differs: a crop that is turned as well
    shows here what lies beyond it, there black corners.

    Args:
        augmentation: What to do.
        images: uint8, (B, C, S, S).
        generator: Where all draws come from.

    Returns:
        uint8, or float in [0, 255] where pixels were resampled or scaled; (B, C, S, S).
    """
    a, batch, size = augmentation, len(images), images.shape[-1]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(batch, generator=generator) * (high - low) + low

    flip = uniform(0, 1) < 0.5 if a.flip else torch.zeros(batch, dtype=torch.bool)
    warps = a.crop_scale < 1 or a.rotation or a.shear
    if a.shift or (a.flip and not warps):
        pad = a.padding(size)
        dy, dx = torch.randint(0, 2 * pad + 1, (2, batch), generator=generator)
        images = augment.shift_flip(images, dy, dx, flip, pad)
        flip = torch.zeros_like(flip)
    if warps:
        scale, centre = torch.ones(batch, 2), torch.zeros(batch, 2)
        if a.crop_scale < 1:
            scale, centre = _resized_crop(a.crop_scale, size, batch, generator)
        angle = uniform(-a.rotation, a.rotation) * pi / 180
        shear = uniform(-a.shear, a.shear) * pi / 180
        theta = augment.affine(scale, centre, angle, shear, flip)
        images = augment.warp(images.float(), theta, "zeros" if a.rotation or a.shear else "border")
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
        images = augment.erase(images, top, left, height, width)
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
