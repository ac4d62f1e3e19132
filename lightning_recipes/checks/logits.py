"""What the loss is given: logits, and nothing that has been through a softmax or a rectifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .finding import Finding

CHECK = "logits"
TAKES_SOFTMAX = ("cross_entropy", "log_softmax")
BOUNDING = ("sigmoid", "tanh", "relu", "relu6", "hardtanh", "clamp", "logsigmoid")
BENDING = ("leaky_relu", "gelu", "silu", "elu", "selu", "mish", "hardswish")
MUST_SUM_TO_ONE = 5e-3  # bfloat16 rounds a softmax of 3 to 1000 classes to within 3e-3 of 1
LOGARITHMS = 5e-2  # the same of rounded logarithms


def logits(
    inputs: Tensor,
    *,
    name: str,
    made_by: Sequence[str] = (),
    by_model: bool = False,
    swapped: bool = False,
) -> Finding:
    """Judge what a loss over classes was given.

    Args:
        inputs: (N, K), as the loss function was given them.
        name: Of the loss function, as torch calls it.
        made_by: The functions that made `inputs` out of the last layer, last first.
        swapped: They depend on no weight, and what was given as targets does.
        by_model: The model's own output is already like this, so that the fault lies within it.

    >>> import torch
    >>> logits(torch.rand(8, 3).softmax(1), name="cross_entropy").causes[0]
    'softmax-before-cross-entropy'
    >>> logits(torch.randn(8, 3), name="nll_loss").causes
    ('nll-on-raw-logits',)
    """
    rows, classes = inputs.shape
    z = inputs.double()
    made = made_by[0] if made_by else ""
    evidence = {"min": float(z.min()), "max": float(z.max()), "made_by": list(made_by), "loss": name}
    if not bool(z.isfinite().all()):
        return Finding(CHECK, "SKIP", "The logits are not finite.")
    if classes < 2:
        return Finding(CHECK, "SKIP", "One number a sample is not a row of classes.")
    if swapped:
        said = f"`{name}` is given the targets first and the logits second; expected the other way round."
        return Finding(CHECK, "FAIL", said, evidence, ("wrong-loss",))
    if name.startswith("binary_cross_entropy_with_logits"):
        return _binary(made, evidence)
    if _sums_to_one(z, 1) and name in TAKES_SOFTMAX:
        causes = ["softmax-before-cross-entropy", "softmax-in-model"]
        said = "Each row sums to 1: a softmax comes before the loss, which takes one itself."
        return Finding(CHECK, "FAIL", said, evidence, causes[::-1] if by_model else causes)
    narrow = LOGARITHMS if inputs.dtype.itemsize < 4 else MUST_SUM_TO_ONE
    normalized = _sums_to_one(z.exp(), 1, LOGARITHMS)
    if rows > 1 and (_sums_to_one(z, 0) or _sums_to_one(z.exp(), 0, narrow)) and not normalized:
        said = "Each column sums to 1: the softmax runs over the batch instead of the classes."
        return Finding(CHECK, "FAIL", said, evidence, ("softmax-over-batch",))
    if name == "nll_loss":
        if normalized:
            said = "The loss is given log-probabilities, as `nll_loss` needs them."
            return Finding(CHECK, "PASS", said, evidence)
        kind = "probabilities without a logarithm" if _sums_to_one(z, 1) else "raw numbers"
        said = f"`nll_loss` needs log-probabilities, got {kind}, from {z.min():.3g} to {z.max():.3g}."
        return Finding(CHECK, "FAIL", said, evidence, ("nll-on-raw-logits",))
    zeros = float((z == 0).double().mean())
    rectified = float(z.min()) >= 0 and 0.2 <= zeros < 1
    if made in BOUNDING or rectified:
        said = f"The logits come out of `{made or 'relu'}` ({zeros:.0%} of them are 0)"
        said += "; expected the last layer."
        return Finding(CHECK, "FAIL", said, evidence, ("activation-on-logits",))
    if made in BENDING:
        said = f"The logits come out of `{made}`, which hardly lets them be negative."
        return Finding(CHECK, "WARN", said, evidence, ("activation-on-logits",))
    if name == "cross_entropy" and normalized:
        said = "A `log_softmax` comes before the cross-entropy: harmless, and needless."
        return Finding(CHECK, "INFO", said, evidence)
    return Finding(CHECK, "PASS", f"The logits go from {z.min():.3g} to {z.max():.3g}.", evidence)


def _binary(made: str, evidence: dict[str, object]) -> Finding:
    if made in ("sigmoid", "softmax"):
        said = f"`binary_cross_entropy_with_logits` takes the sigmoid itself, and was given a {made}."
        return Finding(CHECK, "FAIL", said, evidence, ("sigmoid-before-loss",))
    if made in BOUNDING:
        said = f"The logits come out of `{made}`; expected the last layer."
        return Finding(CHECK, "FAIL", said, evidence, ("activation-on-logits",))
    return Finding(CHECK, "PASS", "The loss is given logits.", evidence)


def _sums_to_one(z: Tensor, dim: int, tolerance: float = MUST_SUM_TO_ONE) -> bool:
    """Return whether all are probabilities over `dim`."""
    return bool((z >= 0).all()) and bool(((z.sum(dim) - 1).abs() < tolerance).all())
