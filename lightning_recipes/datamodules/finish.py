"""What both loaders do to a batch once its samples are stacked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..layers import augment, boxes
from ..preprocessing import Preprocessing
from ..utils.errors import UserError
from .augmentation import Augmentation
from .mixing import Mixing

Batch = tuple[Tensor, Tensor]  # float32 (B, C, S, S), and int64 (B,) or float32 (B, K)


@dataclass(frozen=True)
class Finish:
    """The last steps of a batch: lighting, normalisation, cutout, mixing, in this order.

    Lighting comes before the normalisation, whatever that is; cutout behind it, where zero is the mean. The
    matrix of `pca` and `whiten` comes last, for after it there are no squares to cut or to paste.

    Args:
        preprocessing: Of which the normalisation is left to do.
        augmentation: None in evaluation.
        mixing: None in evaluation, and without.
        axes: What `lighting_axes` returns, (C, C); needed for lighting.
        num_classes: K; needed for mixing.

    Raises:
        UserError: Lighting without `axes`.
    """

    preprocessing: Preprocessing
    augmentation: Augmentation | None = None
    mixing: Mixing | None = None
    axes: Tensor | None = None
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.augmentation is not None and self.augmentation.lighting and self.axes is None:
            raise UserError(
                "Lighting needs the colours of the train split, got none. Give `axes=lighting_axes(...)`, or "
                "set `augment.lighting` to 0."
            )

    def __call__(self, images: Tensor, targets: Tensor, generator: Generator, epoch: int) -> Batch:
        """Return what the network is fed.

        Args:
            images: uint8 or float in [0, 255], (B, C, S, S); a float tensor is written into.
            targets: int64 (B,) or float32 (B, K).
            generator: Where all draws come from.
            epoch: From 0.
        """
        a, batch, size = self.augmentation, len(images), images.shape[-1]
        if a is not None and a.lighting and self.axes is not None:
            draws = torch.randn(batch, len(self.axes), generator=generator) * a.lighting
            images = augment.lighting(images, self.axes, draws)
        normalization = self.preprocessing.normalization
        images = normalization.scale(images)
        if a is not None and a.cutout:
            row, column = torch.randint(size, (2, batch), generator=generator)
            chosen = torch.rand(batch, generator=generator) < a.cutout_probability
            images = boxes.cutout(images, row, column, round(a.cutout * size) * chosen.long())
        if self.mixing is not None:
            images, targets = self.mixing(
                images, targets, num_classes=self.num_classes, epoch=epoch, generator=generator
            )
        return normalization.rotate(images), targets
