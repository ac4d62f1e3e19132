"""Which samples make a batch, and the two ways to make it: from memory and through a `DataLoader`."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from math import ceil

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from typing_extensions import Self

from ..preprocessing import Preprocessing
from ..utils.loaders import independent
from .augmentation import Augmentation
from .finish import Batch, Finish
from .samples import Samples
from .transforms import batch_transform, sample_transform

Step = tuple[Tensor, int, int]  # int64 (B,) indices, the seed of the batch's draws, and the epoch


class BatchPlan(Sampler[Step]):
    """The batches of an epoch as a pure function of (seed, epoch, batch): indices, seed for the draws, epoch.

    What a batch holds does not depend on the workers, on other random numbers or on what came before, so a
    run can be picked up at any batch. Ranks take turns within each global batch: in training every rank gets
    as many samples as the others, in evaluation every sample is seen exactly once and every rank gets as many
    batches as the others.

    Args:
        size: Number of samples.
        batch_size: Samples a batch on one rank.
        shuffle: A new order each epoch, and incomplete batches dropped (unless there is no complete one).
        seed: Of the order and of the draws.
        weights: Draw with replacement, with these weights, (size,).
        world_size: Number of ranks.
        rank: This rank.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        weights: Tensor | None = None,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        self.size, self.batch_size = size, batch_size
        self.shuffle, self.seed, self.weights = shuffle, seed, weights
        self.world_size, self.rank = world_size, rank
        self.epoch = 0
        self.start = 0  # the first batch that the next iteration makes
        stride = batch_size * world_size
        rest = size % stride
        whole = size // stride
        # Evaluation: a rest too small for one sample a rank joins the batch before it.
        self.batches = max(whole, 1) if shuffle or (whole and rest < world_size) else ceil(size / stride)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Step]:
        generator = Generator().manual_seed(_mix(self.seed, self.epoch))
        if self.weights is not None:
            order = torch.multinomial(self.weights, self.size, replacement=True, generator=generator)
        elif self.shuffle:
            order = torch.randperm(self.size, generator=generator)
        else:
            order = torch.arange(self.size)
        stride = self.batch_size * self.world_size
        for number in range(self.start, self.batches):
            last = number == self.batches - 1 and not self.shuffle
            chosen = order[number * stride :] if last else order[number * stride : (number + 1) * stride]
            if self.shuffle and len(chosen) % self.world_size:  # fewer samples than one global batch
                chosen = chosen[: len(chosen) // self.world_size * self.world_size]
            seed = _mix(self.seed, self.epoch, number, self.rank)
            yield chosen[self.rank :: self.world_size], seed, self.epoch


def _drawing(seed: int) -> Generator:
    """Return the generator of `Finish`: apart from that of the samples, so that both loaders finish alike."""
    return Generator().manual_seed(_mix(seed, 1))


def _mix(*numbers: int) -> int:
    """Return one 63-bit seed from several small numbers (the same on every machine)."""
    state = 0
    for number in numbers:
        state = (state ^ number) * 6364136223846793005 + 1442695040888963407
        state = (state ^ (state >> 29)) & (2**63 - 1)
    return state


class BatchLoader(ABC):
    """Batches of images and targets, in the order of a plan.

    Lightning treats it as any iterable: it tells the plan the epoch, and leaves the sharding to it. Its state
    is how far it got; Lightning puts it into checkpoints, and a resumed run goes on at the next batch.

    Args:
        sampler: Which samples make a batch.
        preprocessing: Geometry and normalisation.
        augmentation: None in evaluation.
        finish: What is done to the stacked batch; by default what the two before say.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a `sampler`

    def __init__(
        self,
        sampler: BatchPlan,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        finish: Finish | None = None,
    ) -> None:
        self.sampler, self.preprocessing, self.augmentation = sampler, preprocessing, augmentation
        self.finish = finish or Finish(preprocessing, augmentation)
        self._given = 0  # batches of this epoch so far
        self._resumed: dict[str, int] | None = None

    @property
    def batch_size(self) -> int:
        """Samples a batch on one rank."""
        return self.sampler.batch_size

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        resumed, self._resumed = self._resumed, None
        same = resumed is not None and resumed["epoch"] == self.sampler.epoch
        self._given = resumed["batch"] % len(self) if resumed is not None and same else 0
        self.sampler.start = self._given
        for batch in self.make():
            self._given += 1
            yield batch

    @abstractmethod
    def make(self) -> Iterator[Batch]:
        """Yield what the plan says."""

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were given."""
        return {"epoch": self.sampler.epoch, "batch": self._given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Begin the next iteration, if it is of that epoch, at the next batch."""
        self._resumed = dict(state_dict)

    def independent(self, sampler: BatchPlan | None = None) -> Self:
        """Return a loader of the same batches, or of those of another plan, that leaves this one alone."""
        twin = copy.copy(self)
        twin.sampler = sampler or copy.copy(self.sampler)
        return twin


class MemoryLoader(BatchLoader):
    """The fast path: one uint8 tensor, sliced by index and augmented a batch at a time, without workers.

    Args:
        images: uint8, (N, C, S, S), in their eval geometry.
        targets: int64 (N,) or float32 (N, K).
        sampler: As for `BatchLoader`, and so the others.
        preprocessing: Of which the normalisation is left to do.
        augmentation: None in evaluation.
        finish: As for `BatchLoader`.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        sampler: BatchPlan,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        *,
        finish: Finish | None = None,
    ) -> None:
        super().__init__(sampler, preprocessing, augmentation, finish)
        self.images, self.targets = images, targets

    def make(self) -> Iterator[Batch]:
        """Slice, augment and finish."""
        for indices, seed, epoch in self.sampler:
            images = self.images.index_select(0, indices)
            if self.augmentation is not None:
                images = batch_transform(self.augmentation, images, Generator().manual_seed(seed))
            yield self.finish(images, self.targets.index_select(0, indices), _drawing(seed), epoch)


class DecodingLoader(BatchLoader):
    """The ordinary path: the same batches as `MemoryLoader` in evaluation, read sample by sample.

    Args:
        samples: Where images are read.
        sampler: As for `BatchLoader`, and so the others.
        preprocessing: Geometry and normalisation.
        augmentation: None in evaluation.
        finish: As for `BatchLoader`.
        num_workers: Processes that read ahead; they change the speed and nothing else.
    """

    def __init__(
        self,
        samples: Samples,
        sampler: BatchPlan,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        *,
        finish: Finish | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__(sampler, preprocessing, augmentation, finish)
        self._loader = DataLoader(
            _DecodedBatches(samples, preprocessing, augmentation, self.finish),
            batch_size=None,  # the sampler's items are whole batches
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            generator=Generator(),  # torch's own is left alone
        )

    def make(self) -> Iterator[Batch]:
        """Yield what the workers have read."""
        return iter(self._loader)

    def independent(self, sampler: BatchPlan | None = None) -> Self:
        """Return a loader of the same batches, or of those of another plan, with workers of its own."""
        twin = super().independent(sampler)
        twin._loader = independent(self._loader)
        twin._loader.__dict__["sampler"] = twin.sampler  # a DataLoader refuses assignment
        return twin


class _DecodedBatches(Dataset[Batch]):
    """Reads, transforms, stacks and finishes the samples of one batch."""

    def __init__(
        self,
        samples: Samples,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None,
        finish: Finish,
    ) -> None:
        self.samples, self.finish = samples, finish
        size, crop_pct = preprocessing.image_size, preprocessing.crop_pct
        self.transform = sample_transform(augmentation or Augmentation(), size, crop_pct)

    def __getitem__(self, step: Step) -> Batch:
        indices, seed, epoch = step
        with torch.random.fork_rng(devices=[]):  # the draws depend on the batch alone, not on the worker
            torch.manual_seed(seed)
            images = torch.stack([self.transform(self.samples.read(int(index))) for index in indices])
        return self.finish(images, self.samples.targets[indices], _drawing(seed), epoch)
