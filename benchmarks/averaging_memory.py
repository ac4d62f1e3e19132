"""How much more memory a fit takes at its peak with an average, in copies of parameters and float buffers.

Result: EMA 1.00 for each of the five models; Lightning 1.21 (resnet18), 1.02 (vit_small) and 1.00 (the other
three). One fit each: the counts are exact. AMD EPYC, 2 cores; python 3.11.7, torch 2.15.0, lightning 2.6.6,
timm 1.0.31; results/averaging_memory.csv. Not measured on a GPU.

A fit of two steps, with a validation on the average and a full checkpoint: the peak of what torch has
allocated, with an average less without one. On the CPU every allocation is counted by torch's profiler, on a
GPU by its caching allocator. Kept are the parameters and the floating-point buffers once more: 1.00 is the
least that is possible. Sides: `EMA`; and Lightning's `EMAWeightAveraging`.

    python benchmarks/averaging_memory.py [--device cuda]
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path

import timm
import torch
from _common import machine, row, write
from averaging_step import MODELS
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_recipes import EMA

PACKAGES = ("torch", "lightning", "timm", "lightning-recipes")


class Net(LightningModule):
    """Any network, trained to answer 0."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the mean square of the outputs."""
        return self.net(batch).square().mean()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Log the same."""
        self.log("val/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        return torch.optim.SGD(self.parameters(), 1e-3, momentum=0.9)


def fit(module: Net, path: Path, *callbacks: Callback, device: str) -> None:
    """Train two steps, validate after each, and save."""
    size = module.net.default_cfg["input_size"][-1]
    data = DataLoader(torch.randn(2, 3, size, size), batch_size=1)
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        val_check_interval=1,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, data)
    trainer.save_checkpoint(path)


def peak(name: str, *callbacks: Callback, device: str) -> tuple[int, int]:
    """Return the peak of the bytes that a fit has allocated at once, and the bytes of what is averaged."""
    gc.collect()  # of earlier fits, whose memory would be counted as given back in this one
    seed_everything(0, verbose=False)
    module = Net(timm.create_model(name))
    floats = [t for t in [*module.parameters(), *module.buffers()] if t.is_floating_point()]
    once = sum(tensor.nbytes for tensor in floats)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.ckpt"
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            fit(module, path, *callbacks, device=device)
            return torch.cuda.max_memory_allocated(), once
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            fit(module, path, *callbacks, device=device)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest, once


def main() -> None:
    """Measure, and write the CSV."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    where = torch.cuda.get_device_name() if given.device == "cuda" else machine()
    rows = []
    for name in MODELS:
        alone, once = peak(name, device=given.device)
        case = f"{name}, fit of two steps"
        rows.append(row(case, "no average", [alone / 2**20], "MiB", PACKAGES, where))
        for side, callback in (("EMA", EMA()), ("Lightning EMAWeightAveraging", EMAWeightAveraging())):
            highest, _ = peak(name, callback, device=given.device)
            rows.append(row(case, side, [highest / 2**20], "MiB", PACKAGES, where))
            extra = f"({side} - no average) / one copy"
            rows.append(row(case, extra, [(highest - alone) / once], "ratio", PACKAGES, where))
    write("averaging_memory", rows)


if __name__ == "__main__":
    main()
