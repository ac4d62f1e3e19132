"""scikit-learn's handwritten digits: real scans that need no download."""

from __future__ import annotations

import torch

from .base import ImageDataModule
from .samples import ArrayReader, Samples


class DigitsDataModule(ImageDataModule):
    """1,797 scans of the digits 0 to 9, grey, 8 × 8 pixels, embedded in scikit-learn.

    Images are resized to 32 × 32 by default and never mirrored by default. Arguments: see `ImageDataModule`.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).

    >>> data = DigitsDataModule()
    >>> data.setup("fit")
    >>> images, targets = next(iter(data.val_dataloader()))
    >>> images.shape, targets.shape
    (torch.Size([64, 1, 32, 32]), torch.Size([64]))
    """

    mirrorable = False
    class_names = [str(digit) for digit in range(10)]  # noqa: RUF012 - in place of a property
    channels = 1

    @property
    def image_size(self) -> int:
        """Side of the images in a batch, pixels."""
        return self._image_size or 32

    def load_samples(self) -> dict[str, Samples]:
        """Return all digits as "train": the splits are ours."""
        from sklearn.datasets import load_digits  # slow to import

        digits = load_digits()
        images = torch.from_numpy(digits.images)[:, None]  # float64 (N, 1, 8, 8) in 0..16
        pixels = (images * (255 / 16)).round().to(torch.uint8)
        return {"train": Samples(pixels, torch.from_numpy(digits.target).long(), ArrayReader(self.channels))}
