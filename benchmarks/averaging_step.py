"""Milliseconds an update of an exponential average: ours, four others, and the bare `_foreach_lerp_`.

Result (medians, one thread; n = 40 one after another, and 12 each after a training step):

                                    resnet18   resnet50   efficientnet_b0   convnext_tiny   vit_small
    EMA                              4.0 ms     8.8 ms        2.6 ms          11.1 ms        7.1 ms
    / torch._foreach_lerp_           1.08       1.06          1.16             1.05          1.02
    Lightning / EMA                 13.0        9.6           5.8              4.1           3.3
    timm / EMA                       1.24       1.29          2.40             1.21          1.31
    ema-pytorch / EMA                1.28       1.30          2.44             1.23          1.29
    torch / EMA                      1.34       1.38          2.65             1.23          1.28
    after a training step: EMA       4.3 ms     9.5 ms        2.6 ms          10.1 ms        7.4 ms
    / torch._foreach_lerp_           1.04       1.03          1.18             1.13          1.02
    Lightning / EMA                 12.8        4.9           6.2              4.1           3.5

Lightning makes three temporary tensors for each parameter, and its time depends on where the allocator finds
them: convnext_tiny has been measured at 12 times ours in a process without training steps before, and at 4
times here. On convnext_tiny and vit_small the bare lerp itself is only 4.4 and 3.4 times as fast as
Lightning. AMD EPYC, 2 cores; python 3.11.7, torch 2.15.0, lightning 2.6.6, timm 1.0.31, ema-pytorch 0.8.3;
results/averaging_step.csv. Not measured on a GPU.

Each side averages the parameters and buffers of one model, in turn with the others, so that every ratio
compares neighbours in time; who comes first rotates. Once one update follows another, and once each follows a
training step on two images. All updates are warm. The sides: `EMA.update`, which the
callback calls at the end of a batch; Lightning's `EMAWeightAveraging`, by the call that it makes; timm's
`ModelEmaV3`; ema-pytorch's `EMA`, updating at each call; torch's `AveragedModel` with a `multi_avg_fn` and
buffers; and `torch._foreach_lerp_` over lists of the same floating-point tensors, made once.

    python benchmarks/averaging_step.py [--device cuda] [--threads 2]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import product

import ema_pytorch
import timm
import torch
from _common import given_device, machine, row, write
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_recipes import EMA

MODELS = ("resnet18", "resnet50", "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224")
DECAY = 0.999
ROUNDS, TRAINED_ROUNDS = 40, 12
PACKAGES = ("torch", "lightning", "timm", "ema-pytorch", "lightning-recipes")
OURS, LERP, LIGHTNING = "EMA", "torch._foreach_lerp_", "Lightning EMAWeightAveraging"


class Wrapped(LightningModule):
    """Any network, as Lightning has it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def sides(net: nn.Module) -> dict[str, Callable[[], object]]:
    """Return an update of each side."""
    module = Wrapped(net)
    ours = EMA(DECAY, warmup=False)
    ours._decay = DECAY  # as at the start of a fit
    lightning = EMAWeightAveraging(decay=DECAY)
    device = next(net.parameters()).device
    lightning.setup(trainer=None, pl_module=module, stage="fit")  # makes its copy
    assert lightning._average_model is not None
    theirs = lightning._average_model.to(device)
    by_timm = ModelEmaV3(net, decay=DECAY)
    by_ema_pytorch = ema_pytorch.EMA(net, beta=DECAY, update_every=1, update_after_step=0)
    by_torch = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    new = [t.detach() for t in [*net.parameters(), *net.buffers()] if t.is_floating_point()]
    kept = [tensor.clone() for tensor in new]
    return {
        LERP: lambda: torch._foreach_lerp_(kept, new, 1 - DECAY),
        OURS: lambda: ours.update(module),
        LIGHTNING: lambda: theirs.update_parameters(module),
        "timm ModelEmaV3": lambda: by_timm.update(net),
        "ema-pytorch EMA": by_ema_pytorch.update,
        "torch AveragedModel, multi_avg_fn": lambda: by_torch.update_parameters(net),
    }


def measure(name: str, device: torch.device, *, training: bool) -> dict[str, list[float]]:
    """Return the milliseconds of each side's updates, one after another or each after a training step."""
    net = timm.create_model(name).to(device)
    updates, optimizer = sides(net), torch.optim.SGD(net.parameters(), 1e-6)
    image = torch.randn(2, *net.default_cfg["input_size"], device=device)
    taken: dict[str, list[float]] = {side: [] for side in updates}
    for number in range(-3, TRAINED_ROUNDS if training else ROUNDS):
        order = list(updates)
        for side in order[number % len(order) :] + order[: number % len(order)]:
            if training:
                optimizer.zero_grad()
                net(image).square().mean().backward()
                optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            updates[side]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 0:
                taken[side].append(1e3 * (time.perf_counter() - start))
    return taken


def main() -> None:
    """Measure, and write the CSV."""
    given = given_device()
    device = torch.device(given.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else machine()
    where += f", {given.threads} threads" if given.threads > 1 else ", one thread"
    times, ratios = [], []
    for name, training in product(MODELS, (False, True)):
        taken = measure(name, device, training=training)
        case = f"{name}, update{' after a training step' if training else ''}"
        times += [row(case, side, values, "ms", PACKAGES, where) for side, values in taken.items()]
        ours = taken[OURS]
        to_lerp = [a / b for a, b in zip(ours, taken[LERP], strict=True)]
        ratios.append(row(case, f"{OURS} / {LERP}", to_lerp, "ratio", PACKAGES, where))
        for side in taken:
            if side not in (OURS, LERP):
                to_ours = [a / b for a, b in zip(taken[side], ours, strict=True)]
                ratios.append(row(case, f"{side} / {OURS}", to_ours, "ratio", PACKAGES, where))
        print(case, f"{statistics.median(to_lerp):.2f}", flush=True)
    write("averaging_step", [*times, *ratios])


if __name__ == "__main__":
    main()
