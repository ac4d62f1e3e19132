"""Are samples of the validation set in the training set?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from .finding import Finding, Status

CHECK = "validation in training"
FAIL_FROM, WARN_FROM = 0.5, 0.05
FEWEST = 8  # duplicates below which a share says nothing


def validation_in_training(train_hashes: Iterable[bytes], val_hashes: Iterable[bytes]) -> Finding:
    """Judge the share of validation samples that are byte for byte in the training set.

    Some duplicates are natural, above all in tables of few values. In a random split, a validation sample has
    a twin in the training set as often as a training sample has one there: only what is above counts.

    Args:
        train_hashes: A hash of each training sample, with repetitions; a part of them gives a lower bound.
        val_hashes: A hash of each validation sample.

    >>> validation_in_training([b"a", b"b"] * 8, [b"c"] * 16).status
    'PASS'
    """
    train, val = Counter(train_hashes), list(val_hashes)
    if not train or not val:
        return Finding(CHECK, "SKIP", "There are no samples to compare.")
    found = sum(sample in train for sample in val)
    share = found / len(val)
    natural = sum(count for count in train.values() if count > 1) / sum(train.values())
    evidence = {"validation": len(val), "found": found, "share": share, "natural": natural}
    # Five random splits of digits (1797) and of Fashion-MNIST (60000): no twin, nor a mirrored one.
    measured = f"{share:.1%} of {len(val)} validation samples are in the training set"
    if found < FEWEST or share - natural < WARN_FROM:
        return Finding(CHECK, "PASS", f"{measured}.", evidence)
    status: Status = "FAIL" if share >= FAIL_FROM and share - natural >= FAIL_FROM / 2 else "WARN"
    message = f"{measured}, where {natural:.1%} are natural."
    return Finding(CHECK, status, message, evidence, ("validation-in-training",))


def overlapping_indices(train_indices: Collection[int], val_indices: Collection[int]) -> Finding:
    """Judge the overlap of two subsets of one data set.

    Args:
        train_indices: Indices of the training set.
        val_indices: Indices of the validation set.

    >>> overlapping_indices(range(100), range(50, 150)).status
    'FAIL'
    """
    train, val = set(map(int, train_indices)), set(map(int, val_indices))
    if not train or not val:
        return Finding(CHECK, "SKIP", "One of the two sets is empty.")
    found = len(train & val)
    share = found / len(val)
    evidence = {"validation": len(val), "found": found, "share": share}
    if not found:
        return Finding(CHECK, "PASS", "The two sets have no index in common.", evidence)
    message = f"{found} of {len(val)} validation indices are training indices too; expected none."
    status: Status = "FAIL" if share >= FAIL_FROM else "WARN"
    return Finding(CHECK, status, message, evidence, ("validation-in-training",))
