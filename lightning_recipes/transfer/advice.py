"""Which way of transfer suits: from the number of images, and how far they are from those of pretraining."""

from __future__ import annotations

from dataclasses import dataclass

from .policies import PolicyName

FEW = 100
"""Images a class below which fine-tuning overfits: the handbook's "tens to hundreds"."""
SIMILAR = 0.06
"""`domain_distance` up to which images are like those of pretraining.

Measured with EfficientNet-Lite0's ImageNet weights on 64 crops of 64 and of 128 pixels (n = 1): photographs
0.05 and 0.02, Fashion-MNIST 0.08 and 0.07, stained tissue 0.12 and 0.06, digits 0.13 and 0.12, noise 0.23 and
0.19.
"""


@dataclass(frozen=True)
class TransferAdvice:
    """A row of the handbook's table, and what it was chosen by.

    Args:
        policy: For `FineTuning`.
        freeze_until: Share of the backbone's stages that stay frozen, in [0, 1].
        probe_stages: Whether linear classifiers at several stages are worth a look.
        reason: One sentence.
        images_per_class: The median over the classes.
        distance: As `domain_distance` gives it; None when it could not be measured.
        similar: Whether the images count as like those of pretraining.
    """

    policy: PolicyName
    freeze_until: float
    probe_stages: bool
    reason: str
    images_per_class: float
    distance: float | None
    similar: bool


def advise(images_per_class: float, *, similar: bool, distance: float | None = None) -> TransferAdvice:
    """Return the handbook's advice for data of a size, near to or far from the pretraining.

    | | similar | very different |
    |---|---|---|
    | few images | a linear classifier on top | trouble: linear classifiers at several stages |
    | many | fine-tune a few layers | fine-tune more layers |

    Args:
        images_per_class: The median over the classes.
        similar: Whether they are like the images of pretraining.
        distance: By which that was told, for the record.

    Source: CS231n notes, "Transfer Learning".

    >>> advise(20, similar=True).policy, advise(500, similar=False).policy
    ('linear_probe', 'probe_then_finetune')
    """
    few = images_per_class < FEW
    size = f"{images_per_class:g} images a class are {'few' if few else 'many'}"
    where = "like those of pretraining" if similar else "unlike those of pretraining"
    policy: PolicyName
    if few and similar:
        policy, frozen, what = "linear_probe", 1.0, "a linear classifier on top"
    elif few:
        policy, frozen, what = (
            "linear_probe",
            1.0,
            "linear classifiers at several stages: late ones may know too little",
        )
    elif similar:
        policy, frozen, what = (
            "probe_then_finetune",
            0.5,
            "the last layers are worth fine-tuning, after a probe",
        )
    else:
        policy, frozen, what = "probe_then_finetune", 0.0, "all layers are worth fine-tuning, after a probe"
    reason = f"{size}, and {where}: {what}."
    return TransferAdvice(policy, frozen, few and not similar, reason, images_per_class, distance, similar)
