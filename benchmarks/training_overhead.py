"""Seconds an epoch: the CLI's defaults against a loop written by hand.

Result (median of 24 pairs, range): 1.08 (0.93 to 1.44) in wall time, 1.04 (0.90 to 1.40) in processor time;
a run just before, on the same noisy machine, gave 1.13 (0.88 to 1.39) and 1.07. AMD EPYC, 2 cores; python
3.11.7, torch 2.15.0, lightning 2.6.6; results/training_overhead.csv.

Both sides: resnet10t on the embedded digits at 32 × 32, the same batches, AdamW with two groups, one cycle,
loss and accuracy in training; loss, accuracy, top-5, F1, AUROC and ECE in validation. Between any two
epochs of `fit` an epoch of the loop is run, so that each ratio compares neighbours in time. Ours is timed
from the start of an epoch to the start of the next, with all that `fit` does by default: logging, progress
bar, two checkpoints, until they lie on the disk. The loop does none of these. Both run in one process, so
the loop too has the memory setting of the command line (`lightning_recipes/cli/memory.py`). Wall time, and
the processor time of all threads.

    python benchmarks/training_overhead.py
"""

from __future__ import annotations

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

PAIRS = 24
PACKAGES = ("torch", "lightning", "timm", "torchmetrics", "lightning-recipes")


Times = tuple[float, float]  # wall and processor time, s


def now() -> Times:
    """Return the two clocks."""
    return time.perf_counter(), time.process_time()


def since(start: Times, end: Times) -> Times:
    """Return what passed on the two clocks."""
    return end[0] - start[0], end[1] - start[1]


class Loop:
    """A plain training loop, an epoch at a call."""

    def __init__(self) -> None:
        data = DigitsDataModule()
        data.setup("fit")
        model = ImageClassifier(num_classes=10, in_chans=1, image_size=32)
        self.network = torch.nn.Sequential(model.backbone, model.head)
        self.train, self.val = data.train_dataloader(), data.val_dataloader()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.network), lr=2e-3, weight_decay=0.05)
        self.scheduler = Schedule(self.optimizer, (PAIRS + 1) * len(self.train))
        self.train_loss, self.train_metrics = MeanLoss(), classification_metrics(10, ranking=False)
        self.val_loss, self.val_metrics = MeanLoss(), classification_metrics(10)

    def epoch(self, number: int) -> None:
        """Train and validate."""
        self.train.sampler.set_epoch(number)
        self.network.train()
        for images, targets in self.train:
            logits = self.network(images)
            loss = F.cross_entropy(logits, targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.train_loss.update(loss.detach(), len(images))
            self.train_metrics.update(logits.detach().softmax(1), targets)
        self.network.eval()
        with torch.inference_mode():
            for images, targets in self.val:
                logits = self.network(images)
                self.val_loss.update(F.cross_entropy(logits, targets), len(images))
                self.val_metrics.update(logits.softmax(1), targets)
        for metric in (self.train_loss, self.train_metrics, self.val_loss, self.val_metrics):
            metric.compute()
            metric.reset()


class Clock(Callback):
    """Times each epoch of the fit, and an epoch of the loop before the next one."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.ours: list[Times] = []
        self.plain: list[Times] = []
        self.start: Times | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an epoch, once its checkpoints are written; run the loop; begin the next."""
        if self.start is not None:
            writer = trainer.strategy.checkpoint_io._executor
            if writer is not None:
                writer.submit(int).result()
            self.ours.append(since(self.start, now()))
        start = now()
        self.loop.epoch(trainer.current_epoch)
        self.plain.append(since(start, now()))
        self.start = now()

    on_train_end = on_train_epoch_start


def main() -> None:
    """Measure, and write the CSV."""
    seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--trainer.max_epochs", str(PAIRS + 1), "--run_dir", str(Path(folder) / "run")]
        cli = RecipesCLI("fit", arguments)
        clock = Clock(Loop())
        cli.trainer.callbacks.insert(0, clock)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    rows = []
    for which, name in enumerate(("wall", "processor")):
        ours = [times[which] for times in clock.ours[1:]]  # the first epoch warms up
        plain = [times[which] for times in clock.plain[2:]]
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        case = f"digits, resnet10t, one epoch with validation, {name} time"
        rows += [
            row(case, "lightning-recipes fit", ours, "s", PACKAGES),
            row(case, "loop by hand", plain, "s", PACKAGES),
            row(case, "fit / loop", ratios, "ratio", PACKAGES),
        ]
    write("training_overhead", rows)


if __name__ == "__main__":
    main()
