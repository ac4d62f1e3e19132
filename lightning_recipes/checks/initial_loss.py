"""The loss before the first step: its size, and whether it knows the labels."""

from __future__ import annotations

from math import isfinite, log

import torch
from torch import Tensor

from .finding import Finding

CHECK = "initial loss"
CHECK_INDEPENDENCE = "label independence"
Z_LIMIT = 5.0
FAIL_FACTOR, INFO_FACTOR = 10.0, 3.0  # healthy: 0.99 to 1.57 times log K, one timm model 3.3


def expected_loss(name: str, num_classes: int) -> float | None:
    """Return the loss of a model that knows nothing: log K, log 2 for two-way, K − 1 for the hinge.

    Args:
        name: Of the loss function, as torch calls it.
        num_classes: K.

    Returns:
        The mean over samples, in nats; None where nothing can be expected. The hinge is divided by K, as in
        torch.

    >>> round(expected_loss("cross_entropy", 10), 3), expected_loss("multi_margin_loss", 10)
    (2.303, 0.9)
    """
    if name in ("cross_entropy", "nll_loss", "log_softmax"):
        return log(num_classes)
    if name.startswith("binary_cross_entropy"):
        return log(2)
    if name == "multi_margin_loss":  # torch divides the K − 1 margins by K
        return (num_classes - 1) / num_classes
    return None


def initial_loss(
    value: float,
    *,
    name: str,
    num_classes: int,
    rows: int = 1,
    reduction: str = "mean",
    spread: float = 0.0,
    trained: bool = False,
) -> Finding:
    r"""Compare the initial loss with :math:`\log K + \sigma_z^2/2`.

    Args:
        value: The loss that was measured, in nats.
        name: Of the loss function, as torch calls it.
        num_classes: K.
        rows: N, by which a sum is larger than a mean.
        reduction: `mean` or `sum`.
        spread: Variance of the logits within a sample.
        trained: The weights are not fresh, so that no loss can be expected.

    Source: lecture, step 1; the variance term is the second order of the cross-entropy of normal logits.

    >>> initial_loss(2.31, name="cross_entropy", num_classes=10).status
    'PASS'
    >>> initial_loss(60.0, name="cross_entropy", num_classes=10).causes[0]
    'initialization-too-large'
    """
    expected = expected_loss(name, num_classes)
    if not isfinite(value):
        return Finding(
            CHECK,
            "FAIL",
            f"The loss is {value} before the first step; expected a finite one.",
            {"loss": str(value)},
            ("non-finite-input", "initialization-too-large", "mixed-precision-overflow"),
        )
    if expected is None:
        return Finding(CHECK, "SKIP", f"`{name}` has no value that could be expected.")
    if reduction == "sum":
        expected *= rows
    evidence = {"loss": value, "expected": expected, "logit_variance": spread, "num_classes": num_classes}
    said = (
        f"The loss is {value:.4g}, {value / expected:.2f} times the {expected:.4g} of a model that knows "
        "nothing"
    )
    if trained and value < expected:
        return Finding(CHECK, "PASS", f"{said}; the weights are trained.", evidence)
    if value > FAIL_FACTOR * expected and not trained:
        causes = ("initialization-too-large", "raw-pixels", "sum-reduction", "wrong-loss")
        return Finding(CHECK, "FAIL", f"{said}.", evidence, causes)
    if value > INFO_FACTOR * expected:
        return Finding(CHECK, "INFO", f"{said}.", evidence, ("initialization-too-large", "input-scale"))
    return Finding(CHECK, "PASS", f"{said}.", evidence)


def label_independence(logits: Tensor, targets: Tensor, *, trained: bool = False) -> Finding:
    r"""Ask whether fresh logits fit their own labels as they fit any others.

    Over the samples, T = (L₀ − L_ind)/σ with Z_ij = z_i[y_j] double-centred to d and σ² = Σd²/((n−1)n²).
    As images of one class resemble one another, so do their logits, and T alone runs high with many samples;
    so the classes are permuted as well: under fresh rows of the head each renaming of the classes is equally
    likely. Both must be beyond 5.

    Args:
        logits: (N, K), at the first step.
        targets: (N,), indices.
        trained: The weights are not fresh: to know the labels is then no fault.

    >>> generator = torch.Generator().manual_seed(0)
    >>> logits, targets = torch.randn(64, 10, generator=generator), torch.arange(64) % 10
    >>> label_independence(logits, targets).status
    'PASS'
    >>> label_independence(logits + 3 * torch.eye(10)[targets], targets).status
    'FAIL'
    """
    rows, classes = logits.shape
    if rows < 64 or bool((targets == targets[0]).all()):
        few = f"Needed are 64 samples and two classes, got {rows} samples."
        return Finding(CHECK_INDEPENDENCE, "SKIP", few)
    z = logits.double()
    samples = _z_score(z[:, targets])
    by_class = torch.stack([z[targets == k].sum(0) for k in range(classes)]) / rows  # (K, K)
    renamed = _z_score(by_class)
    evidence = {"z_samples": samples, "z_classes": renamed, "n": rows, "num_classes": classes}
    if min(abs(samples), abs(renamed)) <= Z_LIMIT or samples * renamed < 0:
        return Finding(CHECK_INDEPENDENCE, "PASS", "The first logits do not know the labels.", evidence)
    said = f"The first logits fit their labels {samples:+.1f} standard deviations better than others"
    if trained:
        return Finding(CHECK_INDEPENDENCE, "PASS", f"{said}; the weights are trained.", evidence)
    said += f"; expected within {Z_LIMIT:g}: the labels leak into them."
    return Finding(CHECK_INDEPENDENCE, "FAIL", said, evidence, ("label-leak",))


def _z_score(matrix: Tensor) -> float:
    """Return the standard deviations by which the trace exceeds its mean over permutations of columns."""
    n = len(matrix)
    d = matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()
    deviation = (d.square().sum() / (n - 1)).sqrt()
    return float(d.diagonal().sum() / deviation) if float(deviation) > 1e-12 else 0.0
