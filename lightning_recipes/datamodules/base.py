"""What every image datamodule shares: splits, normalisation, augmentation, the fast path."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from ..layers.augment import lighting_axes
from ..layers.mix import require_partners
from ..preprocessing import Fitted, Normalization, Preprocessing, channel_covariance, fit_normalization
from ..utils.errors import UserError
from .augmentation import Augmentation, Preset, choose
from .batches import BatchLoader, BatchPlan, DecodingLoader, MemoryLoader
from .finish import Finish
from .mixing import Mixing
from .normalization import Normalize, check_normalize, choose_normalization
from .samples import Samples
from .splits import balanced_weights, holdout, kfold, limit_per_class

Split = Literal["train", "val", "test"]


class ImageDataModule(LightningDataModule, ABC):
    """Batches of images and targets, from whatever a subclass reads.

    A subclass implements `load_samples` and gives `class_names`, `channels` and the default `image_size`; see
    docs/subclassing.md. Batches are float32 (B, channels, image_size, image_size), normalised, and int64 (B,)
    (float32 (B, K) when multi-label).

    Args:
        image_size: Side of the square images, pixels; by default what suits the data.
        batch_size: Images a batch on one device.
        augment: What is done to training images: none, light (random shift), standard (random resized crop,
            colour) or strong (also rotation, shear and erasing); or parts of your own, an `Augmentation`.
        horizontal_flip: Also mirror half of the training images; by default unless left and right matter
            (digits). `augment: none` mirrors none, parts of your own say it by `flip`.
        mix: Mixup and cutmix of training batches, a `Mixing`; by default neither.
        normalize: `pretrained` takes the mean and standard deviation of the backbone's weights,
            `channel_mean_std`, `channel_mean`, `mean_image`, `pca` and `whiten` are fitted on the train
            split (docs/methods/normalization.md), `none` only scales to [0, 1]. `auto` takes the backbone's
            when it is pretrained and `channel_mean_std` otherwise. A checkpoint keeps its own.
        crop_pct: The shorter side is resized to `image_size / crop_pct` before the centre crop, in (0, 1].
        val_fraction: Share of the training images that validates, where the data bring no validation split.
        test_fraction: Share of all images that tests, where the data bring no test split; 0 for none.
        fold: Which fold validates, from 0; needs `folds`.
        folds: Number of stratified folds that the training images are cut into.
        limit_per_class: At most so many training images of each class.
        balanced: Draw training images so that every class comes equally often.
        in_memory: Keep all images as one uint8 tensor, without worker processes. By default when they fit
            `memory_limit_gib`.
        memory_limit_gib: What the default of `in_memory` may take, GiB, all splits together.
        num_workers: Processes that read ahead when images are not in memory; by default half of the cores.
        on_bad_image: `raise` names the first image that cannot be read; `skip` tries all of them, leaves
            the bad ones out and lists them in `bad_images`.
        split_seed: The same seed gives the same splits on any machine.

    Raises:
        UserError: An argument out of its bounds; data that cannot be split, each with the remedy.
    """

    def __init__(
        self,
        *,
        image_size: int | None = None,
        batch_size: int = 64,
        augment: Augmentation | Preset = "light",
        horizontal_flip: bool | None = None,
        mix: Mixing | None = None,
        normalize: Normalize = "auto",
        crop_pct: float = 1.0,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        fold: int | None = None,
        folds: int | None = None,
        limit_per_class: int | None = None,
        balanced: bool = False,
        in_memory: bool | None = None,
        memory_limit_gib: float = 2.0,
        num_workers: int | None = None,
        on_bad_image: Literal["raise", "skip"] = "raise",
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"`batch_size` must be at least 1, got {batch_size}.")
        if mix is not None:
            require_partners(batch_size)
        if image_size is not None and image_size < 8:
            raise UserError(f"`image_size` must be at least 8 pixels, got {image_size}.")
        if not 0 < crop_pct <= 1:
            raise UserError(f"`crop_pct` must lie in (0, 1], got {crop_pct}.")
        check_normalize(normalize)
        if (fold is None) != (folds is None):
            raise UserError(f"`fold` and `folds` go together, got fold={fold} and folds={folds}.")
        self._image_size = image_size
        self.batch_size = batch_size
        self.augmentation = choose(augment, horizontal_flip=horizontal_flip, mirrorable=self.mirrorable)
        kept = self.augmentation.flip or self.mirrorable
        self.horizontal_flip = kept if horizontal_flip is None else horizontal_flip  # test-time views ask
        self.mix = mix
        self.normalize = normalize
        self.crop_pct = crop_pct
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.fold, self.folds = fold, folds
        self.limit_per_class = limit_per_class
        self.balanced = balanced
        self.in_memory = in_memory
        self.memory_limit_gib = memory_limit_gib
        self.num_workers = max((os.cpu_count() or 1) // 2, 1) if num_workers is None else num_workers
        self.on_bad_image = on_bad_image
        self.split_seed = split_seed
        self.bad_images: list[str] = []
        self._splits: dict[str, Samples] | None = None
        self._tensors: dict[str, Tensor] = {}
        self._axes: Tensor | None = None
        self._checked: set[str] = set()
        self._fitted: dict[Fitted, Normalization] = {}

    # What a subclass gives

    mirrorable: bool = True
    """Whether an image mirrored left to right keeps its class."""

    @abstractmethod
    def load_samples(self) -> dict[str, Samples]:
        """Return the data as they come: "train", and "val" and "test" where they are given."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """The classes, in the order of their indices."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""

    @property
    def image_size(self) -> int:
        """Side of the images in a batch, pixels."""
        return self._image_size or 224

    # What the others read

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether several classes may hold at once: targets are then float32 (B, K)."""
        return self.splits["train"].targets.ndim > 1

    @property
    def splits(self) -> dict[str, Samples]:
        """The samples of "train", "val" and (where there is one) "test"."""
        if self._splits is None:
            self._splits = self._split(self.load_samples())
        return self._splits

    @property
    def preprocessing(self) -> Preprocessing:
        """Geometry and normalisation of eval images; the checkpoint keeps it."""
        normalization = choose_normalization(
            self.normalize, channels=self.channels, trainer=self.trainer, fit=self._fit_normalization
        )
        return Preprocessing(self.channels, self.image_size, self.crop_pct, normalization)

    def setup(self, stage: str) -> None:
        """Split, and read what is kept in memory: bad data show here, before anything is trained."""
        splits = self.splits
        if self.in_memory is None:
            pixels = self.channels * self.image_size**2
            needed = sum(len(samples) for samples in splits.values()) * pixels / 2**30
            self.in_memory = needed <= self.memory_limit_gib
            if not self.in_memory:
                rank_zero_info(
                    f"The images take {needed:.1f} GiB, over `memory_limit_gib: {self.memory_limit_gib}`: "
                    f"reading them from where they lie with {self.num_workers} workers."
                )
        for name, samples in splits.items():
            if self.in_memory and name not in self._tensors:
                self._tensors[name] = samples.load(self.image_size, self.crop_pct)
            elif not self.in_memory and name not in (
                "train",
                *self._checked,
            ):  # train shows in the first epoch
                if bad := samples.unreadable():
                    raise UserError(bad[0][1])
                self._checked.add(name)

    def train_dataloader(self) -> BatchLoader:
        """Return augmented batches in a new order each epoch; the incomplete last one is dropped."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> BatchLoader:
        """Return the validation split, each sample once."""
        return self._loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Return the test split, each sample once.

        Raises:
            UserError: There is none.
        """
        if "test" not in self.splits:
            raise UserError(
                f"There is no test split: `test_fraction` is {self.test_fraction}. Set it above 0."
            )
        return self._loader("test")

    def train_eval_dataloader(self) -> BatchLoader:
        """Return the train split as it would be evaluated: in order, unaugmented, each sample once."""
        return self._loader("train")

    def _loader(self, name: Split, *, training: bool = False) -> BatchLoader:
        samples = self.splits[name]
        trainer = self.trainer
        seed = (
            torch.initial_seed() % 2**32
        )  # what `seed_everything` was given; a resumed run finds its order again
        if trainer is not None and trainer.world_size > 1:
            seed = trainer.strategy.broadcast(seed)
        plan = BatchPlan(
            len(samples),
            self.batch_size,
            shuffle=training,
            seed=seed,
            weights=balanced_weights(samples.targets) if training and self.balanced else None,
            world_size=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
        )
        augmentation, mix = (self.augmentation, self.mix) if training else (None, None)
        if training and self.augmentation.lighting and self._axes is None:
            self._axes = lighting_axes(channel_covariance(self._train_images()))
        finish = Finish(self.preprocessing, augmentation, mix, self._axes, self.num_classes)
        shared = (plan, self.preprocessing, augmentation)
        if name in self._tensors:
            return MemoryLoader(self._tensors[name], samples.targets, *shared, finish=finish)
        return DecodingLoader(samples, *shared, finish=finish, num_workers=self.num_workers)

    def _split(self, given: dict[str, Samples]) -> dict[str, Samples]:
        if self.num_classes < 2:
            raise UserError(
                f"A classifier needs at least 2 classes, got {self.num_classes} ({self.class_names})."
            )
        if self.on_bad_image == "skip":
            readable = {name: samples.without_unreadable() for name, samples in given.items()}
            self.bad_images += [text for _, bad in readable.values() for text in bad]
            given = {name: samples for name, (samples, _) in readable.items()}
        splits = dict(given)
        shared: dict[str, Any] = {"seed": self.split_seed, "class_names": self.class_names}
        if "test" not in splits and self.test_fraction > 0:
            train, test = holdout(splits["train"].targets, self.test_fraction, name="test_fraction", **shared)
            splits["test"] = splits["train"].subset(test)
            splits["train"] = splits["train"].subset(train)
        if self.fold is not None and self.folds is not None:
            if "val" in splits:
                raise UserError(
                    "`fold` and `folds` cut the training images, but the data bring a validation split."
                )
            train, val = kfold(splits["train"].targets, self.fold, self.folds, **shared)
        elif "val" not in splits:
            train, val = holdout(splits["train"].targets, self.val_fraction, name="val_fraction", **shared)
        if "val" not in splits:
            splits["val"] = splits["train"].subset(val)
            splits["train"] = splits["train"].subset(train)
        if self.limit_per_class is not None:
            chosen = limit_per_class(splits["train"].targets, self.limit_per_class, seed=self.split_seed)
            splits["train"] = splits["train"].subset(chosen)
        return splits

    def _train_images(self) -> Iterable[Tensor]:
        """Return all training images in their eval geometry, uint8 (n, C, S, S) at a time."""
        train, kept = self.splits["train"], self._tensors.get("train")
        return train.stream(self.image_size, self.crop_pct) if kept is None else torch.split(kept, 1024)

    def _fit_normalization(self, mode: Fitted) -> Normalization:
        if mode not in self._fitted:
            self._fitted[mode] = fit_normalization(self._train_images(), mode)
        return self._fitted[mode]
