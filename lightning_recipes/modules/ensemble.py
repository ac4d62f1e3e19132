"""Several classifiers that answer as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ensembles import pool_checkpoints, read_checkpoint, short_names, split_members
from ..scores import EnsembleReport, Scored, fit_temperature, measure_ensemble
from ..scores.bootstrap import RESAMPLES
from ..scores.measures import TINY
from ..utils.errors import UserError
from .measuring import measure, reset
from .members import build_member, load_member
from .metrics import MeanLoss, classification_metrics
from .pool import MemberPool
from .stacking import StackedMembers


class EnsembleClassifier(MemberPool):
    r"""The mean of its members' probabilities, sharpened or flattened by one temperature.

    :math:`p = \text{softmax}(\ln(\frac1M \sum_m p_m) / T)`. Members may differ in architecture. They take
    the images that one datamodule makes, and stay in eval mode: an ensemble is not trained. It validates,
    tests and predicts as `ImageClassifier` does, without its `tta`; a checkpoint is enough to predict, too.

    Args:
        members: Modules from images to logits. They are taken over: put into eval mode, and frozen. Those
            without the hyperparameter `multi_label` give one label an image. (Of a file: descriptions.)
        temperature: T, above 0; `report` fits it.
        stacked: Run members of one architecture as one network by `torch.func`. By default on a GPU only: on
            a CPU it is mostly slower (benchmarks/ensemble_inference.py).
        memory_limit_gib: What a stack's weights and activations may take, GiB; batches are cut to it.
        class_names: K names, in place of those that the members know.

    Raises:
        UserError: No members, or members that differ in classes, preprocessing or kind of labels.

    Source: Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation
    using Deep Ensembles", 2017.

    >>> from lightning_recipes.modules import ImageClassifier
    >>> members = [ImageClassifier("test_resnet", num_classes=3, in_chans=1) for _ in range(2)]
    >>> ensemble = EnsembleClassifier(members)
    >>> ensemble.member_probabilities(torch.zeros(4, 1, 32, 32)).shape
    torch.Size([2, 4, 3])
    """

    def __init__(
        self,
        members: Sequence[nn.Module | dict[str, Any]],
        *,
        temperature: float = 1.0,
        stacked: bool | None = None,
        memory_limit_gib: float = 2.0,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__(members, temperature=temperature, class_names=class_names)
        if not memory_limit_gib > 0:
            raise UserError(f"`memory_limit_gib` must be above 0, got {memory_limit_gib}.")
        self.stacked, self.memory_limit_gib = stacked, memory_limit_gib
        self.metrics, self.mean_loss = nn.ModuleDict(), nn.ModuleDict()
        self._stack: StackedMembers | None = None

    @classmethod
    def from_checkpoints(
        cls,
        paths: Sequence[str | PathLike[str]],
        *,
        build: Callable[[], nn.Module] | None = None,
        stacked: bool | None = None,
        memory_limit_gib: float = 2.0,
    ) -> EnsembleClassifier:
        """Return the ensemble of the modules that wrote checkpoints; an ensemble's file gives its members.

        Args:
            paths: Checkpoints of Lightning, or of ensembles, in any mixture. The temperature of an ensemble's
                file belongs to that pool; `load_from_checkpoint` keeps it.
            build: Returns a fresh module from images to logits, for a member whose class the checkpoint does
                not name, or which cannot be imported.
            stacked: As for the class.
            memory_limit_gib: As for the class.

        Raises:
            UserError: A file that is no checkpoint or has no weights; members that differ in classes or
                preprocessing; a member that cannot be rebuilt without `build`.
        """
        names = short_names(paths)
        pool = pool_checkpoints([read_checkpoint(path) for path in paths], names)
        shared = pool["lightning_recipes"]
        members: list[nn.Module] = []
        for description, state in split_members(pool, "the pool"):
            member = build_member(description, build=build)
            load_member(member, state, description["name"])
            members.append(member)
        ensemble = cls(
            members,
            stacked=stacked,
            memory_limit_gib=memory_limit_gib,
            class_names=shared["class_names"],  # a module built anew does not know what it was trained on
        )
        ensemble._take(shared, [each["name"] for each in pool["hyper_parameters"]["members"]])
        return ensemble

    def subset(self, indices: Sequence[int]) -> EnsembleClassifier:
        """Return an ensemble of some members, which it shares with this one; its temperature is 1.

        Args:
            indices: Of the members to keep, as `select_members` gives them.
        """
        members: list[nn.Module | dict[str, Any]] = [self.members[index] for index in indices]
        smaller = EnsembleClassifier(
            members,
            stacked=self.stacked,
            memory_limit_gib=self.memory_limit_gib,
            class_names=self.class_names or None,
        )
        smaller.names = [self.names[index] for index in indices]
        smaller.preprocessing = self.preprocessing
        return smaller.to(self.device)

    # The way of a batch

    def member_probabilities(self, images: Tensor) -> Tensor:
        """Return each member's probabilities, float32 (M, B, K), of images (B, C, H, W).

        Raises:
            UserError: Members return anything but logits of the same classes.
        """
        if images.is_cuda if self.stacked is None else self.stacked:
            if self._stack is None:
                self._stack = StackedMembers(list(self.members), memory_limit_gib=self.memory_limit_gib)
            logits = self._stack(images)
        else:
            logits = [member(images) for member in self.members]
        shapes = [tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in logits]
        if set(shapes) != {shapes[0]} or len(shapes[0]) != 2:
            listed = ", ".join(f"{name}: {shape}" for name, shape in zip(self.names, shapes, strict=True))
            raise UserError(f"Members must return logits (B, K) of the same classes, got {listed}.")
        if self.class_names and shapes[0][1] != len(self.class_names):
            raise UserError(
                f"The members give logits of {shapes[0][1]} classes, but `class_names` has "
                f"{len(self.class_names)}. Give a name for each."
            )
        stacked = torch.stack(list(logits)).float()
        return stacked.sigmoid() if self.multi_label else stacked.softmax(-1)

    def forward(self, images: Tensor) -> Tensor:
        """Return ln p (B, K) of images (B, C, H, W); ln(p / (1 - p)) when multi-label."""
        mean = self.member_probabilities(images).mean(0)
        logits = mean.logit(eps=1e-7) if self.multi_label else mean.clamp_min(TINY).log()
        if self.temperature == 1:
            return logits
        logits = logits / self.temperature
        return logits if self.multi_label else logits.log_softmax(1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities (B, K) that `forward` gave the logarithms of."""
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    def predict_step(self, batch: Tensor | tuple[Tensor, Tensor], batch_idx: int = 0) -> Tensor:
        """Return probabilities (B, K) of images, with or without targets beside them."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self.probabilities(self(images))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        self._measure(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        self._measure(batch, "test")

    def _measure(self, batch: tuple[Tensor, Tensor], stage: str) -> None:
        images, targets = batch
        logits = self(images)
        if self.multi_label:
            loss, targets = F.binary_cross_entropy_with_logits(logits, targets.float()), (targets > 0.5).int()
        else:
            loss = F.nll_loss(logits, targets)
        measure(self, stage, loss=loss, probabilities=self.probabilities(logits), labels=targets)

    def setup(self, stage: str) -> None:
        """Make the metrics, and check the data.

        Raises:
            UserError: The ensemble is to be trained, does not know its classes, or the data have others.
        """
        if stage == "fit":
            raise UserError("An ensemble is not trained: its members are. Train one more and pool it.")
        self.check_data(getattr(self.trainer, "datamodule", None))
        count = len(self.class_names)
        if stage != "predict" and not count:
            raise UserError("The members do not say how many classes they know. Give `class_names`.")
        for kind in ("val", "test") if count else ():
            name = f"{kind}_metrics"
            if name not in self.metrics:
                self.metrics[name] = classification_metrics(count, multi_label=self.multi_label)
                self.mean_loss[name] = MeanLoss()
            reset(self, kind)

    def check_data(self, data: Any) -> None:  # noqa: ANN401 - any datamodule, or none
        """Refuse data that are not what the members were trained on.

        Raises:
            UserError: Classes, kind of labels, channels or image size differ.
        """
        names = getattr(data, "class_names", None)
        if names is not None and self.class_names and len(names) != len(self.class_names):
            raise UserError(
                f"The ensemble knows {len(self.class_names)} classes, the data have {len(names)}. "
                "Give the data that its members were trained on."
            )
        if getattr(data, "multi_label", self.multi_label) != self.multi_label:
            raise UserError(f"The ensemble has `multi_label={self.multi_label}`, the data have not.")
        for name in ("channels", "image_size") if self.preprocessing is not None else ():
            trained, given = getattr(self.preprocessing, name), getattr(data, name, None)
            if given not in (None, trained):
                raise UserError(
                    f"The members were trained on images with `{name}: {trained}`, the data have {given}. "
                    f"Set `data.{name}` to {trained}."
                )

    # What it is worth

    @torch.inference_mode()
    def collect(self, loader: Iterable[Any]) -> Scored:
        """Run the members once over batches of images and targets.

        Returns:
            Their probabilities, float32 (M, N, K), and the targets, int64 (N,), on the CPU.

        Raises:
            UserError: The loader is empty, or there are several labels an image.
        """
        if self.multi_label:
            raise UserError("The report is of one label an image, the members give several. Use `test`.")
        scored = [
            (self.member_probabilities(images.to(self.device)).cpu(), targets.long().cpu())
            for images, targets in loader
        ]
        if not scored:
            raise UserError("The loader gave no batch. Check the split's fraction.")
        probabilities, targets = zip(*scored, strict=True)
        return Scored(torch.cat(probabilities, 1), torch.cat(targets))

    def _scored(self, given: Iterable[Any] | Scored) -> Scored:
        if isinstance(given, tuple) and len(given) == 2 and all(isinstance(each, Tensor) for each in given):
            return Scored(*given)
        return self.collect(given)

    def report(
        self,
        loader: Iterable[Any] | Scored,
        *,
        validation: Iterable[Any] | Scored | None = None,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> EnsembleReport:
        """Return the scores of each member, of the pool, and of the pool with a temperature.

        The members run once over each loader. Take the loaders from a datamodule that knows its Trainer, as
        after `trainer.test(ensemble, datamodule=data)`: it then normalises as the members need.

        Args:
            loader: Batches of images and targets, or what `collect` returned.
            validation: Other samples, on which the temperature of the mean is fitted; to keep it, set
                `ensemble.temperature = report.temperature`. Without them it is the ensemble's own, if not 1.
            resamples: Of the bootstrap.
            seed: Of the bootstrap.

        Raises:
            UserError: There are several labels an image, or a loader is empty.
        """
        probabilities, targets = self._scored(loader)
        temperature = None if self.temperature == 1 else self.temperature
        if validation is not None:
            held_out, known = self._scored(validation)
            temperature = fit_temperature(held_out.mean(0), known)
        return measure_ensemble(
            probabilities,
            targets,
            names=self.names,
            temperature=temperature,
            resamples=resamples,
            seed=seed,
        )
