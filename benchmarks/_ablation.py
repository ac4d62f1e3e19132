"""One choice at a time, on a small training set, each against the same plain run."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from _common import fashion_mnist, machine, versions, write
from lightning.pytorch import Callback, Trainer, seed_everything

from lightning_recipes import ImageClassifier, TorchvisionDataModule
from lightning_recipes.scores import accuracy, nll

PACKAGES = ("torch", "lightning", "timm", "torchmetrics", "lightning-recipes")

Scores = tuple[float, float]  # accuracy in %, NLL in nats


@dataclass(frozen=True)
class Case:
    """One choice.

    Args:
        model: Options of `ImageClassifier`.
        data: Options of the datamodule.
        decay: Of AdamW.
        callbacks: Makes those of a run.
        change: What is done to the network before training.
    """

    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    decay: float = 0.0
    callbacks: Callable[[], list[Callback]] = list
    change: Callable[[ImageClassifier], object] = lambda model: None


def run(case: Case, seed: int, root: Path, arguments: argparse.Namespace) -> Scores:
    """Train once, on images that the seed chooses, and return the scores on the whole test split."""
    seed_everything(seed, verbose=False)
    options = {"augment": "none", **case.data}
    data = TorchvisionDataModule(
        "FashionMNIST",
        root=root,
        limit_per_class=arguments.images,
        val_fraction=1 / 60,
        batch_size=arguments.batch,
        split_seed=seed,
        **options,
    )
    model = ImageClassifier(
        arguments.backbone,
        in_chans=1,
        image_size=32,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=2e-3, weight_decay=case.decay),
        **case.model,
    )
    case.change(model)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=arguments.epochs,
        callbacks=case.callbacks(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(model, datamodule=data)
    data.setup("test")
    model.eval()
    with torch.inference_mode():
        batches = [(model.predict_step(images), targets) for images, targets in data.test_dataloader()]
    probabilities, targets = (torch.cat(part) for part in zip(*batches, strict=True))
    return 100 * accuracy(probabilities, targets), nll(probabilities, targets)


def rows(scores: dict[str, list[Scores]], case: str, plain: str) -> list[list[object]]:
    """Return mean and standard deviation over the seeds, and those of the differences to the plain run."""

    def line(what: str, side: str, values: Sequence[float], unit: str) -> list[object]:
        spread = f"sd {stdev(values):.3g}" if len(values) > 1 else ""
        found = versions(*PACKAGES)
        return [f"{case}, {what}", side, f"{mean(values):.4g}", unit, len(values), spread, machine(), found]

    out = []
    columns = (("test accuracy", "%"), ("test NLL", "nats"))
    for number, (what, unit) in enumerate(columns):
        out += [line(what, side, [s[number] for s in each], unit) for side, each in scores.items()]
    for number, (what, unit) in enumerate(columns):
        for side, each in scores.items():
            pairs = zip(each, scores[plain], strict=False)
            if side != plain:
                differences = [own[number] - other[number] for own, other in pairs]
                unit = "points" if unit == "%" else unit
                out.append(line(what, f"{side} - {plain}", differences, unit))
    return out


def compare(name: str, cases: Mapping[str, Case]) -> None:
    """Train every case with every seed, and write the CSV `name`; the first case is the plain run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=20, help="for training, of each class")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--only", nargs="*", help="cases, by parts of their names; nothing is written")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {
        side: case
        for side, case in cases.items()
        if not arguments.only or any(part in side for part in arguments.only)
    }
    scores: dict[str, list[Scores]] = {side: [] for side in chosen}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        root = fashion_mnist(Path(folder))
        for seed in range(arguments.seeds):
            for side, case in chosen.items():
                scores[side].append(run(case, seed, root, arguments))
                found = "\t".join(f"{value:.4g}" for value in scores[side][-1])
                print(f"{time.perf_counter() - start:.0f} s", seed, side, found, sep="\t", flush=True)
    title = f"Fashion-MNIST, {10 * arguments.images} images, {arguments.backbone}, {arguments.epochs} epochs"
    if not arguments.only:
        write(name, rows(scores, title, next(iter(cases))))
