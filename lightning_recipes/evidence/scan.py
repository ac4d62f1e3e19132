"""One look through a loader: batches to keep; labels, hashes and faults of what there is time for."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from ..utils.hashes import sample_hashes
from ..utils.loaders import undisturbed
from .batches import copied, inputs_of, labels_of, moved, size_of

KEPT_SAMPLES, KEPT_BYTES = 512, 2**28
LEAST_BATCHES = 10


@dataclass
class Scan:
    """What was seen.

    Args:
        batches: The first ones, as a training step is given them; at least 512 samples where there are so
            many.
        labels: Of each batch that was seen, (B,); empty where batches hold no one label a sample.
        hashes: Of each sample's bytes, as the loader gave it.
        samples: How many were seen.
        complete: All of the loader's were.
        broken: Numbers of samples that hold NaN or infinity.
        error: What the loader raised, if it did.
    """

    batches: list[Any] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    samples: int = 0
    complete: bool = False
    broken: list[int] = field(default_factory=list)
    error: Exception | None = None

    @property
    def inputs(self) -> Tensor | None:
        """Return the inputs of the kept batches, as far as they fit together."""
        found = [x for x in map(inputs_of, self.batches) if x is not None]
        return torch.cat([x for x in found if x.shape[1:] == found[0].shape[1:]]) if found else None

    @property
    def targets(self) -> Tensor | None:
        """Return the labels of the samples in `inputs`; None where there are none."""
        found = [labels_of(batch) for batch in self.batches]
        usable = [label for label in found if label is not None]
        return torch.cat(usable) if usable and len(usable) == len(found) else None


def scan(trainer: Trainer, loader: Any, *, deadline: float) -> Scan:  # noqa: ANN401 - any iterable of batches
    """Look through a loader; neither it nor any generator notices.

    Args:
        trainer: Whose hooks move the batches.
        loader: Of training or validation batches, or several in a list or dict.
        deadline: Of `time.monotonic()`, after which only what is needed is read.
    """
    seen = Scan()
    kept_bytes = 0
    batches = raw_batches(loader)
    with closing(batches):
        try:
            for number, raw in enumerate(batches):
                size = size_of(raw)
                inputs = inputs_of(raw)
                labels = labels_of(raw)
                if labels is not None:
                    seen.labels.append(labels.cpu())
                if inputs is not None:
                    finite = torch.isfinite(inputs.flatten(1)).all(1)
                    if not bool(finite.all()):
                        seen.broken += [seen.samples + int(i) for i in (~finite).nonzero()[:, 0]]
                    seen.hashes += sample_hashes(inputs)
                enough = (seen.samples >= KEPT_SAMPLES and number >= 2) or kept_bytes > KEPT_BYTES
                if not enough:
                    batch = copied(moved(trainer, raw))
                    kept_bytes += 0 if inputs is None else inputs.nbytes
                    seen.batches.append(batch)
                seen.samples += size
                if number >= LEAST_BATCHES and time.monotonic() > deadline:
                    return seen
            seen.complete = True
        except Exception as error:  # somebody else's data set
            seen.error = error
    return seen


def raw_batches(loader: Any) -> Generator[Any]:  # noqa: ANN401 - any iterable of batches
    """Yield a loader's batches, leaving no trace in it nor in any generator when the iteration is over.

    Args:
        loader: Any iterable of batches, or a list or dict of them, which are cycled to the longest.
    """
    with undisturbed(loader) as twin:
        if isinstance(twin, (dict, list, tuple)):
            for batch, _, _ in iter(CombinedLoader(twin, "max_size_cycle")):
                yield batch
        else:
            yield from twin
