"""Data sets that torchvision knows by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as F

from ..utils.errors import UserError, did_you_mean
from .base import ImageDataModule
from .samples import ArrayReader, Samples

Name = Literal[
    "MNIST",
    "FashionMNIST",
    "CIFAR10",
    "CIFAR100",
    "SVHN",
    "Flowers102",
    "OxfordIIITPet",
    "Food101",
    "EuroSAT",
]


@dataclass(frozen=True)
class _Facts:
    """What is known of a data set before it is there."""

    classes: int
    channels: int
    image_size: int
    splits: dict[str, dict[str, Any]]  # ours to torchvision's arguments
    mirrorable: bool = True


_TRAIN_FLAG: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST: dict[str, dict[str, Any]] = {"train": {"split": "train"}, "test": {"split": "test"}}
_FACTS = {
    "MNIST": _Facts(10, 1, 32, _TRAIN_FLAG, mirrorable=False),
    "FashionMNIST": _Facts(10, 1, 32, _TRAIN_FLAG),
    "CIFAR10": _Facts(10, 3, 32, _TRAIN_FLAG),
    "CIFAR100": _Facts(100, 3, 32, _TRAIN_FLAG),
    "SVHN": _Facts(10, 3, 32, _TRAIN_TEST, mirrorable=False),
    "Flowers102": _Facts(102, 3, 224, {name: {"split": name} for name in ("train", "val", "test")}),
    "OxfordIIITPet": _Facts(37, 3, 224, {"train": {"split": "trainval"}, "test": {"split": "test"}}),
    "Food101": _Facts(101, 3, 224, _TRAIN_TEST),
    "EuroSAT": _Facts(10, 3, 64, {"train": {}}),
}


class TorchvisionDataModule(ImageDataModule):
    """A torchvision data set by its name, with the official test split where there is one.

    Args:
        name: MNIST, FashionMNIST, CIFAR10, CIFAR100, SVHN, Flowers102, OxfordIIITPet, Food101 or EuroSAT.
        root: Where the files lie or go.
        download: Fetch what is absent.
        options: All arguments of `ImageDataModule`.

    Raises:
        UserError: An unknown name; files that are absent with `download=False`, or cannot be fetched.
    """

    def __init__(
        self,
        name: Name,
        *,
        root: str | PathLike[str] = "data",
        download: bool = False,
        **options: Any,  # noqa: ANN401 - handed on to ImageDataModule, whose signature the CLI reads
    ) -> None:
        if name not in _FACTS:
            raise UserError(
                f"`name` must be one of {', '.join(get_args(Name))}, got {name!r}."
                f"{did_you_mean(name, _FACTS)}"
            )
        self.name: str = name
        self.root, self.download = Path(root).expanduser(), download
        self._facts = _FACTS[name]
        self._names: list[str] | None = None
        self.mirrorable = self._facts.mirrorable
        super().__init__(**options)

    @property
    def class_names(self) -> list[str]:
        """Torchvision's names for the classes, their numbers where it has none or before it is loaded."""
        known = self._names or getattr(getattr(datasets, self.name), "classes", None)
        numbers = [str(number) for number in range(self.num_classes)]
        return [str(name) for name in known] if isinstance(known, Sequence) else numbers

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self._facts.classes

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self._facts.channels

    @property
    def image_size(self) -> int:
        """Side of the images in a batch, pixels."""
        return self._image_size or self._facts.image_size

    def prepare_data(self) -> None:
        """Fetch what is absent, on one process."""
        if self.download:
            for split in self._facts.splits:
                self._open(split, download=True)

    def load_samples(self) -> dict[str, Samples]:
        """Return torchvision's own splits."""
        out = {}
        for split in self._facts.splits:
            dataset = self._open(split, download=False)
            self._names = getattr(dataset, "classes", None)
            targets = next(
                t
                for key in ("targets", "labels", "_labels")
                if (t := getattr(dataset, key, None)) is not None
            )
            data = getattr(dataset, "data", None)
            labels = torch.as_tensor(targets).long()
            if data is None:
                out[split] = Samples(range(len(labels)), labels, _DatasetReader(dataset))
            else:
                out[split] = Samples(_pixels(data), labels, ArrayReader(self.channels))
        return out

    def _open(self, split: str, *, download: bool) -> Any:  # noqa: ANN401 - a torchvision data set of any kind
        arguments = self._facts.splits[split]
        try:
            return getattr(datasets, self.name)(self.root, download=download, **arguments)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            if download:
                raise UserError(
                    f"Cannot fetch {self.name} to {self.root}: {reason}. Check the connection, or put its "
                    "files there."
                ) from error
            raise UserError(
                f"{self.name} is not in {self.root}: {reason}. Set `download: true`, or `root` to where it "
                "lies."
            ) from error


@dataclass(frozen=True)
class _DatasetReader:
    """Read one image of a data set that reads files: its index to uint8 (3, h, w)."""

    dataset: Any

    def __call__(self, index: int) -> Tensor:
        pixels: Tensor = F.pil_to_tensor(self.dataset[index][0].convert("RGB"))
        return pixels


def _pixels(data: Any) -> Tensor:  # noqa: ANN401 - an array or a tensor, in one of torchvision's layouts
    """Return uint8 (N, C, h, w)."""
    pixels = torch.as_tensor(data)
    if pixels.ndim == 3:  # (N, h, w): MNIST
        return pixels[:, None]
    return pixels.permute(0, 3, 1, 2).contiguous() if pixels.shape[-1] == 3 else pixels  # CIFAR, SVHN
