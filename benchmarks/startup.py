"""CPU seconds to start: `fit --help` against importing the libraries, and the import of the package alone.

Result (median of 7 rounds, range): `fit --help` takes 0.98 (0.93 to 1.06) of the imports' 6.9 s; `import
lightning_recipes` 0.07 s, of which the bare interpreter is 0.03 s. AMD EPYC, 2 cores; python 3.11.7, torch
2.15.0, lightning 2.6.6, timm 1.0.31; results/startup.csv.

Processor time (user and system) of whole processes, as the operating system accounts it, the sides in turn.
The bare interpreter's own time is measured too.

    python benchmarks/startup.py
"""

from __future__ import annotations

import os
import subprocess
import sys

from _common import row, write

ROUNDS = 7
PACKAGES = ("torch", "lightning", "timm", "torchvision", "jsonargparse", "lightning-recipes")
SIDES = {
    "fit --help": [sys.executable, "-m", "lightning_recipes", "fit", "--help"],
    "import torch, timm, torchvision, lightning": [
        sys.executable,
        "-c",
        "import torch, timm, torchvision, lightning",
    ],
    "import lightning_recipes": [sys.executable, "-c", "import lightning_recipes"],
    "lightning-recipes --help": [sys.executable, "-m", "lightning_recipes", "--help"],
    "bare interpreter": [sys.executable, "-c", "pass"],
}


def cpu_seconds(command: list[str]) -> float:
    """Return user and system time of a process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed with {process.returncode}.")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure, and write the CSV."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(ROUNDS + 1):
        for side, command in SIDES.items():
            taken = cpu_seconds(command)
            if number:  # the first round fills the caches
                seconds[side].append(taken)
    ours, theirs = list(seconds.values())[:2]
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    rows = [row("startup", side, values, "CPU s", PACKAGES) for side, values in seconds.items()]
    write("startup", [*rows, row("startup", "fit --help / imports", ratios, "ratio", PACKAGES)])


if __name__ == "__main__":
    main()
