"""Milliseconds a batch of each transform, with draws for each sample: ours, torchvision by sample, kornia.

Result (medians of 60 rounds, one thread; the other side's time over ours, of the same round):

                        256 × 3 × 32 × 32                    64 × 3 × 224 × 224
                   ours      torchvision  kornia        ours      torchvision  kornia
    mixup         1.15 ms       63         7.7         16.2 ms       4.9        4.0
    cutout        1.43 ms       28         1.8         13.1 ms       2.6        2.6
    crop          1.77 ms       15         4.6         15.8 ms       2.0        2.0
    flip          1.29 ms        6.6       1.08        15.2 ms       1.2        2.1
    lighting      0.32 ms       36          -           8.3 ms       2.6         -

The machine was shared, and single rounds spread far about these medians (the CSV has their ranges): flipping
is no faster than kornia's at 32 pixels and hardly faster than torchvision's at 224, where each is a copy. AMD
EPYC, 2 cores; python 3.11.7, torch 2.15.0, torchvision 0.29.2, kornia 0.9.0; results/batch_transforms.csv.
Not measured on a GPU.

All sides are given the same float32 images and make their own draws, a draw for each sample; who comes first
rotates. torchvision blends a whole batch by one λ, so for mixup it is given each sample with its partner. It
has no lighting (a line of torch for each sample stands for it), nor has kornia, whose λ is uniform. The C
library keeps freed memory for all sides, as under our command line.

    python benchmarks/batch_transforms.py [--threads 2]
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import torch
from _common import given_device, machine, row, write
from torch import Generator, Tensor
from torchvision.transforms import v2

from lightning_recipes.cli.memory import keep_freed_memory
from lightning_recipes.datamodules import Augmentation, Mixing
from lightning_recipes.datamodules.transforms import batch_transform
from lightning_recipes.layers import augment, boxes

SHAPES = [(256, 3, 32, 32), (64, 3, 224, 224)]
ROUNDS, WARM_UP = 60, 5
CLASSES, ALPHA, SIGMA = 10, 0.2, 0.1
OURS, TORCHVISION, KORNIA = "ours", "torchvision sample by sample", "kornia"
AXES = torch.tensor([[-0.125, -0.127, -0.124], [0.0128, 0.0, -0.0132], [0.0018, -0.0037, 0.0019]])  # λp, rows
Transform = Callable[[Tensor, Tensor], object]  # images (B, C, S, S) and targets (B,)


def ours(size: int) -> dict[str, Transform]:
    """Return our transforms, each with its draws."""
    generator = Generator()
    mixing = Mixing(mixup=ALPHA)
    crop, flip = Augmentation(shift=1 / 8), Augmentation(flip=True)

    def cutout(images: Tensor, targets: Tensor) -> Tensor:
        rows, columns = torch.randint(size, (2, len(images)), generator=generator)
        return boxes.cutout(images, rows, columns, torch.full((len(images),), size // 2))

    def lighting(images: Tensor, targets: Tensor) -> Tensor:
        return augment.lighting(images, AXES, torch.randn(len(images), 3, generator=generator) * SIGMA)

    return {
        "mixup": lambda images, targets: mixing(
            images, targets, num_classes=CLASSES, epoch=0, generator=generator
        ),
        "cutout": cutout,
        "crop": lambda images, targets: batch_transform(crop, images, generator),
        "flip": lambda images, targets: batch_transform(flip, images, generator),
        "lighting": lighting,
    }


def sample_by_sample(size: int) -> dict[str, Transform]:
    """Return torchvision's transforms, sample by sample; mixup by pair, lighting in plain torch."""
    mixup = v2.MixUp(alpha=ALPHA, num_classes=CLASSES)

    def mixed(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [mixup(images[[i, i - 1]], targets[[i, i - 1]]) for i in range(len(images))]
        return torch.stack([image[0] for image, _ in pairs]), torch.stack([target[0] for _, target in pairs])

    def each(transform: Callable[[Tensor], Tensor]) -> Transform:
        return lambda images, targets: torch.stack([transform(image) for image in images])

    return {
        "mixup": mixed,
        "cutout": each(v2.RandomErasing(1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0))),
        "crop": each(v2.RandomCrop(size, padding=size // 8)),
        "flip": each(v2.RandomHorizontalFlip()),
        "lighting": each(lambda image: image + 255 * (torch.randn(3) * SIGMA @ AXES)[:, None, None]),
    }


def kornias(size: int) -> dict[str, Transform]:
    """Return kornia's transforms of a batch; it has none for lighting."""
    import kornia.augmentation as kornia

    mixup = kornia.RandomMixUpV2(p=1.0, data_keys=["input", "class"])
    cutout = kornia.RandomErasing((0.25, 0.25), (1.0, 1.0), p=1.0)
    crop, flip = kornia.RandomCrop((size, size), padding=size // 8), kornia.RandomHorizontalFlip()
    return {
        "mixup": lambda images, targets: mixup(images, targets),
        "cutout": lambda images, targets: cutout(images),
        "crop": lambda images, targets: crop(images),
        "flip": lambda images, targets: flip(images),
    }


def milliseconds(transform: Transform, images: Tensor, targets: Tensor) -> float:
    """Return what one batch takes."""
    start = time.perf_counter()
    transform(images, targets)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Measure, and write the CSV."""
    keep_freed_memory()
    threads = given_device().threads
    with_kornia = importlib.util.find_spec("kornia") is not None
    packages = ("torch", "torchvision", *(["kornia"] if with_kornia else []), "lightning-recipes")
    if not with_kornia:
        print("kornia is not installed: its rows are left out.")
    rows = [line for shape in SHAPES for line in measure(shape, with_kornia, packages, threads)]
    write("batch_transforms", rows)


def measure(
    shape: tuple[int, int, int, int], with_kornia: bool, packages: tuple[str, ...], threads: int
) -> list[list[object]]:
    """Return the rows for batches of one shape."""
    torch.manual_seed(0)
    images, targets = torch.rand(shape) * 255, torch.randint(CLASSES, shape[:1])
    sides = {OURS: ours(shape[-1]), TORCHVISION: sample_by_sample(shape[-1])}
    if with_kornia:
        sides[KORNIA] = kornias(shape[-1])
    rows = []
    for name in sides[OURS]:
        case = f"{name}, {shape[0]} × {shape[1]} × {shape[2]} × {shape[3]}, {threads} thread(s)"
        taking = {side: transforms[name] for side, transforms in sides.items() if name in transforms}
        spent: dict[str, list[float]] = {side: [] for side in taking}
        for number in range(ROUNDS + WARM_UP):
            order = list(taking)
            turn = number % len(order)
            for side in order[turn:] + order[:turn]:  # who comes first rotates
                took = milliseconds(taking[side], images, targets)
                if number >= WARM_UP:
                    spent[side].append(took)
        rows += [row(case, side, values, "ms", packages, machine()) for side, values in spent.items()]
        for side in list(spent)[1:]:
            ratios = [theirs / mine for theirs, mine in zip(spent[side], spent[OURS], strict=True)]
            rows.append(row(case, f"{side} / ours", ratios, "ratio", packages, machine()))
    return rows


if __name__ == "__main__":
    main()
