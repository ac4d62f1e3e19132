"""The measuring of batches, by the metrics that a classifier keeps for each stage."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor
from torchmetrics import MetricCollection

from .metrics import MeanLoss


def meters(module: Any, stage: str) -> tuple[MeanLoss, MetricCollection]:  # noqa: ANN401 - a module with `metrics`
    """Return the mean loss and the metrics of a stage: train, val or test."""
    name = f"{stage}_metrics"  # "train" alone would shadow `nn.Module.train`
    return cast(MeanLoss, module.mean_loss[name]), cast(MetricCollection, module.metrics[name])


def reset(module: Any, stage: str) -> None:  # noqa: ANN401 - a module with `metrics`
    """Forget what a stage that was cut off had measured."""
    for meter in meters(module, stage):
        meter.reset()


def measure(
    module: Any,  # noqa: ANN401 - a LightningModule with `metrics` and `mean_loss`
    stage: str,
    *,
    loss: Tensor,
    probabilities: Tensor,
    labels: Tensor,
) -> None:
    """Measure a batch, and have Lightning log `STAGE/loss` and `STAGE/METRIC` at the end of the stage.

    Args:
        module: Which measures itself.
        stage: train, val or test.
        loss: Mean over the batch, ().
        probabilities: (B, K).
        labels: int64 (B,), or int (B, K).
    """
    mean_loss, metrics = meters(module, stage)
    first = not mean_loss.update_called
    metrics.update(probabilities, labels)
    mean_loss.update(loss, len(probabilities))
    if not first:  # Lightning computes and resets them at the end, and each log takes a millisecond
        return
    for name, metric in (("loss", mean_loss), *metrics.items()):
        shown = stage != "train" and name in ("loss", "acc")
        module.log(f"{stage}/{name}", metric, on_step=False, on_epoch=True, prog_bar=shown)
