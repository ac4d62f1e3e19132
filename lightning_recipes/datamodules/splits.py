"""Stratified, seeded splits: which samples train, validate and test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..utils.errors import UserError


def holdout(
    targets: Tensor, fraction: float, *, seed: int, name: str, class_names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return (kept, held out) indices, each class in proportion.

    Multi-label targets are split at random instead: their combinations are too many to stratify.

    Args:
        targets: int64 (N,), or float (N, K).
        fraction: Share that is held out, in (0, 1).
        seed: The same seed gives the same split on any machine.
        name: The argument that gave the fraction, for errors.
        class_names: For errors.

    Raises:
        UserError: A fraction out of bounds, a class with fewer than 2 samples, a part with fewer samples than
            classes.
    """
    from sklearn.model_selection import train_test_split  # slow to import

    if not 0 < fraction < 1:
        raise UserError(f"`{name}` must lie between 0 and 1, got {fraction}.")
    stratify = None if targets.ndim > 1 else targets.numpy()
    classes = 1 if stratify is None else len(class_names)
    count = max(round(len(targets) * fraction), 1)
    _require_per_class(targets, 2, class_names, f"`{name}: {fraction}`")
    if count < classes or len(targets) - count < classes:
        raise UserError(
            f"`{name}: {fraction}` of {len(targets)} images holds out {count}, but each part needs one for "
            f"each of the {classes} classes. Add images or change `{name}`."
        )
    kept, held = train_test_split(
        np.arange(len(targets)), test_size=count, random_state=seed, stratify=stratify
    )
    return torch.from_numpy(np.sort(kept)), torch.from_numpy(np.sort(held))


def kfold(
    targets: Tensor, fold: int, folds: int, *, seed: int, class_names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return (train, validation) indices of fold number `fold` of `folds`, each class in proportion.

    Raises:
        UserError: Fewer than 2 folds, a fold out of range, a class with fewer samples than folds.
    """
    from sklearn.model_selection import KFold, StratifiedKFold  # slow to import

    if folds < 2:
        raise UserError(
            f"`folds` must be at least 2, got {folds}. For a single split, leave `fold` and `folds` out."
        )
    if not 0 <= fold < folds:
        raise UserError(f"`fold` must lie in 0..{folds - 1} for `folds: {folds}`, got {fold}.")
    _require_per_class(targets, folds, class_names, f"`folds: {folds}`")
    splitter = (KFold if targets.ndim > 1 else StratifiedKFold)(folds, shuffle=True, random_state=seed)
    train, val = list(splitter.split(np.zeros(len(targets)), targets.numpy()))[fold]
    return torch.from_numpy(train), torch.from_numpy(val)


def limit_per_class(targets: Tensor, limit: int, *, seed: int) -> Tensor:
    """Return the indices of at most `limit` samples of each class, drawn at random, in order.

    Args:
        targets: int64 (N,).
        limit: At least 1.
        seed: Of the draw; a larger limit keeps what a smaller one chose.

    Raises:
        UserError: The limit is below 1, or the targets are multi-label.

    >>> limit_per_class(torch.tensor([0, 0, 1, 1]), 1, seed=0).shape
    torch.Size([2])
    """
    if limit < 1:
        raise UserError(
            f"`limit_per_class` must be at least 1, got {limit}. To use every image, leave it out."
        )
    if targets.ndim > 1:
        raise UserError("`limit_per_class` needs one label an image, got multi-label targets. Leave it out.")
    order = np.random.RandomState(seed).permutation(len(targets))
    labels = targets.numpy()[order]
    chosen = np.concatenate([order[labels == label][:limit] for label in np.unique(labels)])
    return torch.from_numpy(np.sort(chosen))


def balanced_weights(targets: Tensor) -> Tensor:
    """Return weights under which every class is drawn equally often, float64 (N,).

    Raises:
        UserError: The targets are multi-label.

    >>> balanced_weights(torch.tensor([0, 0, 1])).tolist()
    [0.5, 0.5, 1.0]
    """
    if targets.ndim > 1:
        raise UserError(
            "`balanced` sampling needs one label an image, got multi-label targets. Set it to false."
        )
    return targets.bincount().double().reciprocal()[targets]


def _require_per_class(targets: Tensor, least: int, class_names: Sequence[str], why: str) -> None:
    if targets.ndim > 1:
        return
    counts = targets.bincount(minlength=len(class_names))
    few = [f"{name} ({int(n)})" for name, n in zip(class_names, counts, strict=True) if n < least]
    if few:
        raise UserError(
            f"{why} needs at least {least} images of each class, got fewer of {', '.join(few[:5])}"
            f"{' and others' if len(few) > 5 else ''}. Add images, remove the class, or bring your own split."
        )
