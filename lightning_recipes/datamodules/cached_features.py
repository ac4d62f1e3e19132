"""What a frozen backbone makes of the images, computed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch import distributed as dist

from ..transfer.features import extract
from ..utils.errors import UserError
from .base import ImageDataModule
from .batches import BatchLoader, BatchPlan
from .finish import Batch
from .samples import Samples


class CachedFeatures(LightningDataModule):
    """Batches of features in place of images, for a linear probe: the backbone runs once over each image.

    Training and validation get `(features (B, D), targets)`, in the order in which the images would come;
    testing gets images. The augmentation of training images is off, for each image has one feature. No
    gradient reaches the backbone through this; `FineTuning(policy="linear_probe")` freezes it in name, too.

    The module must take features where it takes images, as `ImageClassifier` does. The features are made anew
    for each fit and validation, from the weights that the module has by then. Of several processes each makes
    its share, and all get all.

    Args:
        data: Where the images are from.

    Raises:
        UserError: The module has no `backbone`.
    """

    features_of = "backbone"
    """The part of the module that runs over images no more."""

    def __init__(self, data: ImageDataModule) -> None:
        super().__init__()
        self.data = data

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of their indices."""
        return self.data.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.data.num_classes

    @property
    def splits(self) -> dict[str, Samples]:
        """The samples of "train", "val" and (where there is one) "test"."""
        return self.data.splits

    @property
    def multi_label(self) -> bool:
        """Whether several classes may hold at once: targets are then float32 (B, K)."""
        return self.data.multi_label

    @property
    def channels(self) -> int:
        """Channels of the images, 1 or 3."""
        return self.data.channels

    @property
    def image_size(self) -> int:
        """Side of the images, pixels."""
        return self.data.image_size

    @property
    def preprocessing(self) -> Any:  # noqa: ANN401 - as `ImageDataModule` has it
        """How the images are made; the checkpoint keeps it."""
        return self.data.preprocessing

    def prepare_data(self) -> None:
        """Fetch what is absent, on one process."""
        self.data.prepare_data()

    def setup(self, stage: str) -> None:
        """Split and read the images."""
        self.data.trainer = self.trainer
        self.data.setup(stage)

    def train_dataloader(self) -> FeatureLoader:
        """Return the features of the training images, in a new order each epoch."""
        return self._loader("train", self.data.train_eval_dataloader(), self.data.train_dataloader().sampler)

    def train_eval_dataloader(self) -> FeatureLoader:
        """Return the features of the training images as they would be evaluated: in order, each once."""
        images = self.data.train_eval_dataloader()
        return self._loader("train", images, images.sampler)

    def val_dataloader(self) -> FeatureLoader:
        """Return the features of the validation images, each once."""
        images = self.data.val_dataloader()
        return self._loader("validation", images, images.sampler)

    def test_dataloader(self) -> BatchLoader:
        """Return the test images themselves, each once."""
        return self.data.test_dataloader()

    def _loader(self, split: str, images: BatchLoader, plan: BatchPlan) -> FeatureLoader:
        trainer = self.trainer
        assert trainer is not None  # Lightning sets it before it asks for loaders
        module = trainer.lightning_module
        backbone = getattr(module, self.features_of, None)
        if backbone is None:
            raise UserError(f"{type(module).__name__} has no `backbone` whose features could be cached.")
        plugin = trainer.precision_plugin
        with plugin.forward_context():
            features, targets = extract(backbone, map(plugin.convert_input, images), device=module.device)
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            seen = torch.cat([indices for indices, *_ in images.sampler])  # the images of this process
            dist.all_gather_object(shares, (seen, features, targets))
            seen, features, targets = (torch.cat(parts) for parts in zip(*shares, strict=True))
            order = seen.argsort()  # that of the images, by which the plan counts
            features, targets = features[order], targets[order]
        rank_zero_info(
            f"CachedFeatures: the backbone ran once over {len(features)} {split} images; no augmentation."
        )
        return FeatureLoader(features, targets, plan, images)


class FeatureLoader(BatchLoader):
    """Slices of features and targets, in the order of a plan.

    Args:
        features: float32, (N, D).
        targets: int64 (N,) or float32 (N, K).
        sampler: Which of them make a batch.
        images: The loader of the images that they are of.
    """

    def __init__(self, features: Tensor, targets: Tensor, sampler: BatchPlan, images: BatchLoader) -> None:
        super().__init__(sampler, images.preprocessing, None)
        self.features, self.targets = features, targets

    def make(self) -> Iterator[Batch]:
        """Slice."""
        for indices, *_ in self.sampler:
            yield self.features.index_select(0, indices), self.targets.index_select(0, indices)
