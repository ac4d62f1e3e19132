"""Linear classifiers on features of a network, at its end and on the way."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..utils.errors import UserError


def probe_accuracies(
    train: Mapping[str, Tensor], train_targets: Tensor, val: Mapping[str, Tensor], val_targets: Tensor
) -> dict[str, float]:
    """Return the validation accuracy of a logistic regression on the features of each stage.

    Features are standardised by the training images; the penalty is scikit-learn's default.

    Args:
        train: Stage to features, float (N, D of the stage), as `stage_features` gives them.
        train_targets: int64, (N,).
        val: Likewise, (M, D).
        val_targets: int64, (M,).

    Returns:
        Stage to accuracy in [0, 1].

    Raises:
        UserError: Targets with several labels an image, or of one class only.

    Source: Alain and Bengio, "Understanding Intermediate Layers Using Linear Classifier Probes", 2017.

    >>> import torch
    >>> x, y = torch.tensor([[0.0], [0.1], [1.0], [1.1]]), torch.tensor([0, 0, 1, 1])
    >>> probe_accuracies({"a": x}, y, {"a": x}, y)
    {'a': 1.0}
    """
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if train_targets.ndim > 1:
        raise UserError("Probes need one label an image, got several. Probe one label at a time.")
    if (train_targets == train_targets[0]).all():
        raise UserError("Probes need at least 2 classes among the training images, got 1.")
    accuracies = {}
    for stage, features in train.items():
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        probe.fit(features.numpy(), train_targets.numpy())
        accuracies[stage] = float(probe.score(val[stage].numpy(), val_targets.numpy()))
    return accuracies
