"""All that must be known to make an eval image as in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..utils.errors import UserError
from .normalization import Normalization


@dataclass(frozen=True)
class Preprocessing:
    """How eval images are made; stored in the checkpoint, so that a checkpoint is enough to predict.

    Args:
        channels: 1 (grey) or 3 (RGB).
        image_size: Side of the square that the network sees, pixels.
        crop_pct: The shorter side is resized to `image_size / crop_pct`, then the centre is cropped.
        normalization: What is subtracted, divided by and multiplied with.

    Raises:
        UserError: The normalisation is of images of another shape.
    """

    channels: int
    image_size: int
    crop_pct: float
    normalization: Normalization

    def __post_init__(self) -> None:
        """Refuse a mean image of another shape, as that of a checkpoint may be."""
        fitted, given = self.normalization.image_shape, (self.channels, self.image_size, self.image_size)
        if fitted not in (None, given):
            raise UserError(
                f"The normalisation was fitted on images of {fitted}, these are of {given} (channels, "
                f"height, width). Set `image_size` to {fitted[-1]}, and give as many channels."
            )

    def normalize(self, images: Tensor) -> Tensor:
        """Return the normalised images.

        Args:
            images: uint8, or any number in 0..255, (B, C, H, W).

        Returns:
            float32, (B, C, H, W).
        """
        return self.normalization.apply(images)

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, lists and tensors, for a checkpoint."""
        return {
            "channels": self.channels,
            "image_size": self.image_size,
            "crop_pct": self.crop_pct,
            **self.normalization.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """Return what `to_dict` stored."""
        return cls(
            stored["channels"],
            stored["image_size"],
            stored["crop_pct"],
            Normalization.from_dict(stored),
        )
