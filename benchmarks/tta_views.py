"""What test-time augmentation gives: several views of each test image, their probabilities averaged.

Result (mean over 3 seeds; test split, 10,000 images; accuracy %, NLL nats, ECE %):

                    trained with `standard`       trained with `light`
    none             83.33   0.442   1.50          85.70   0.390   0.76
    flip             83.53   0.436   1.81          86.00   0.379   0.99
    ten_crop         83.75   0.435   3.20          81.93   0.498   2.42

The mirror image helps a little in every seed (+0.04 to +0.44 points, NLL lower by 0.004 to 0.014). Ten
crops help by 0.2 to 0.6 points where the training saw crops of many sizes, and cost 2.5 to 4.4 points where
it saw shifts alone: a view should be one that the training shows, too. The calibration error rises in every
case. `multi_scale` was not measured.

AMD EPYC, 2 cores, one thread; python 3.11.7, torch 2.15.0, lightning 2.6.6, timm 1.0.31;
results/tta_views.csv, whose values are means, with ranges; differences are paired by seed.

test_resnet (0.37 million parameters) at 32 x 32, 2500 training images, 20 epochs, batches of 64, last
weights; SGD with Nesterov momentum 0.9 and weight decay 5e-4, cosine from 0.1.

    python benchmarks/tta_views.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from _common import fashion_mnist, given_device, machine, versions, write
from lightning.pytorch import Trainer, seed_everything

from lightning_recipes import ImageClassifier, Schedule, TorchvisionDataModule
from lightning_recipes.datamodules.transforms import Preset
from lightning_recipes.layers.test_time import Views

SEEDS = (0, 1, 2)
EPOCHS, IMAGES = 20, 250  # of a run; of each class
AUGMENT: tuple[Preset, ...] = ("standard", "light")  # random crops of many sizes; shifts alone
MODES: tuple[Views, ...] = ("none", "flip", "ten_crop")
METRICS = {"test/acc": ("accuracy", 100, "%"), "test/loss": ("NLL", 1, "nats"), "test/ece": ("ECE", 100, "%")}
PACKAGES = ("torch", "lightning", "timm", "torchmetrics", "lightning-recipes")

Scores = dict[str, dict[str, float]]


def scores(root: Path, seed: int, augment: Preset) -> Scores:
    """Return the test split's metrics by mode, of one run."""

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            max_epochs=EPOCHS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    data = TorchvisionDataModule(
        "FashionMNIST", root=root, limit_per_class=IMAGES, val_fraction=1 / 60, augment=augment
    )
    seed_everything(seed, verbose=False)
    model = ImageClassifier(
        "test_resnet",
        in_chans=1,
        image_size=32,
        optimizer=lambda groups: torch.optim.SGD(
            groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
        ),
        schedule=lambda optimizer, steps: Schedule(optimizer, steps),
    )
    trainer().fit(model, datamodule=data)
    found: Scores = {}
    for mode in MODES:
        model.tta = mode
        start = time.perf_counter()
        (measured,) = trainer().test(model, datamodule=data, verbose=False)
        found[mode] = {name: scale * measured[name] for name, (_, scale, _) in METRICS.items()}
        print(augment, seed, mode, found[mode], f"{time.perf_counter() - start:.0f} s", flush=True)
    return found


def rows(measured: Sequence[Scores], case: str) -> list[list[object]]:
    """Return the means over the seeds, and those of the differences to the image alone, paired by seed."""

    def line(what: str, side: str, values: Sequence[float], unit: str) -> list[object]:
        spread = f"{min(values):.4g}..{max(values):.4g}"
        found = versions(*PACKAGES)
        return [f"{case}, {what}", side, f"{mean(values):.4g}", unit, len(values), spread, machine(), found]

    out = []
    for name, (what, _, unit) in METRICS.items():
        out += [line(what, side, [each[side][name] for each in measured], unit) for side in measured[0]]
    for name, (what, _, unit) in METRICS.items():
        for side in list(measured[0])[1:]:
            differences = [each[side][name] - each["none"][name] for each in measured]
            out.append(line(what, f"{side} - none", differences, "points" if unit == "%" else unit))
    return out


def main() -> None:
    """Train, measure, and write the CSV."""
    given_device()
    out: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        root = fashion_mnist(Path(folder))
        for augment in AUGMENT:
            measured = [scores(root, seed, augment) for seed in SEEDS]
            what = f"Fashion-MNIST, {10 * IMAGES} images, test_resnet, {EPOCHS} epochs, augment: {augment}"
            out += rows(measured, what)
    write("tta_views", out)


if __name__ == "__main__":
    main()
