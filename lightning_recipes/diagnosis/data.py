"""The data as a training step is given them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from ..checks import Finding
from ..checks.dependence import label_dependence
from ..checks.duplicates import overlapping_indices, validation_in_training
from ..checks.input_scale import input_scale
from ..checks.labels import labels
from ..checks.random_validation import random_validation, train_validation_mismatch
from ..checks.sorted_data import sorted_data
from ..evidence.batches import inputs_of, joined, labels_of, moved
from ..evidence.scan import raw_batches
from ..utils.rng import preserved_generators, seed_generators
from .examination import Examination


def inputs(examination: Examination) -> Iterator[Finding]:
    """Finite, varied, and of the right scale."""
    seen = examination.train
    if seen.error is not None and not seen.batches:
        said = f"{type(seen.error).__name__}: {seen.error}".rstrip(".")
        yield Finding("data", "FAIL", f"The training loader raises {said}.")
        return
    if seen.broken:
        said = (
            f"{len(seen.broken)} of {seen.samples} samples hold NaN or infinity, the first is number "
            f"{seen.broken[0]}; all must be finite."
        )
        yield Finding("finite inputs", "FAIL", said, {"samples": seen.broken[:20]}, ("non-finite-input",))
    elif seen.hashes:
        extent = "All" if seen.complete else "The first"
        yield Finding("finite inputs", "PASS", f"{extent} {seen.samples} samples are finite.")
    batch = seen.inputs
    if batch is None:
        yield Finding("input scale", "SKIP", "The batches hold no floating-point inputs.")
        return
    if seen.broken:
        batch = batch[torch.isfinite(batch.flatten(1)).all(1)]
    first = examination.first.first_inputs if examination.first is not None else []
    reached = first[0] if first else None
    if reached is not None and not bool(reached.isfinite().all()):
        reached = None
    yield input_scale(batch, reached, pretrained=examination.trained)


def targets(examination: Examination) -> Iterator[Finding]:
    """In range, varied, shuffled, and belonging to the inputs."""
    seen = examination.train
    if not seen.labels:
        yield Finding("labels", "SKIP", "The batches hold no one integer label a sample.")
        return
    calls = examination.first.classification() if examination.first is not None else []
    if not calls:
        yield Finding("labels", "SKIP", "No loss over classes was called.")
        return
    all_labels = torch.cat(seen.labels)
    outputs = calls[0][0].logits.shape[1]
    known = getattr(examination.trials.datamodule(), "num_classes", None)
    yield labels(
        all_labels,
        outputs,
        num_classes=known if isinstance(known, int) and known > 1 else None,
        complete=seen.complete,
        ignore_index=int(calls[0][0].options.get("ignore_index", -100)),
    )
    loader = examination.trainer.train_dataloader
    yield sorted_data(seen.labels[:10], pool=all_labels, sampled=samples_on_purpose(loader))


def belonging(examination: Examination) -> Iterator[Finding]:
    """Whether inputs and the labels that the loss was given belong together, by a simple test."""
    first = examination.first
    pairs = []
    for batch, calls in zip(first.batches, first.calls, strict=False) if first is not None else []:
        found = calls.classification()
        inputs = inputs_of(batch)
        call = found[0] if found else None
        if call is None or inputs is None or sum(c.source == call.source for c in found) > 1:
            continue
        given = call.indices if call.targets is not None else labels_of(batch)
        if given is not None and len(given) == len(inputs):
            pairs.append((inputs, given))
    if not pairs:
        yield Finding("label dependence", "SKIP", "There are no inputs with one label each.")
        return
    inputs = torch.cat([x for x, _ in pairs if x.shape[1:] == pairs[0][0].shape[1:]])
    given = torch.cat([y for x, y in pairs if x.shape[1:] == pairs[0][0].shape[1:]])
    finite = torch.isfinite(inputs.flatten(1)).all(1)
    yield label_dependence(inputs[finite].cpu(), given[finite].cpu())


def validation(examination: Examination) -> Iterator[Finding]:
    """Apart from the training data, the same at each pass, and preprocessed alike."""
    seen, train = examination.validation, examination.train
    if seen is None:
        yield Finding("validation data", "SKIP", "There is no validation loader.")
        return
    if not seen.batches:
        said = f"The validation loader gives nothing: {seen.error or 'it is empty'}."
        yield Finding("validation data", "SKIP", said)
        return
    yield _apart(examination)
    yield _steady(examination)
    if train.inputs is not None and seen.inputs is not None and seen.inputs.dim() == 4 == train.inputs.dim():
        yield train_validation_mismatch(train.inputs, seen.inputs)


def _apart(examination: Examination) -> Finding:
    train, val = examination.trainer.train_dataloader, examination.validation_loader
    first: Any = getattr(train, "dataset", None)
    second: Any = getattr(val, "dataset", None)
    if isinstance(first, Subset) and isinstance(second, Subset) and first.dataset is second.dataset:
        return overlapping_indices(list(first.indices), list(second.indices))
    if train is None:
        return Finding("validation in training", "SKIP", "There is no training loader.")
    if first is not None and first is second and not isinstance(first, IterableDataset) and _whole(train):
        return overlapping_indices(range(len(first)), range(len(first)))
    if isinstance(second, Subset) and second.dataset is first and _whole(train):
        return overlapping_indices(range(len(train.dataset)), list(second.indices))
    assert examination.validation is not None
    return validation_in_training(examination.train.hashes, examination.validation.hashes)


def _whole(loader: Any) -> bool:  # noqa: ANN401 - any iterable of batches
    """Return whether a loader goes through its whole data set."""
    return isinstance(loader, DataLoader) and isinstance(loader.sampler, (RandomSampler, SequentialSampler))


def _steady(examination: Examination) -> Finding:
    """Take the same validation samples twice, with other random numbers."""
    trainer = examination.trainer
    passes = []
    for seed in (1, 2):
        with preserved_generators():
            seed_generators(seed)
            taken = raw_batches(examination.validation_loader)
            batches = []
            for raw in islice(taken, 2):
                seed_generators(seed)
                batches.append(moved_for_validation(trainer, raw))
            taken.close()
        passes.append(joined(batches))
    first, second = (inputs_of(batch) for batch in passes)
    if first is None or second is None or first.shape != second.shape:
        return Finding("random validation", "SKIP", "There are no inputs that could be compared.")
    given = [labels_of(batch) for batch in passes]
    return random_validation(first, second, first_targets=given[0], second_targets=given[1])


def moved_for_validation(trainer: Any, raw: Any) -> Any:  # noqa: ANN401 - batches have any form
    """Return a batch as a validation step is given it: hooks may ask the trainer what it is doing.

    Args:
        trainer: Within a fit; its stage is put back.
        raw: As the loader gave it.
    """
    stage = trainer.state.stage
    trainer.validating = True
    try:
        return moved(trainer, raw)
    finally:
        trainer.state.stage = stage


def samples_on_purpose(loader: Any) -> bool:  # noqa: ANN401 - any iterable of batches
    """Return whether somebody chose a sampler: weighted, balanced, by groups."""
    if not isinstance(loader, DataLoader):
        return False
    usual = (RandomSampler, SequentialSampler)
    inner: Tensor | Any = getattr(loader.batch_sampler, "sampler", loader.sampler)
    if type(loader.batch_sampler) is not BatchSampler and loader.batch_sampler is not None:
        return True
    known = isinstance(inner, usual) or type(inner).__name__ in (
        "DistributedSampler",
        "_InfiniteConstantSampler",
    )
    return not known
