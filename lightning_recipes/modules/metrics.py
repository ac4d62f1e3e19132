"""What is measured of a classifier."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelF1Score,
)
from torchmetrics.utilities import dim_zero_cat

from ..scores.measures import ECE_BINS


class MeanLoss(Metric):
    """Mean of batch losses, each weighted by its number of samples, over all ranks; NaN stays NaN.

    (torchmetrics 1.9's `MeanMetric` loses the weights when its search for NaN, which waits for the GPU each
    step, is switched off.)

    >>> import torch
    >>> metric = MeanLoss()
    >>> metric.update(torch.tensor(1.0), 3)
    >>> metric.update(torch.tensor(0.0), 1)
    >>> metric.compute()
    tensor(0.7500)
    """

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, loss: Tensor, samples: int) -> None:
        """Take the mean loss of a batch, (), and the size of the batch."""
        self.total += loss * samples
        self.count += samples

    def compute(self) -> Tensor:
        """Return the mean over all samples, ()."""
        return self.total / self.count


class MultilabelCalibrationError(BinaryCalibrationError):
    """Expected calibration error over all (sample, label) pairs.

    >>> import torch
    >>> metric = MultilabelCalibrationError()
    >>> metric(torch.tensor([[1.0, 0.0]]), torch.tensor([[1, 0]]))
    tensor(0.)
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take probabilities and targets, both (B, K)."""
        super().update(preds.flatten(), target.flatten())


class MacroAUROC(MulticlassAUROC):
    """Area under the ROC curve, one class against the rest, averaged over the classes that define it.

    (torchmetrics 1.9 counts a class that never occurs as 0, which pulls a small validation set's mean down.)

    Args:
        num_classes: K.

    >>> import torch
    >>> metric = MacroAUROC(3)
    >>> metric(torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]), torch.tensor([0, 1]))
    tensor(1.)
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average="none", validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the mean, (); NaN when fewer than two classes occur."""
        counts = dim_zero_cat(self.target).bincount(minlength=self.num_classes)
        return _mean_where_defined(super().compute, counts)


class MultilabelMacroAUROC(MultilabelAUROC):
    """Area under the ROC curve of each label, averaged over the labels for which it is defined.

    Args:
        num_labels: K.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__(num_labels, average="none", validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the mean, (); NaN when every label always or never holds."""
        return _mean_where_defined(
            super().compute, dim_zero_cat(self.target).sum(0), len(dim_zero_cat(self.target))
        )


def _mean_where_defined(compute: Callable[[], Tensor], counts: Tensor, samples: int | None = None) -> Tensor:
    """Return the mean of the scores (K,) whose class has both positive and negative samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the classes that are left out here
        scores = compute()
    total = counts.sum() if samples is None else samples
    return scores[(counts > 0) & (counts < total)].mean()


def classification_metrics(
    num_classes: int, *, multi_label: bool = False, ranking: bool = True
) -> MetricCollection:
    """Return acc, acc_top5 (from 10 classes on), f1 (macro), auroc (macro) and ece.

    They take probabilities (B, K), and targets int64 (B,), or (B, K) when multi-label. They gather over ranks
    what they need to be exact, so that N processes report what one would.

    Args:
        num_classes: K.
        multi_label: Several labels may hold at once; accuracy is then over all (sample, label) pairs.
        ranking: Also f1, auroc and ece. AUROC and ECE keep all probabilities until the epoch ends.
    """
    metrics: dict[str, Metric | MetricCollection]
    if multi_label:
        metrics = {"acc": MultilabelAccuracy(num_classes, average="micro", validate_args=False)}
        if ranking:
            metrics |= {
                "f1": MultilabelF1Score(num_classes, average="macro", validate_args=False),
                "auroc": MultilabelMacroAUROC(num_classes),
                "ece": MultilabelCalibrationError(ECE_BINS, validate_args=False),
            }
    else:
        metrics = {"acc": MulticlassAccuracy(num_classes, average="micro", validate_args=False)}
        if num_classes >= 10:
            metrics["acc_top5"] = MulticlassAccuracy(
                num_classes, average="micro", top_k=5, validate_args=False
            )
        if ranking:
            metrics |= {
                "f1": MulticlassF1Score(num_classes, average="macro", validate_args=False),
                "auroc": MacroAUROC(num_classes),
                "ece": MulticlassCalibrationError(num_classes, ECE_BINS, validate_args=False),
            }
    return MetricCollection(metrics, compute_groups=False)
