"""What every benchmark needs: the data, the machine's name, and the CSV."""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
COLUMNS = ["case", "side", "value", "unit", "n", "spread", "device", "versions"]


def fashion_mnist(root: Path) -> Path:
    """Lay the Fashion-MNIST of Debian's package out as torchvision expects it, and return `root`."""
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    packed = sorted(DEBIAN.glob("*.gz"))
    if not packed:
        raise SystemExit("Fashion-MNIST is not here: `apt-get install dataset-fashion-mnist`.")
    for path in packed:
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return root


def given_device() -> argparse.Namespace:
    """Return the arguments `device` and `threads` of the command line; torch then uses so many threads."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def machine() -> str:
    """Return the processor and its cores."""
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def versions(*packages: str) -> str:
    """Return the versions of Python and of `packages`."""
    return " ".join(
        [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    )


def row(
    case: str,
    side: str,
    values: Sequence[float],
    unit: str,
    packages: Sequence[str],
    device: str | None = None,
) -> list[object]:
    """Return a row: the median of `values`, and their range as the spread."""
    middle = statistics.median(values)
    spread = f"{min(values):.4g}..{max(values):.4g}"
    return [case, side, f"{middle:.4g}", unit, len(values), spread, device or machine(), versions(*packages)]


def write(name: str, rows: Sequence[Sequence[object]]) -> None:
    """Write `results/NAME.csv`, and print it."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    for line in rows:
        print(*line[:6], sep="\t")
