"""Seconds an epoch: the CLI's defaults against a loop written by hand.

RESULT_PLACEHOLDER

Both sides: resnet10t on the embedded digits at 32 × 32, the same batches, AdamW with two groups, one cycle, loss and
accuracy in training; loss, accuracy, top-5, F1, AUROC and ECE in validation. Ours is timed from the start of an epoch
to the start of the next, with all that `fit` does by default: logging, progress bar, two checkpoints. The loop does
none of these. The sides take turns, in rounds of three epochs of which the last two count.

    python benchmarks/training_overhead.py
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

import torch
from _common import row, write
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.nn import functional as F

from lightning_recipes import DigitsDataModule, ImageClassifier, Schedule
from lightning_recipes.cli.train import RecipesCLI
from lightning_recipes.modules.metrics import MeanLoss, classification_metrics
from lightning_recipes.optimizers import parameter_groups

ROUNDS, EPOCHS = 6, 3
PACKAGES = ("torch", "lightning", "timm", "torchmetrics", "lightning-recipes")


class Clock(Callback):
    """Notes when each epoch starts, and when the last one's work is done."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    on_train_end = on_train_epoch_start


def through_the_cli(folder: Path) -> list[float]:
    """Return the seconds of each epoch of `fit`."""
    arguments = ["--trainer.max_epochs", str(EPOCHS), "--test_after", "false", "--run_dir", str(folder / "run")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cli = RecipesCLI("fit", arguments)
        clock = Clock()
        cli.trainer.callbacks.append(clock)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return [end - start for start, end in zip(clock.times, clock.times[1:], strict=False)]


def by_hand() -> list[float]:
    """Return the seconds of each epoch of a plain loop."""
    seed_everything(0, verbose=False)
    data = DigitsDataModule()
    data.setup("fit")
    model = ImageClassifier(num_classes=10, in_chans=1, image_size=32)
    network = torch.nn.Sequential(model.backbone, model.head)
    train, val = data.train_dataloader(), data.val_dataloader()
    optimizer = torch.optim.AdamW(parameter_groups(network), lr=2e-3, weight_decay=0.05)
    scheduler = Schedule(optimizer, EPOCHS * len(train))
    train_loss, train_metrics = MeanLoss(), classification_metrics(10, ranking=False)
    val_loss, val_metrics = MeanLoss(), classification_metrics(10)
    seconds = []
    for epoch in range(EPOCHS):
        start = time.perf_counter()
        train.sampler.set_epoch(epoch)
        network.train()
        for images, targets in train:
            logits = network(images)
            loss = F.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            train_loss.update(loss.detach(), len(images))
            train_metrics.update(logits.detach().softmax(1), targets)
        network.eval()
        with torch.inference_mode():
            for images, targets in val:
                logits = network(images)
                val_loss.update(F.cross_entropy(logits, targets), len(images))
                val_metrics.update(logits.softmax(1), targets)
        for metric in (train_loss, train_metrics, val_loss, val_metrics):
            metric.compute()
            metric.reset()
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure, and write the CSV."""
    ours: list[float] = []
    plain: list[float] = []
    for number in range(ROUNDS + 1):
        with tempfile.TemporaryDirectory() as folder:
            pair = through_the_cli(Path(folder))[1:], by_hand()[1:]
        if number:  # the first round warms up
            ours.append(sum(pair[0]) / len(pair[0]))
            plain.append(sum(pair[1]) / len(pair[1]))
    ratios = [a / b for a, b in zip(ours, plain, strict=True)]
    case = "digits, resnet10t, one epoch with validation"
    write(
        "training_overhead",
        [
            row(case, "lightning-recipes fit", ours, "s", PACKAGES),
            row(case, "loop by hand", plain, "s", PACKAGES),
            row(case, "fit / loop", ratios, "ratio", PACKAGES),
        ],
    )


if __name__ == "__main__":
    main()
