"""Small images: scikit-learn's digits, grey and tinted, and some of Fashion-MNIST."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
SIZES = {"digits": 16, "tinted": 16, "fashion": 28}
CHANNELS = {"digits": 1, "tinted": 3, "fashion": 1}
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Splits:
    """Images (N, C, H, W), float, and labels (N,), for training and validation."""

    images: Tensor
    labels: Tensor
    val_images: Tensor
    val_labels: Tensor


def _first(name: str, offset: int, shape: tuple[int, ...]) -> Tensor:
    """Return the beginning of an IDX file."""
    path = DEBIAN / name
    if not path.exists():
        raise SystemExit("Fashion-MNIST is not here: `apt-get install dataset-fashion-mnist`.")
    with gzip.open(path) as file:
        raw = file.read(offset + int(np.prod(shape)))[offset:]
    return torch.from_numpy(np.frombuffer(raw, np.uint8).reshape(shape).copy())


@cache
def _bytes(name: str) -> tuple[Tensor, Tensor, int]:
    """Return images 0..255, (N, C, H, W), float, labels, and how many are for training."""
    if name == "fashion":
        images = _first("train-images-idx3-ubyte.gz", 16, (2500, 1, 28, 28)).float()
        return images, _first("train-labels-idx1-ubyte.gz", 8, (2500,)).long(), 2000
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(digits.images).float()[order, None] * (255 / 16)  # (N, 1, 8, 8)
    images = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    if name == "tinted":
        tints = torch.rand(len(images), 3, 1, 1, generator=torch.Generator().manual_seed(1))
        images = images * (0.3 + 0.7 * tints)  # (N, 3, 16, 16)
    return images, torch.from_numpy(digits.target).long()[order], 1400


def splits(name: str, *, scale: str = "standard") -> Splits:
    """Return the images; `scale` is "raw" (0..255), "unit" (0..1) or "standard" (mean 0, deviation 1)."""
    images, labels, n = _bytes(name)
    if scale != "raw":
        images = images / 255
    if scale == "standard":
        over = (0, 2, 3)
        images = (images - images[:n].mean(over, keepdim=True)) / images[:n].std(over, keepdim=True)
    return Splits(images[:n].clone(), labels[:n].clone(), images[n:].clone(), labels[n:].clone())


def imbalanced(data: Splits, *, ratio: int = 100) -> Splits:
    """Return `data` with training classes that are ever rarer, down to one of `ratio`."""
    classes = int(data.labels.max()) + 1
    largest = int(data.labels.bincount().min())
    kept = [
        (data.labels == k).nonzero()[:, 0][: max(1, round(largest * ratio ** (-k / (classes - 1))))]
        for k in range(classes)
    ]
    index = torch.cat(kept)
    return replace(data, images=data.images[index], labels=data.labels[index])


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Images under a transform, and labels."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Transform) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


def augment(image: Tensor) -> Tensor:
    """Return (C, H, W), shifted by up to two pixels, with some noise."""
    down, right = (int(shift) for shift in torch.randint(-2, 3, (2,)))
    return image.roll((down, right), (1, 2)) + 0.1 * torch.randn_like(image)


def distort(image: Tensor) -> Tensor:
    """Return (C, H, W) with a random square erased, mirrored by chance, and shifted."""
    image = image.flip(2) if torch.rand(()) < 0.5 else image.clone()
    side = image.shape[1] // 3
    top, left = (int(edge) for edge in torch.randint(0, image.shape[1] - side, (2,)))
    image[:, top : top + side, left : left + side] = 0
    return augment(image)


class Images(LightningDataModule):
    """Splits as a user's datamodule: the datasets are built in `setup`."""

    def __init__(
        self,
        data: Splits,
        *,
        batch_size: int = 64,
        shuffle: bool = True,
        transform: Transform | None = None,
        val_transform: Transform | None = None,
        sampler: Sampler[int] | None = None,
    ) -> None:
        super().__init__()
        self.data, self.batch_size, self.shuffle, self.sampler = data, batch_size, shuffle, sampler
        self.transform, self.val_transform = transform, val_transform

    def setup(self, stage: str) -> None:
        """Build the datasets."""
        data = self.data
        self.train_set = self._set(data.images, data.labels, self.transform)
        self.val_set = self._set(data.val_images, data.val_labels, self.val_transform)

    @staticmethod
    def _set(images: Tensor, labels: Tensor, transform: Transform | None) -> Dataset[tuple[Tensor, ...]]:
        return TensorDataset(images, labels) if transform is None else Pairs(images, labels, transform)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the training batches."""
        if self.sampler is not None:
            return DataLoader(self.train_set, batch_size=self.batch_size, sampler=self.sampler)
        return DataLoader(self.train_set, batch_size=self.batch_size, shuffle=self.shuffle)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the validation batches."""
        return DataLoader(self.val_set, batch_size=128)


class TrainOnly(LightningDataModule):
    """One loader, and no validation."""

    def __init__(self, train: DataLoader[tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.train = train

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the training batches."""
        return self.train


class Loaders(TrainOnly):
    """Two loaders that exist already."""

    def __init__(self, train: DataLoader[tuple[Tensor, ...]], val: DataLoader[tuple[Tensor, ...]]) -> None:
        super().__init__(train)
        self.val = val

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the validation batches."""
        return self.val


def loaders(train: Sequence[Tensor], val: Sequence[Tensor], *, batch_size: int = 64) -> Loaders:
    """Return tensors as two loaders, the first shuffled."""
    return Loaders(
        DataLoader(TensorDataset(*train), batch_size=batch_size, shuffle=True),
        DataLoader(TensorDataset(*val), batch_size=128),
    )
