"""What is done to training images: each part by itself, and presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Literal, get_args

from ..layers.augment import elastic_reach
from ..utils.errors import UserError, did_you_mean

Preset = Literal["none", "light", "standard", "strong"]
_CROPS = ("shift", "crop_scale", "short_side")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a training image; every part is off by default.

    Each sample has draws of its own, "at most x" means uniform in [-x, x], and what lies outside an image is
    black. `shift`, `crop_scale` and `short_side` are three kinds of random crop, of which one is taken.

    Args:
        flip: Mirror half of the images left to right.
        shift: Zero padding before a random crop of the old size, as a share of the side.
        crop_scale: Least area of a random resized crop; 1 takes none.
        short_side: Random scale and crop: the shorter side is drawn between these multiples of the crop's,
            and the crop's place; [1.143, 2.143] is [256, 480] for crops of 224.
        rotation: Turn by at most so many degrees.
        shear: Shear along x by at most so many degrees.
        translate: Move by at most this share of the side, down and across.
        elastic: Strength α and smoothness σ (pixels) of a random distortion, as of torchvision's
            `ElasticTransform`: smoothed noise of 1 moves a pixel by α/2.
        jitter: Brightness, contrast and saturation factors lie in [1 - jitter, 1 + jitter].
        lighting: Standard deviation of AlexNet's shift of an image's colour along the principal components of
            the training pixels; AlexNet took 0.1.
        erase: Probability of blackening a rectangle.
        cutout: Side of a square that is set to the mean colour, as a share of the image's side. Its centre is
            any pixel, so that part of it may lie outside.
        cutout_probability: Share of the images that are cut.

    Raises:
        UserError: A value out of its bounds, or two kinds of crop.

    >>> Augmentation(rotation=10, cutout=0.5).parts
    {'rotation': 10, 'cutout': 0.5}
    """

    flip: bool = False
    shift: float = 0.0
    crop_scale: float = 1.0
    short_side: tuple[float, float] | None = None
    rotation: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    elastic: tuple[float, float] | None = None
    jitter: float = 0.0
    lighting: float = 0.0
    erase: float = 0.0
    cutout: float = 0.0
    cutout_probability: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high, off) in _BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(
                    f"`augment.{name}` must lie in [{low}, {high}], got {value}. "
                    f"To leave it out, set it to {off}."
                )
        if self.short_side is not None and not 1 <= self.short_side[0] <= self.short_side[1] < inf:
            raise UserError(
                "`augment.short_side` must be two rising multiples of the crop's side, at least 1 (an image "
                f"cannot be smaller than its crop), got {list(self.short_side)}. Take [1.143, 2.143]."
            )
        if self.elastic is not None and not (0 <= self.elastic[0] < inf and 0 < self.elastic[1] < inf):
            raise UserError(
                "`augment.elastic` must be [α, σ] with α at least 0 and σ above 0 pixels, got "
                f"{list(self.elastic)}. To leave it out, set it to null."
            )
        if len(crops := [name for name in _CROPS if name in self.parts]) > 1:
            raise UserError(
                f"`augment` must have one kind of crop, got {' and '.join(f'`{name}`' for name in crops)}. "
                "Leave out all but one."
            )

    @property
    def parts(self) -> dict[str, object]:
        """The parts that are not as by default."""
        return {name: value for name, value in vars(self).items() if value != getattr(type(self), name)}

    def padding(self, image_size: int) -> int:
        """Return `shift` in pixels."""
        return round(self.shift * image_size)

    def check_size(self, image_size: int) -> None:
        """Refuse images that are too small for what is asked.

        Raises:
            UserError: The Gaussian of `elastic` reaches farther than the image.
        """
        if self.elastic is not None and elastic_reach(self.elastic[1]) >= image_size:
            raise UserError(
                f"`augment.elastic` must have a σ below about a quarter of the image's side of {image_size} "
                f"pixels, got {self.elastic[1]}. Lower it, or raise `image_size`."
            )


# Least, most, and what switches the part off
_BOUNDS = {
    "shift": (0, 1, 0),
    "crop_scale": (0.01, 1, 1),
    "rotation": (0, 180, 0),
    "shear": (0, 89, 0),
    "translate": (0, 1, 0),
    "jitter": (0, 1, 0),
    "lighting": (0, 10, 0),
    "erase": (0, 1, 0),
    "cutout": (0, 1, 0),
    "cutout_probability": (0, 1, 0),
}

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

    >>> preset("light", horizontal_flip=True).parts
    {'flip': True, 'shift': 0.125}
    """
    if name not in PRESETS:
        listed = ", ".join(get_args(Preset))
        raise UserError(f"`augment` must be one of {listed}, got {name!r}.{did_you_mean(name, PRESETS)}")
    return replace(PRESETS[name], flip=horizontal_flip and name != "none")


def choose(augment: str | Augmentation, *, horizontal_flip: bool | None, mirrorable: bool) -> Augmentation:
    """Return the preset, or the parts as they are given; `horizontal_flip` has the last word on mirroring.

    Args:
        augment: A preset's name, or parts.
        horizontal_flip: None leaves it to the parts, and of a preset to `mirrorable`.
        mirrorable: Whether a mirrored image keeps its class.

    >>> choose(Augmentation(flip=True), horizontal_flip=False, mirrorable=True).flip
    False
    """
    if isinstance(augment, Augmentation):
        return augment if horizontal_flip is None else replace(augment, flip=horizontal_flip)
    return preset(augment, horizontal_flip=mirrorable if horizontal_flip is None else horizontal_flip)
