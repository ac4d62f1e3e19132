"""The derivative of the step's loss at the logits: its sign, its sum, its size."""

from __future__ import annotations

from torch import Tensor

from .finding import Finding

CHECK = "gradient at the logits"
ZERO_SUM, ZERO_SUM_OF_HALVES = 1e-3, 2e-2  # of the absolute sum; the latter for two-byte numbers
RIGHT_SIGN = 0.99
SUMMED = 0.5  # of a sum's: a mean over 32 rows has 0.03, one that is weighed tenfold 0.3


def logit_gradient(
    gradient: Tensor, inputs: Tensor, targets: Tensor | None, *, name: str, mixed: bool = False
) -> Finding:
    r"""Check :math:`\partial L/\partial z`: below 0 at the right class, 0 in sum, 1/N of what a sum gives.

    Args:
        gradient: (N, K), of the loss that the step returned by what the loss function was given.
        inputs: (N, K), what the loss function was given.
        targets: (N,), indices; None where there are none.
        name: Of the loss function, as torch calls it.
        mixed: Targets are blends, so that no single class must rise.

    >>> import torch
    >>> logits, targets = torch.zeros(8, 3, requires_grad=True), torch.arange(8) % 3
    >>> torch.nn.functional.cross_entropy(logits, targets).backward()
    >>> logit_gradient(logits.grad, logits.detach(), targets, name="cross_entropy").status
    'PASS'
    >>> logit_gradient(-logits.grad, logits.detach(), targets, name="cross_entropy").causes[0]
    'loss-sign-flipped'
    >>> logit_gradient(8 * logits.grad, logits.detach(), targets, name="cross_entropy").causes[0]
    'sum-reduction'
    """
    g = gradient.double()
    if not bool(g.isfinite().all()):
        causes = ("non-finite-input", "mixed-precision-overflow")
        return Finding(CHECK, "FAIL", "The gradient at the logits is not finite.", {}, causes)
    sizes = g.abs().sum(1)  # (N,)
    used = sizes > 0
    rows = int(used.sum())
    if rows == 0:
        said = "The gradient is zero in every row: the loss of the step does not depend on the logits."
        return Finding(CHECK, "FAIL", said, {"rows": len(g)}, ("loss-detached", "wrong-loss"))
    g, sizes = g[used], sizes[used]
    # where the answer is right beyond doubt, rounding leaves 0
    doubtful = sizes > 1e-3 * sizes.max()
    imbalance = float((g.sum(1).abs() / sizes)[doubtful].max())
    balanced = ZERO_SUM if gradient.dtype.itemsize > 2 else ZERO_SUM_OF_HALVES
    factor = float((sizes / _unreduced(inputs.double()[used], targets, used, name)).median())
    evidence = {"row_sum": imbalance, "of_a_sum": factor, "rows": rows}
    if targets is not None and not mixed:
        labels = targets.reshape(-1)[used]
        at = g.gather(1, labels.clamp(0, g.shape[1] - 1)[:, None])[:, 0]
        falling = float((at[doubtful] < 0).double().mean())
        evidence["right_sign"] = falling
        if falling < 1 - RIGHT_SIGN:
            said = "The gradient is positive at the right class: each step makes it less likely."
            return Finding(CHECK, "FAIL", said, evidence, ("loss-sign-flipped",))
        if falling < RIGHT_SIGN:
            said = f"The gradient is below 0 at the right class for {falling:.0%} of the samples"
            said += "; expected for all."
            return Finding(CHECK, "FAIL", said, evidence, ("labels-misaligned", "wrong-loss"))
    if name in ("cross_entropy", "log_softmax") and imbalance > balanced and not mixed:
        said = f"The gradient sums to {imbalance:.2g} of its size over the classes; expected 0."
        return Finding(CHECK, "INFO", said, evidence, ("wrong-loss",))
    if rows >= 8 and factor > SUMMED:
        said = (
            f"The gradient is {factor:.3g} of what a sum over {rows} rows gives; expected {1 / rows:.2g}, "
            "as of a mean."
        )
        return Finding(CHECK, "FAIL", said, evidence, ("sum-reduction",))
    return Finding(CHECK, "PASS", "The gradient is as a mean cross-entropy has it.", evidence)


def _unreduced(inputs: Tensor, targets: Tensor | None, used: Tensor, name: str) -> Tensor:
    """Return the absolute sum, (N,), of each row's derivative of an unreduced loss."""
    if name == "nll_loss" or targets is None:
        return inputs.new_ones(len(inputs)) if name == "nll_loss" else inputs.new_full((len(inputs),), 2.0)
    labels = targets.reshape(-1)[used].clamp(0, inputs.shape[1] - 1)
    chance = inputs.softmax(1).gather(1, labels[:, None])[:, 0]
    return (2 * (1 - chance)).clamp_min(1e-12)
