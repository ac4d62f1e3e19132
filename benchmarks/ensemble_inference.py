"""Seconds a batch of an ensemble: its members stacked by torch.func, against one after another.

Result (stacked / loop, median of 15 pairs, range): resnet10t 2.42 (2.21 to 3.09) at batch 1 and 1.27 (1.11
to 1.42) at 64; vit_tiny_patch16_224 0.95 (0.87 to 1.03) and 1.16 (1.06 to 1.26); test_vit 1.07 (0.88 to
1.55) and 1.18 (0.99 to 1.51). So on a CPU the loop is the default. AMD EPYC, 2 cores, one thread; python
3.11.7, torch 2.15.0, lightning 2.6.6, timm 1.0.31; results/ensemble_inference.csv. Not measured on a GPU.

Five members of one architecture with weights of their own, images of 32 × 32 pixels, float32, inference mode:
`EnsembleClassifier.member_probabilities` with `stacked: true` and with `stacked: false` in turn, so that each
ratio compares neighbours in time; which comes first alternates. Both must give the same probabilities.

    python benchmarks/ensemble_inference.py [--device cuda] [--threads 2]
"""

from __future__ import annotations

import statistics
import time

import torch
from _common import given_device, machine, row, write
from lightning.pytorch import seed_everything

from lightning_recipes import EnsembleClassifier, ImageClassifier

MEMBERS = 5
PAIRS = 15
CASES = [(name, batch) for name in ("resnet10t", "test_vit", "vit_tiny_patch16_224") for batch in (1, 64)]
PACKAGES = ("torch", "lightning", "timm", "lightning-recipes")


def ensemble(backbone: str) -> EnsembleClassifier:
    """Return members whose heads are not zero, as a fresh transformer's is."""
    members = [ImageClassifier(backbone, num_classes=10, image_size=32) for _ in range(MEMBERS)]
    for member in members:
        torch.nn.init.normal_(member.head.weight)
    return EnsembleClassifier(members)


def seconds(model: EnsembleClassifier, images: torch.Tensor, *, stacked: bool) -> float:
    """Return the wall time of a batch."""
    model.stacked = stacked
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.inference_mode():
        model.member_probabilities(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure, and write the CSV."""
    given = given_device()
    seed_everything(0, verbose=False)
    where = f"{machine()}, {given.threads} threads"
    if given.device != "cpu":
        where = torch.cuda.get_device_name(given.device)
    rows = []
    for backbone, batch in CASES:
        model = ensemble(backbone).to(given.device)
        images = torch.randn(batch, 3, 32, 32, device=given.device)
        both = []
        for stacked in (True, False):
            model.stacked = stacked
            with torch.inference_mode():
                both.append(model.member_probabilities(images))
        torch.testing.assert_close(*both, rtol=1e-4, atol=1e-5)
        times: dict[bool, list[float]] = {True: [], False: []}
        for pair in range(PAIRS):
            for stacked in (True, False) if pair % 2 else (False, True):
                times[stacked].append(seconds(model, images, stacked=stacked))
        ratios = [a / b for a, b in zip(times[True], times[False], strict=True)]
        case = f"{MEMBERS} × {backbone}, {batch} images of 32 × 32"
        rows += [
            row(case, "stacked", times[True], "s", PACKAGES, where),
            row(case, "loop", times[False], "s", PACKAGES, where),
            row(case, "stacked / loop", ratios, "ratio", PACKAGES, where),
        ]
        print(f"{case}: {statistics.median(ratios):.3f}", flush=True)
    write("ensemble_inference" if given.device == "cpu" else "ensemble_inference_cuda", rows)


if __name__ == "__main__":
    main()
