"""A timm backbone that classifies images."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, TypeAlias

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MetricCollection

from ..initialization import Scheme
from ..layers.test_time import Views, check_views, pooled_logits, views
from ..optimizers import parameter_groups
from ..preprocessing import Preprocessing
from ..schedules import Schedule
from ..utils.errors import UserError
from ..utils.progress import epochs_of_run, steps_of_run
from ..utils.run_length import known_epochs
from .backbones import create_backbone, split_head
from .losses import MultiLabelLoss
from .measuring import measure, reset
from .metrics import MeanLoss, classification_metrics
from .portable import PortableModule

ScheduleCallable: TypeAlias = Callable[[Optimizer, int], LRScheduler]
"""Optimizer and number of steps in the run to a scheduler that is stepped once an optimizer step."""


class ImageClassifier(PortableModule):
    """Images to class probabilities: a timm backbone and a linear head, trained and measured.

    Logs `train/`, `val/` and `test/` `loss` and `acc`; with them, from 10 classes on, `acc_top5`; in
    evaluation also `f1`, `auroc` (macro) and `ece`. Its checkpoints hold the normalisation and the class
    names, so that a checkpoint alone is enough to predict.

    With `tta`, `test` and `predict` see several views of each image. The probabilities are the views' mean,
    and so the test's loss is the loss of that mean (its NLL, where classes are not weighted or smoothed), not
    the mean of the views' losses. Training and validation see the image itself.

    To change a part, subclass and override `configure_backbone`, `configure_head`, `configure_loss` or
    `configure_metrics`; see docs/subclassing.md.

    Args:
        backbone: Any name that timm knows.
        num_classes: Number of classes, K. (The CLI takes it from the data.)
        in_chans: Channels of the images. (The CLI takes it from the data.)
        image_size: Side of the images, pixels; architectures that need it are built for it, the others are
            checked by a forward pass. (The CLI takes it from the data.)
        pretrained: Start from timm's weights, fetched from the hub.
        weights: Start from a local .pth or .safetensors file instead.
        act: Replace the backbone's activations: relu, leaky_relu, elu, gelu, silu, …
        drop_rate: Dropout before the head.
        drop_path_rate: Stochastic depth; None leaves the architecture's own.
        init: Set fresh weights by a scheme: kaiming, xavier, glorot, orthogonal, normal or zeros.
        drop_connect: Probability that a layer drops a weight in training, in [0, 1).
        fractional_pool: Max pools become fractional ones that shrink a side to this part, in (0, 1).
        multi_label: Several classes may hold at once: sigmoids and binary cross-entropy, targets (B, K).
        class_weights: Weight of each class in the loss, K numbers.
        label_smoothing: In [0, 1).
        class_names: K names. (A datamodule that has them sets them.)
        tta: Test-time augmentation: none, flip (2 views), ten_crop (10) or multi_scale (5 scales × 10 crops).
            Where the data say `horizontal_flip: false`, left and right matter: the crops' mirrored views are
            left out, and flip is refused.
        optimizer: Parameter groups to an optimizer. Biases and norms come in a group without weight decay.
        schedule: Optimizer and number of steps to a scheduler that is stepped once an optimizer step; None
            leaves the rate to the optimizer and to callbacks.

    Raises:
        UserError: An unknown backbone, weights that cannot be reached, or an argument out of its bounds.

    >>> model = ImageClassifier("test_resnet", num_classes=3, in_chans=1).eval()
    >>> model(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        backbone: str = "resnet10t",
        *,
        num_classes: int = 10,
        in_chans: int = 3,
        image_size: int | None = None,
        pretrained: bool = False,
        weights: str | PathLike[str] | None = None,
        act: str | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float | None = None,
        init: Scheme | None = None,
        drop_connect: float = 0.0,
        fractional_pool: float | None = None,
        multi_label: bool = False,
        class_weights: list[float] | None = None,
        label_smoothing: float = 0.0,
        class_names: list[str] | None = None,
        tta: Views = "none",
        optimizer: OptimizerCallable = lambda groups: torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.05),
        schedule: ScheduleCallable = lambda optimizer, steps: Schedule(optimizer, steps),
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise UserError(f"`num_classes` must be at least 2, got {num_classes}.")
        if not 0 <= label_smoothing < 1:
            raise UserError(f"`label_smoothing` must lie in [0, 1), got {label_smoothing}.")
        if class_weights is not None and len(class_weights) != num_classes:
            raise UserError(
                f"`class_weights` needs {num_classes} numbers, one a class, got {len(class_weights)}."
            )
        check_views(tta)
        self.save_hyperparameters(ignore=["optimizer", "schedule"])  # callables do not go into a checkpoint
        self.tta = tta
        self.optimizer = optimizer
        self.schedule: ScheduleCallable | None = schedule
        self.class_names = class_names or [str(number) for number in range(num_classes)]
        self.backbone, head = split_head(
            self.configure_backbone(), num_classes, init=init, drop_connect=drop_connect
        )
        self.head = self.configure_head(head)
        self.loss = self.configure_loss()
        self.metrics = nn.ModuleDict(
            {f"{s}_metrics": self.configure_metrics(s) for s in ("train", "val", "test")}
        )
        self.mean_loss = nn.ModuleDict({name: MeanLoss() for name in self.metrics})

    # What a subclass overrides

    def configure_backbone(self) -> nn.Module:
        """Return the network: a timm model, or any module from images to features with `num_features`."""
        h = self.hparams
        return create_backbone(
            h["backbone"],
            num_classes=h["num_classes"],
            in_chans=h["in_chans"],
            image_size=h["image_size"],
            pretrained=h["pretrained"],
            weights=h["weights"],
            act=h["act"],
            drop_rate=h["drop_rate"],
            drop_path_rate=h["drop_path_rate"],
            init=h["init"],
            drop_connect=h["drop_connect"],
            fractional_pool=h["fractional_pool"],
        )

    def configure_head(self, head: nn.Linear) -> nn.Module:
        """Return the module from features (B, D) to logits (B, K).

        Args:
            head: The backbone's own, `head.in_features` = D.
        """
        return head

    def configure_loss(self) -> nn.Module:
        """Return the module from logits (B, K) and targets, (B,) or (B, K), to a scalar."""
        weights, smoothing = self.hparams["class_weights"], self.hparams["label_smoothing"]
        weight = None if weights is None else torch.tensor(weights)
        if self.hparams["multi_label"]:
            return MultiLabelLoss(weight, smoothing)
        return nn.CrossEntropyLoss(weight, label_smoothing=smoothing)

    def configure_metrics(self, stage: str) -> MetricCollection:
        """Return the metrics of probabilities (B, K) and targets for a stage: train, val or test."""
        h = self.hparams
        return classification_metrics(
            h["num_classes"], multi_label=h["multi_label"], ranking=stage != "train"
        )

    # The way of a batch

    def on_train_epoch_start(self) -> None:
        """Forget what an epoch that was cut off had measured."""
        reset(self, "train")

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation that was cut off had measured."""
        reset(self, "val")

    def on_test_epoch_start(self) -> None:
        """Forget what a test that was cut off had measured."""
        reset(self, "test")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K) of images (B, C, H, W), or of features (B, D) that the backbone has made."""
        features = images if images.ndim == 2 else self.backbone(images)  # (B, D)
        logits: Tensor = self.head(features)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (B, K): softmax, or the sigmoid of each logit when multi-label; float32."""
        logits = logits.float()
        return logits.sigmoid() if self.hparams["multi_label"] else logits.softmax(1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch; soft targets (B, K), as mixup makes them, are accepted."""
        loss = self._step(batch, "train")
        self.log("train/loss_step", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        self._step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Measure a batch."""
        self._step(batch, "test")

    def predict_step(self, batch: Tensor | tuple[Tensor, Tensor], batch_idx: int = 0) -> Tensor:
        """Return probabilities (B, K) of images, with or without targets beside them; averaged by `tta`."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self.probabilities(self._pooled_logits(images))

    def _pooled_logits(self, images: Tensor) -> Tensor:
        """Return logits (B, K) whose probabilities are the mean of those of the views that `tta` asks for."""
        if self.tta == "none":
            logits: Tensor = self(images)
            return logits
        self._check_views(self.preprocessing)
        shown = views(images, self.tta, mirror=self.horizontal_flip is not False)
        each = ((self(view), weight) for view, weight in shown)
        return pooled_logits(each, multi_label=self.hparams["multi_label"])

    def _check_views(self, made: Preprocessing | None) -> None:
        rotated = made is not None and made.normalization.matrix is not None
        check_views(self.tta, mirror=self.horizontal_flip is not False, rotated=rotated)

    def _step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        images, targets = batch
        logits = self._pooled_logits(images) if stage == "test" else self(images)
        loss: Tensor = self.loss(logits, targets)
        shares = self.probabilities(logits.detach())
        measure(self, stage, loss=loss.detach(), probabilities=shares, labels=self._labels(targets))
        return loss

    def _labels(self, targets: Tensor) -> Tensor:
        """Return hard targets for the metrics: the likeliest class, or every label above one half."""
        if self.hparams["multi_label"]:
            return (targets > 0.5).int()
        return targets.argmax(1) if targets.ndim > 1 else targets

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - one of the forms that Lightning takes
        """Build the optimizer over two parameter groups, and the schedule over the steps of the run."""
        try:
            optimizer = self.optimizer(parameter_groups(self))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"The optimizer cannot be built: {error}. Check the arguments of `optimizer`."
            ) from error
        if self.schedule is None:
            return optimizer
        steps, epochs = steps_of_run(self.trainer), epochs_of_run(self.trainer)
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            steps, epochs = 10**6, 1000.0  # a rehearsal stands for a run in which a warm-up has room
        if steps is None:
            raise UserError(
                "A schedule needs a run with an end that is known. Set `max_epochs` or `max_steps`; where "
                "the training loader has no length, `max_steps` or `limit_train_batches`."
            )
        with known_epochs(epochs):
            scheduler = self.schedule(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Take the class names from the datamodule, and refuse one with other classes.

        Raises:
            UserError: The numbers of classes differ, or one side has several labels an image and one has not,
                or `tta` would mirror where left and right matter, or move what are no pixels.
        """
        data, h = getattr(self.trainer, "datamodule", None), self.hparams
        if stage == "fit" or self.horizontal_flip is None:
            self.horizontal_flip = getattr(data, "horizontal_flip", self.horizontal_flip)
        if stage == "fit":  # not after hours; a test may still load a checkpoint of other data
            self._check_views(getattr(data, "preprocessing", None) if self.tta != "none" else None)
        names = getattr(data, "class_names", None)
        if names is None:
            return
        if len(names) != h["num_classes"]:
            raise UserError(
                f"The module has `num_classes={h['num_classes']}`, the data have {len(names)} classes. "
                "Build the module with `num_classes=data.num_classes`."
            )
        if getattr(data, "multi_label", h["multi_label"]) != h["multi_label"]:
            raise UserError(
                f"The module has `multi_label={h['multi_label']}`, the data have not. Change the module's."
            )
        self.class_names = list(names)
