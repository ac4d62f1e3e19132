"""Is the validation set the same each time, and preprocessed like the training set?"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from ..utils.hashes import sample_hashes
from .finding import Finding

CHECK_RANDOM = "random validation"
CHECK_MISMATCH = "train and validation inputs"


def random_validation(
    first: Tensor,
    second: Tensor,
    *,
    first_targets: Tensor | None = None,
    second_targets: Tensor | None = None,
) -> Finding:
    """Compare two passes over the same validation samples.

    Args:
        first: Inputs of the first pass, (N, ...).
        second: Inputs of the second pass, (N, ...).
        first_targets: Their labels, (N, ...): with another order of labels the loader shuffles, and nothing
            is said unless both passes hold the same samples.
        second_targets: Labels of the second pass.

    >>> inputs = torch.rand(16, 3)
    >>> random_validation(inputs, inputs.clone()).status
    'PASS'
    >>> random_validation(inputs, inputs + torch.randn(16, 3)).causes
    ('augmentation-on-validation',)
    """
    if first.shape != second.shape:
        message = (
            f"The passes have shapes {tuple(first.shape)} and {tuple(second.shape)}: not the same samples."
        )
        return Finding(CHECK_RANDOM, "SKIP", message)
    if not first.numel():
        return Finding(CHECK_RANDOM, "SKIP", "There are no samples.")
    one, two = first.detach().double().flatten(1), second.detach().double().flatten(1)  # (N, D)
    scale = float(one[one.isfinite()].std()) if one.numel() > 1 else 1.0
    # Decoding the same file twice gives the same bytes; a millionth leaves room for sums in another order.
    apart = ~torch.isclose(one, two, rtol=1e-5, atol=1e-6 * max(scale, 1e-12), equal_nan=True).all(1)  # (N,)
    share = float(apart.double().mean())
    evidence = {"samples": len(first), "share": share}
    if not share:
        return Finding(CHECK_RANDOM, "PASS", f"Two passes over {len(first)} samples are equal.", evidence)
    unseen = Counter(sample_hashes(second)) - Counter(sample_hashes(first))
    new = sum(unseen.values()) / len(first)
    evidence["new"] = new
    if not new:
        message = (
            "Two passes hold the same samples in another order; the order of validation does not matter."
        )
        return Finding(CHECK_RANDOM, "INFO", message, evidence)
    if first_targets is not None and second_targets is not None and not _equal(first_targets, second_targets):
        message = "The two passes have labels in another order: other samples may have been drawn."
        return Finding(CHECK_RANDOM, "SKIP", message, evidence)
    message = f"{share:.0%} of {len(first)} samples differ between two passes; expected the same each time."
    return Finding(CHECK_RANDOM, "WARN", message, evidence, ("augmentation-on-validation",))


def train_validation_mismatch(train_batch: Tensor, val_batch: Tensor) -> Finding:
    """Compare the scale of training and validation images, which augmentation alone does not change so much.

    Args:
        train_batch: Training inputs as they reach the model, augmented, (B, C, H, W).
        val_batch: Validation inputs as they reach the model, (B', C, H', W').

    >>> images = torch.rand(32, 1, 8, 8)
    >>> train_validation_mismatch((images - 0.3) / 0.3, images).causes
    ('train-validation-mismatch',)
    """
    if train_batch.ndim != 4 or val_batch.ndim != 4:
        return Finding(CHECK_MISMATCH, "SKIP", "Only images (B, C, H, W) are compared.")
    if min(len(train_batch), len(val_batch)) < 8:
        return Finding(CHECK_MISMATCH, "SKIP", "There are fewer than 8 samples.")
    if train_batch.shape[1] != val_batch.shape[1]:
        message = f"Training has {train_batch.shape[1]} channels, validation {val_batch.shape[1]}."
        causes = ("train-validation-mismatch", "shape-mismatch")
        return Finding(CHECK_MISMATCH, "FAIL", message, causes=causes)
    train = train_batch.detach().double().transpose(0, 1).flatten(1)  # (C, B·H·W)
    val = val_batch.detach().double().transpose(0, 1).flatten(1)
    if not bool(train.isfinite().all() and val.isfinite().all()):
        return Finding(CHECK_MISMATCH, "SKIP", "The inputs are not finite.")
    deviation, range_ratio = val.std(1) / train.std(1), _range(val) / _range(train)
    shift = (val.mean(1) - train.mean(1)).abs() / torch.maximum(val.std(1), train.std(1))
    evidence = {
        "std_ratio": float(deviation.median()),
        "range_ratio": float(range_ratio.median()),
        "shift": float(shift.median()),
    }
    # Measured on digits, Fashion-MNIST and coloured noise, raw or normalised, in batches of 16 and 64, under
    # ten augmentations (crops, jitter, RandAugment, ...) times seven more (mixup, RandomErasing, ...), 5040
    # pairs: deviation ratio 0.41–1.85, shift at most 0.95. Below 0.5 fell only RandomErasing with noise on
    # inputs that are not standardised, which widens the range three times as much as the deviation.
    smaller = (deviation < 0.5) & (range_ratio < 0.6) & (deviation < 2.2 * range_ratio)
    larger = (deviation > 2.0) & (range_ratio > 1 / 0.6)
    # Noise of RandomErasing makes at most 17 % of the numbers negative; a normalisation 40–80 %.
    negative_train, negative_val = _negative(train), _negative(val)
    signs = ((negative_train > 0.3) & (negative_val == 0)) | ((negative_val > 0.3) & (negative_train == 0))
    wrong = smaller | larger | signs | (shift > 1.5)
    measured = (
        f"Validation inputs have mean {float(val.mean()):.3g} and standard deviation {float(val.std()):.3g}, "
        f"training inputs {float(train.mean()):.3g} and {float(train.std()):.3g}"
    )
    if bool(wrong.double().mean() > 0.5):
        message = f"{measured}; expected alike, but for augmentation."
        return Finding(CHECK_MISMATCH, "WARN", message, evidence, ("train-validation-mismatch",))
    return Finding(CHECK_MISMATCH, "PASS", f"{measured}.", evidence)


def _range(channels: Tensor) -> Tensor:
    return channels.amax(1) - channels.amin(1)


def _negative(channels: Tensor) -> Tensor:
    return (channels < -0.02).double().mean(1)


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool((first == second).all())
