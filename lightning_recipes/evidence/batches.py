"""Batches of any form: tensors in tuples, lists and dicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..utils.loaders import undisturbed


def tensors_of(batch: Any) -> list[Tensor]:  # noqa: ANN401 - batches have any form
    """Return all tensors of a batch, in order."""
    return [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]


def size_of(batch: Any) -> int:  # noqa: ANN401
    """Return the number of samples: the length of the first tensor that has one; 0 where there is none.

    >>> size_of({"image": torch.zeros(4, 3), "index": torch.zeros(4)})
    4
    """
    return next((len(tensor) for tensor in tensors_of(batch) if tensor.dim()), 0)


def inputs_of(batch: Any) -> Tensor | None:  # noqa: ANN401
    """Return the inputs: the floating-point tensor with the most numbers; None where there is none."""
    floats = [t for t in tensors_of(batch) if t.is_floating_point() and t.dim() > 1]
    return max(floats, key=Tensor.numel, default=None)


def labels_of(batch: Any) -> Tensor | None:  # noqa: ANN401
    """Return the labels, (N,) integers; None unless there is one such tensor.

    >>> labels_of((torch.zeros(2, 3), torch.tensor([4, 5])))
    tensor([4, 5])
    """
    size = size_of(batch)
    found = [
        tensor
        for tensor in tensors_of(batch)
        if not tensor.is_floating_point() and not tensor.is_complex() and tensor.shape in ((size,), (size, 1))
    ]
    return found[0].reshape(-1) if len(found) == 1 else None


def with_inputs(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401
    """Return the batch with its inputs changed, and all else as it is.

    Args:
        batch: Tensors in tuples, lists and dicts.
        change: Given the inputs, (N, ...), returns as many.
    """
    inputs = inputs_of(batch)
    if inputs is None:
        return batch
    changed = change(inputs)
    return tree_map(lambda leaf: changed if leaf is inputs else leaf, batch)


def take(batch: Any, indices: Tensor | slice) -> Any:  # noqa: ANN401
    """Return the samples at `indices`, of every tensor that is as long as the batch.

    Args:
        batch: Of N samples, in any form.
        indices: Into the N samples.

    >>> take((torch.arange(4), 3), slice(2))
    (tensor([0, 1]), 3)
    """
    size = size_of(batch)

    def part(leaf: Any) -> Any:  # noqa: ANN401
        return leaf[indices] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == size else leaf

    return tree_map(part, batch)


def copied(batch: Any) -> Any:  # noqa: ANN401
    """Return a batch whose tensors are its own, so that work in place does no harm."""
    return tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, batch)


def joined(batches: Sequence[Any]) -> Any:  # noqa: ANN401
    """Return one batch with the samples of all; the first one where they do not fit together.

    Args:
        batches: One or more, of any form; they fit where structures and the samples' shapes are the same.
    """
    leaves, structures = zip(*(tree_flatten(batch) for batch in batches), strict=True)
    if len(batches) == 1 or any(structure != structures[0] for structure in structures):
        return batches[0]
    sizes = [size_of(batch) for batch in batches]
    whole = []
    for parts in zip(*leaves, strict=True):
        alike = all(isinstance(part, Tensor) and part.dim() for part in parts)
        if not alike:
            whole.append(parts[0])
        elif any(p.shape[1:] != parts[0].shape[1:] or len(p) != n for p, n in zip(parts, sizes, strict=True)):
            return batches[0]
        else:
            whole.append(torch.cat(parts))
    return tree_unflatten(whole, structures[0])


def moved(trainer: Trainer, batch: Any) -> Any:  # noqa: ANN401
    """Return a loader's batch as a training step is given it: converted, on the device, after all hooks."""
    module = trainer.lightning_module
    batch = trainer.precision_plugin.convert_input(batch)
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def fresh_batches(trainer: Trainer, loader: Any, limit: int | None = None) -> Iterator[Any]:  # noqa: ANN401
    """Yield the batches of `loader` as a step is given them; neither loader nor generators notice.

    Each is taken from the loader anew, and moved by the trainer's own hooks. Call it within one block: the
    generators are put back when the iteration ends or the iterator is closed.

    Args:
        trainer: Whose hooks move the batches.
        loader: Any iterable of batches.
        limit: At most so many batches; None for all.
    """
    with undisturbed(loader) as twin:
        for batch in islice(twin, limit):
            yield copied(moved(trainer, batch))


class Served:
    """A loader of the given batches, over and over, as long as the real one.

    Args:
        batches: As a training step is given them; each is copied when it is served.
        length: Number of batches in an epoch.
    """

    def __init__(self, batches: Sequence[Any], length: int) -> None:
        self.batches, self.length = batches, length
        self.served = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.length):
            self.served += 1  # before: nobody comes back after the last batch of an epoch
            yield copied(self.batches[(self.served - 1) % len(self.batches)])
