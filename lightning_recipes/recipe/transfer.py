"""How to transfer a pretrained backbone to these data: what was measured, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from types import SimpleNamespace
from typing import Any

from rich.table import Table

from ..datamodules import ImageDataModule
from ..datamodules.batches import BatchLoader, BatchPlan
from ..modules import ImageClassifier
from ..transfer.advice import SIMILAR, TransferAdvice, advise
from ..transfer.depth import depths
from ..transfer.distance import domain_distance
from ..transfer.features import images_of, stage_features
from ..transfer.probes import probe_accuracies
from ..utils.errors import UserError
from ..utils.modes import evaluating

MEASURED = 1000
"""Images, drawn at random, by which the distance is measured and the probes are fitted; likewise scored."""


@dataclass(frozen=True)
class TransferReport:
    """What was measured of the data and the backbone, and the advice that follows.

    Args:
        advice: A row of the handbook's table.
        freeze_until: The first part of the backbone to be trained; None for all, or for none with a probe.
        stages: Stage to the validation accuracy of a linear classifier on it, in [0, 1].
        fewest: Images of the smallest class.
    """

    advice: TransferAdvice
    freeze_until: str | None
    stages: dict[str, float]
    fewest: int

    @property
    def setting(self) -> str:
        """What to append to a `fit`."""
        until = "" if self.freeze_until is None else f" --trainer.callbacks.freeze_until {self.freeze_until}"
        return f"--trainer.callbacks+=FineTuning --trainer.callbacks.policy {self.advice.policy}{until}"

    def table(self) -> Table:
        """Return it as a table for the terminal."""
        a = self.advice
        kind = "similar" if a.similar else "different"
        far = f"{kind}: an earlier stage is {'not ' if a.similar else ''}clearly better than the last"
        if a.distance is not None:
            far = f"{a.distance:.3f} ({kind}; up to {SIMILAR} counts as similar)"
        table = Table(title="Transfer", show_header=False)
        table.add_row("images a class", f"{a.images_per_class:g} (median), {self.fewest} (least)")
        table.add_row("distance to pretraining", far)
        for stage, accuracy in self.stages.items():
            table.add_row(f"probe at {stage}", f"{accuracy:.1%}")
        table.add_row("advice", a.reason)
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            **vars(self.advice),
            "first_trained": self.freeze_until,
            "stages": self.stages,
            "fewest": self.fewest,
            "setting": self.setting,
        }


def advise_transfer(
    model: ImageClassifier, data: ImageDataModule, *, stages: int | Sequence[str] | None = 4
) -> TransferReport:
    """Say how to transfer a pretrained backbone to a data set.

    Counts the training images of each class; measures how differently they drive the backbone's BatchNorm
    layers than the images of pretraining did (`domain_distance`); and fits linear classifiers at several
    stages, for which one forward pass serves. A backbone without BatchNorm is told by the probes: where an
    earlier stage is better than the last by two standard errors, the images count as unlike those of
    pretraining. Nothing of the model is trained or changed.

    Args:
        model: With pretrained weights.
        data: Its images.
        stages: The stages to probe: by name, or so many of the last; None for all.

    Raises:
        UserError: The backbone has fresh weights, or cannot be tapped; several labels an image; more stages
            than there are.
    """
    if model.normalization is None:
        raise UserError(
            "Advice on transfer needs a backbone with pretrained weights, got fresh ones. "
            "Set `pretrained: true`, or give `weights`."
        )
    if data.multi_label:
        raise UserError("Advice on transfer needs one label an image, got several.")
    state = SimpleNamespace(fn=None)
    attached = SimpleNamespace(lightning_module=model, world_size=1, global_rank=0, state=state)
    before = data.trainer
    data.trainer = attached  # type: ignore[assignment]  # whose module says how its weights want their images
    try:
        data.prepare_data()
        data.setup("fit")
        counts = data.splits["train"].targets.bincount(minlength=data.num_classes)
        with evaluating(model):
            images, val = (
                list(images_of(_drawn(loader), MEASURED))
                for loader in (data.train_eval_dataloader(), data.val_dataloader())
            )
            distance = domain_distance(model.backbone, images, device=model.device)
            features, targets = stage_features(model.backbone, images, stages=stages, device=model.device)
            val_features, val_targets = stage_features(
                model.backbone, val, stages=stages, device=model.device
            )
    finally:
        data.trainer = before
    if distance is None and len(features) < 2:
        raise UserError(
            f"{type(model.backbone).__name__} has no BatchNorm by which to measure a distance: two or more "
            f"stages must tell, got {', '.join(features)} alone. Leave `stages` out, or name more."
        )
    found = probe_accuracies(features, targets, val_features, val_targets)
    similar = _last_is_best(found, len(val_targets)) if distance is None else distance <= SIMILAR
    advice = advise(float(counts.double().quantile(0.5)), similar=similar, distance=distance)
    return TransferReport(advice, _first_trained(model, advice), found, int(counts.min()))


def _drawn(loader: BatchLoader) -> BatchLoader:
    """Return a loader of all images, or where they are more than needed, in a random order.

    They may be sorted by class; and a shuffled plan leaves an incomplete batch out.
    """
    if loader.sampler.size <= MEASURED:
        return loader
    return loader.independent(BatchPlan(loader.sampler.size, loader.batch_size, shuffle=True))


def _last_is_best(found: dict[str, float], n: int) -> bool:
    best, last = max(found.values()), list(found.values())[-1]
    variance = (last * (1 - last) + best * (1 - best)) / n
    return best - last <= 2 * sqrt(variance)


def _first_trained(model: ImageClassifier, advice: TransferAdvice) -> str | None:
    if not 0 < advice.freeze_until < 1:
        return None
    names = depths(model.backbone).names
    return names[round(advice.freeze_until * len(names))]
