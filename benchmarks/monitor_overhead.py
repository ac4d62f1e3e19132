"""What the monitors cost: training with each, and with all, against training with none.

Result (median of 8 ratios, range); wall time and processor time agree to three digits:

    UpdateRatioMonitor   0.974 (0.964 to 0.996)
    GradientMonitor      0.990 (0.978 to 1.011)
    ActivationMonitor    1.034 (0.973 to 1.064)
    TrainingDoctor       0.998 (0.980 to 1.148)
    all                  1.019 (0.995 to 1.150)

A monitor cannot make training faster: sides differ by some per cent in where their tensors happen to lie,
which turns do not even out, so that these figures bound the cost and do not resolve it. `TrainingDoctor`
without its examination before the first step, and with the round that holds its look at BatchNorm after 100
steps (1.15).
AMD EPYC, 2 cores, one thread; python 3.11.7, torch 2.15.0, lightning 2.6.6, timm 1.0.31;
results/monitor_overhead.csv. Not measured on a GPU.

timm's resnet18 on random 32 × 32 images, SGD with momentum, batches of 64, fits of Lightning's without
loggers. All sides train in one process, a batch at a time, in turn; who comes first rotates. A batch lasts
from its start to the start of the next one of its side. Each ratio compares the sums over the same 50 turns:
5 steps that are measured every 10, and 2 of every 25. The first 10 turns warm up (and hold the first steps,
which `UpdateRatioMonitor` measures one by one). Wall time, and the processor time of all threads.

    python benchmarks/monitor_overhead.py [--device cuda] [--threads 2]
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable

import timm
import torch
from _common import given_device, machine, row, write
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_recipes import callbacks

SETTINGS = {
    "UpdateRatioMonitor": {"every_n_steps": 10},
    "GradientMonitor": {},
    "ActivationMonitor": {"every_n_steps": 25},
    "TrainingDoctor": {},
}
WARM, STEPS, BATCH, ROUNDS = 10, 50, 64, 8
TURNS = WARM + STEPS * ROUNDS
PACKAGES = ("torch", "lightning", "timm", "lightning-recipes")
Times = tuple[float, float]  # wall and processor time, s


class Net(LightningModule):
    """A classifier as one writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("resnet18", num_classes=10)

    def training_step(self, batch, batch_idx):
        """Return the cross-entropy."""
        images, targets = batch
        return F.cross_entropy(self.net(images), targets)

    def configure_optimizers(self):
        """Return SGD with momentum."""
        return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)


class Turns(Callback):
    """Trains a batch when it is this side's turn, and hands over."""

    def __init__(self, device: torch.device) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.device = device
        self.start: Times | None = None
        self.taken: list[Times] = []

    def now(self) -> Times:
        """Return the two clocks, once the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_) -> None:
        """Note what the batch before has taken, hand over, and wait for the turn."""
        if self.start is not None:
            end = self.now()
            self.taken.append((end[0] - self.start[0], end[1] - self.start[1]))
            self.done.release()
        self.go.acquire()
        self.start = self.now()


def side(names: list[str], device: torch.device, folder: str) -> tuple[Turns, Callable[[], None]]:
    """Return the turns of a fit with these monitors, and what runs it."""
    turns = Turns(device)
    monitors = [getattr(callbacks, name)(**SETTINGS[name]) for name in names]
    seed_everything(0, verbose=False)
    module = Net()
    images, targets = torch.randn(8 * BATCH, 3, 32, 32), torch.randint(0, 10, (8 * BATCH,))
    batches = [(images[i : i + BATCH], targets[i : i + BATCH]) for i in range(0, 8 * BATCH, BATCH)]
    loader = DataLoader(batches * (TURNS // 8 + 1), batch_size=None)

    def run() -> None:
        torch.set_num_threads(given.threads)
        Trainer(
            max_steps=TURNS + 1,
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[turns, *monitors],
        ).fit(module, loader)

    return turns, run


def sums(times: list[float]) -> list[float]:
    """Return the sums over the batches of each round, without those that warm up."""
    return [sum(times[start : start + STEPS]) for start in range(WARM, TURNS, STEPS)]


def main() -> None:
    """Measure, and write the CSV."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    device = torch.device(given.device)
    there = [name for name in SETTINGS if name in callbacks.__all__]
    choices = {"none": [], **{name: [name] for name in there}, "all": there}
    with tempfile.TemporaryDirectory() as folder:
        sides = {name: side(names, device, folder) for name, names in choices.items()}
        threads = [threading.Thread(target=run, daemon=True) for _, run in sides.values()]
        for thread in threads:
            thread.start()
        order = list(sides)
        for number in range(TURNS):
            shift = number % len(order)
            for name in order[shift:] + order[:shift]:
                turns = sides[name][0]
                turns.go.release()
                turns.done.acquire()
        for turns, _ in sides.values():
            turns.go.release()  # the last batch, which does not count
        for thread in threads:
            thread.join()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    where += f", {given.threads} threads" if given.threads > 1 else ", one thread"
    rows = []
    for which, clock in enumerate(("wall", "processor")):
        case = f"resnet18, 32 × 32, {STEPS} batches of {BATCH}, {clock} time"
        taken = {name: sums([times[which] for times in turns.taken]) for name, (turns, _) in sides.items()}
        rows += [row(case, name, values, "s", PACKAGES, where) for name, values in taken.items()]
        for name in choices:
            if name != "none":
                ratios = [a / b for a, b in zip(taken[name], taken["none"], strict=True)]
                rows.append(row(case, f"{name} / none", ratios, "ratio", PACKAGES, where))
                print(clock, name, f"{statistics.median(ratios):.3f}", flush=True)
    write("monitor_overhead" if given.device == "cpu" else "monitor_overhead_cuda", rows)


if __name__ == "__main__":
    given = given_device()
    main()
