"""Images a second: the fast path against a `DataLoader` with torchvision's v2 transforms.

Result (median of 5 rounds, range): 38.9× (34.4 to 62.0) in batches of 64, 71.4× (55.2 to 91.0) in batches
of 256. AMD EPYC, 2 cores; python 3.11.7, torch 2.15.0, torchvision 0.29.2; results/loader_throughput.csv.

Both sides: Fashion-MNIST's 60,000 training images (the fast path holds 15 % of them back for validation) at
28 × 28, random crop with a padding of 4, horizontal flip, normalisation, in batches. The `DataLoader` is
measured with 0 and with 2 workers, and the better one counts; a warm-up epoch goes before. Each round
measures all sides one after another; the ratio is taken round by round.

    python benchmarks/loader_throughput.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from _common import fashion_mnist, row, write
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from lightning_recipes import TorchvisionDataModule

ROUNDS = 5
PACKAGES = ("torch", "torchvision", "lightning-recipes")


def images_per_second(loader: Iterable) -> float:
    """Return the speed of one epoch."""
    start, seen = time.perf_counter(), 0
    for images, _ in loader:
        seen += len(images)
    return seen / (time.perf_counter() - start)


def main() -> None:
    """Measure, and write the CSV."""
    with tempfile.TemporaryDirectory() as folder:
        root = fashion_mnist(Path(folder))
        rows = [line for batch_size in (64, 256) for line in measure(root, batch_size)]
    write("loader_throughput", rows)


def measure(root: Path, batch_size: int) -> list[list[object]]:
    """Return the rows for one batch size."""
    data = TorchvisionDataModule("FashionMNIST", root=root, image_size=28, batch_size=batch_size)
    data.setup("fit")
    fitted = data.preprocessing.normalization
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomCrop(28, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(fitted.mean, fitted.std),
        ]
    )
    theirs = datasets.FashionMNIST(root, transform=transform)
    sides = {"fast path": data.train_dataloader()}
    for workers in (0, 2):
        sides[f"DataLoader, {workers} workers"] = DataLoader(
            theirs,
            batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(ROUNDS + 1):
        for side, loader in sides.items():
            speed = images_per_second(loader)
            if number:  # the first round warms up
                speeds[side].append(speed)
    ratios = [ours / max(others) for ours, *others in zip(*speeds.values(), strict=True)]
    case = f"Fashion-MNIST, batches of {batch_size}"
    rows = [row(case, side, values, "images/s", PACKAGES) for side, values in speeds.items()]
    return [*rows, row(case, "fast path / best DataLoader", ratios, "ratio", PACKAGES)]


if __name__ == "__main__":
    main()
