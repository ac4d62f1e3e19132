"""Do inputs and labels belong together?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .finding import Finding

CHECK_LABELS = "label dependence"
CHECK_TRAINING = "input dependence"
ALPHA = 1e-3
SEEN = 1e-2  # p below which a gap may well be there, though not shown
# digits and Fashion-MNIST, n = 128, 256 and 512: p was the least possible in 20 of 20 draws each
NEIGHBOURS = 5
MOST = 1024
SIDE = 16


def label_dependence(inputs: Tensor, targets: Tensor, *, permutations: int = 2000, seed: int = 0) -> Finding:
    """Test whether samples that look alike have the same label more often than by chance.

    The statistic is the share of the 5 nearest neighbours (Euclidean, standardised inputs) with the sample's
    own label; the labels are permuted for its distribution, so that p is exact. Identical samples count once.
    That no dependence is found proves nothing: this is a simple test, and a network may see more.

    Args:
        inputs: Samples, (N, C, H, W) or (N, D), without augmentation that mixes them; at most 1024 are used.
        targets: Labels, (N,), or probabilities (N, K), of which the largest counts.
        permutations: Number of permutations.
        seed: Of the permutations.

    >>> labels = torch.arange(200) % 4
    >>> label_dependence(torch.eye(4)[labels] + 0.1 * torch.randn(200, 4), labels).status
    'PASS'
    """
    if targets.ndim == 2 and targets.shape[1] > 1:
        targets = targets.argmax(1)
    features = _features(inputs.detach()[:MOST])
    keep = _first_of_each(features)
    features, labels = features[keep], targets.detach().cpu().flatten()[:MOST][keep]
    if len(labels) < 64 or not bool(features.isfinite().all()):
        few = f"{len(labels)} distinct finite samples are too few: 64 are needed."
        return Finding(CHECK_LABELS, "SKIP", few)
    if len(torch.unique(labels)) < 2:
        return Finding(CHECK_LABELS, "SKIP", "Only one label was seen.")
    neighbours = _neighbours(features)  # (N, 5)

    def agreement(labels: Tensor) -> float:
        return float((labels[neighbours] == labels[:, None]).double().mean())

    observed = agreement(labels)
    generator = torch.Generator().manual_seed(seed)
    chance = [
        agreement(labels[torch.randperm(len(labels), generator=generator)]) for _ in range(permutations)
    ]
    p = (1 + sum(value >= observed for value in chance)) / (1 + permutations)
    expected = sum(chance) / permutations
    evidence = {"samples": len(labels), "agreement": observed, "chance": expected, "p": p}
    measured = f"{observed:.0%} of nearest neighbours share the label, by chance {expected:.0%} (p = {p:.2g})"
    if p < ALPHA:
        return Finding(CHECK_LABELS, "PASS", f"{measured}.", evidence)
    message = f"{measured}: no dependence found by this simple test."
    return Finding(CHECK_LABELS, "INFO", message, evidence, ("labels-misaligned",))


def dependence_of_training(
    real: Sequence[float], permuted: Sequence[float], *, learned: bool = False
) -> Finding:
    """Compare held-out losses after training on real and on permuted inputs, by a paired one-sided t-test.

    No gap is a fault only where the losses are known well enough: the upper bound of the gap at 99.9 %
    must be below 2 % of the loss.

    Args:
        real: Held-out loss of each seed, trained on the real inputs.
        permuted: The same seeds, trained on inputs that were permuted against their labels.
        learned: Whether the training loss on the real inputs fell clearly: then the model does use its input,
            and the missing gap is the labels' fault.

    >>> dependence_of_training([0.50, 0.52, 0.49, 0.51, 0.50], [2.3, 2.4, 2.3, 2.4, 2.3]).status
    'PASS'
    """
    from scipy import stats

    gaps = torch.tensor(permuted, dtype=torch.double) - torch.tensor(real, dtype=torch.double)
    if len(gaps) < 3 or not bool(gaps.isfinite().all()):
        return Finding(CHECK_TRAINING, "SKIP", "There are fewer than three pairs of finite losses.")
    loss = float(torch.tensor(permuted, dtype=torch.double).abs().mean())
    gap, error = float(gaps.mean()), float(gaps.std()) / len(gaps) ** 0.5
    same = float(gaps.abs().max()) <= 1e-9 * max(loss, 1e-12)
    t = gap / max(error, 1e-12 * max(loss, 1e-12))
    p = 1.0 if same else float(stats.t.sf(t, len(gaps) - 1))
    most = gap + float(stats.t.isf(ALPHA, len(gaps) - 1)) * error  # upper bound of the gap
    evidence = {"gap": gap, "gap_at_most": most, "loss": loss, "p": p, "seeds": len(gaps)}
    measured = f"Permuted inputs raise the held-out loss by {gap:.3g} of {loss:.3g} (p = {p:.2g})"
    if p < ALPHA:
        return Finding(CHECK_TRAINING, "PASS", f"{measured}.", evidence)
    causes = ("labels-misaligned", "input-ignored") if learned else ("input-ignored", "labels-misaligned")
    if same:
        message = f"{measured}: the inputs make no difference at all."
        return Finding(CHECK_TRAINING, "FAIL", message, evidence, ("input-ignored", "learning-rate-too-low"))
    if most < 0.02 * loss:
        message = f"{measured}, at most by {max(most, 0.0):.3g}; the inputs should lower it."
        return Finding(CHECK_TRAINING, "FAIL" if learned else "WARN", message, evidence, causes)
    if learned and p > SEEN:
        message = f"{measured}, though the training loss falls; the inputs should lower it."
        return Finding(CHECK_TRAINING, "WARN", message, evidence, causes)
    return Finding(CHECK_TRAINING, "INFO", f"{measured}: too little to tell.", evidence, causes)


def _features(inputs: Tensor) -> Tensor:
    """Return standardised features, (N, D), of images made at most 16 pixels wide."""
    inputs = inputs.float().cpu()
    if inputs.ndim == 4 and max(inputs.shape[-2:]) > SIDE:
        height, width = (min(SIDE, length) for length in inputs.shape[-2:])
        inputs = torch.nn.functional.adaptive_avg_pool2d(inputs, (height, width))
    flat = inputs.flatten(1)
    return (flat - flat.mean(0)) / flat.std(0).clamp(min=1e-6)


def _first_of_each(features: Tensor) -> Tensor:
    """Return the indices of the rows that are not there before."""
    first: dict[bytes, int] = {}
    for index, row in enumerate(features.numpy()):
        first.setdefault(row.tobytes(), index)
    return torch.tensor(list(first.values()))


def _neighbours(features: Tensor) -> Tensor:
    distances = torch.cdist(features, features)
    distances.fill_diagonal_(float("inf"))
    return distances.topk(NEIGHBOURS, largest=False).indices
