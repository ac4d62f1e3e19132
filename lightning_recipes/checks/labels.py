"""Do the labels vary, and do they fit the outputs?"""

from __future__ import annotations

from math import ceil, log

import torch
from torch import Tensor

from .finding import Finding

CHECK = "labels"
ALPHA = 2.5e-4  # false alarms of one check, with an imbalance of 1:100 taken for healthy
HEALTHY_IMBALANCE = 100


def labels(
    targets: Tensor,
    num_outputs: int,
    *,
    num_classes: int | None = None,
    complete: bool,
    ignore_index: int = -100,
) -> Finding:
    """Judge whether the labels vary and fit the outputs.

    A part of the data may lack a rare class by chance: what is absent is judged only where an imbalance of
    1:100 would show it with a probability of all but 2.5e-4.

    Args:
        targets: Labels, (N,) integers, or probabilities (N, K), of which the largest counts.
        num_outputs: K of the logits; 1 for a binary classifier with one output.
        num_classes: Number of classes of the data, when it is known.
        complete: Whether these are all labels of the training data.
        ignore_index: The label that the loss leaves out.

    >>> labels(torch.zeros(500, dtype=torch.long), 10, complete=False).causes
    ('constant-labels', 'unshuffled-data')
    >>> labels(torch.arange(500) % 10, 10, complete=False).status
    'PASS'
    """
    if targets.ndim == 2 and targets.shape[1] > 1:
        soft = targets.double()
        if bool((soft < 0).any()) or not torch.allclose(soft.sum(1), soft.new_ones(()), atol=1e-2):
            return Finding(CHECK, "SKIP", "The targets are neither labels nor probabilities of one class.")
        if targets.shape[1] != num_outputs:
            message = f"The targets have {targets.shape[1]} columns, the model {num_outputs} outputs."
            return Finding(CHECK, "FAIL", message, {"num_outputs": num_outputs}, ("wrong-number-of-classes",))
        targets = soft.argmax(1)
    targets = targets.detach().flatten().cpu()
    if bool((targets != targets.round()).any()):
        return Finding(CHECK, "SKIP", "The targets are no integers.")
    targets = targets.long()
    targets = targets[targets != ignore_index]
    if len(targets) < 2:
        return Finding(CHECK, "SKIP", "There are fewer than two labels.")
    values, counts = torch.unique(targets, return_counts=True)
    evidence: dict[str, float | None] = {
        "samples": len(targets),
        "distinct": len(values),
        "smallest": int(values[0]),
        "largest": int(values[-1]),
        "num_outputs": num_outputs,
        "num_classes": num_classes,
    }
    outputs = max(num_outputs, 2)
    classes = max(num_classes or outputs, 2)
    if values[0] < 0 or values[-1] >= outputs:
        return Finding(
            CHECK,
            "FAIL",
            f"Labels run from {values[0]} to {values[-1]}; with {num_outputs} outputs they must lie in 0 to "
            f"{outputs - 1}.",
            evidence,
            ("wrong-number-of-classes",),
        )
    if len(values) == 1:
        return _constant(len(targets), int(values[0]), classes, complete, evidence)
    unused = outputs - 1 - int(values[-1])  # outputs above the largest label
    if num_classes is not None and max(num_classes, 2) != outputs:
        message = (
            f"The data has {num_classes} classes, the model {num_outputs} outputs; they must be as many."
        )
        return Finding(CHECK, "WARN", message, evidence, ("wrong-number-of-classes",))
    if num_classes is None and unused and (complete or _never_by_chance(unused, outputs, len(targets))):
        return Finding(
            CHECK,
            "WARN",
            f"No label is above {values[-1]} among {len(targets)}, and the model has {num_outputs} outputs.",
            evidence,
            ("wrong-number-of-classes", "class-imbalance"),
        )
    ratio = float(counts.max() / counts.min())
    evidence["imbalance"] = ratio
    absent = complete and len(values) < outputs
    if absent or (ratio >= 10 and len(targets) >= 64):
        extra = f"; {outputs - len(values)} classes have no sample" if absent else ""
        message = f"The most frequent class has {ratio:.0f} times the samples of the rarest seen{extra}."
        return Finding(CHECK, "INFO", message, evidence, ("class-imbalance",))
    return Finding(CHECK, "PASS", f"{len(values)} classes among {len(targets)} labels.", evidence)


def _constant(
    samples: int, label: int, classes: int, complete: bool, evidence: dict[str, float | None]
) -> Finding:
    # The most frequent class of a healthy data set has at most 100 samples for one of each other class.
    share = HEALTHY_IMBALANCE / (HEALTHY_IMBALANCE + classes - 1)
    needed = max(64, ceil(log(ALPHA) / log(share)))  # 834 for 2 classes, 97 for 10, 64 for 100
    if samples >= needed or (complete and samples >= 64):
        causes = ("constant-labels",) if complete else ("constant-labels", "unshuffled-data")
        message = f"All {samples} labels are {label}; a classifier needs at least two."
        return Finding(CHECK, "FAIL", message, evidence, causes)
    message = f"All {samples} labels are {label}, which may be chance with fewer than {needed}."
    return Finding(CHECK, "INFO", message, evidence, ("constant-labels", "class-imbalance"))


def _never_by_chance(absent: int, outputs: int, samples: int) -> bool:
    """Return whether that many classes cannot all be rare ones that this part of the data lacks."""
    share = absent / (absent + HEALTHY_IMBALANCE * (outputs - absent))
    return samples * log(1 - share) < log(ALPHA)
