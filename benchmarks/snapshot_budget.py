"""What one training budget gives: a single model, averages of its weights, or a snapshot ensemble.

Result (mean over the seeds; test split, 10,000 images; accuracy %, NLL nats, ECE %):

                                          2500 images, 20 epochs, n = 3    500 images, 60 epochs, n = 2
    cosine, best by validation loss          85.38   0.400   0.80             78.20   0.737   8.88
    cosine, last weights                     85.37   0.398   0.90             78.18   0.742   9.15
    cosine, EMA                              85.40   0.398   0.90             78.44   0.739   8.83
    cosine, SWA                              84.74   0.408   1.28             78.44   0.742   9.11
    constant rate, EMA                       85.47   0.393   0.67             78.98   0.740   9.05
    constant rate, SWA                       85.64   0.390   1.08             79.71   0.727   8.34
    5 snapshots, pooled                      84.50   0.417   1.12             77.52   0.635   1.53
    5 snapshots, pooled, drop_weak=False     83.31   0.452   2.74             77.30   0.637   1.52
    5 snapshots, the last alone              84.42   0.421   0.97             77.50   0.705   7.13
    5 cosine runs, best checkpoints pooled   86.51   0.368   1.98             78.50   0.599   1.38

Only the last line costs five times as much. With 2500 images and 20 epochs a snapshot ensemble is worse
than the single model in every seed (-0.6 to -1.3 points): its members had four epochs each since their
restart, and of five `drop_weak` keeps one or two; without it the ensemble is worse still. With 500 images,
where the single model is overconfident, it lowers the NLL by 0.09 and 0.12 and the ECE by 6.7 and 8.0
points at no cost, and is 0.7 points less accurate. Differences are to the best checkpoint. SWA helps after
a constant rate (+0.1 to +0.4 points, and +1.2 and +1.8); behind a cosine, whose fallen rate its default
raises again, it costs 0.6 points at 2500 images. EMA after a cosine, and the best checkpoint instead of the
last, make no difference that these seeds could show. Pooled cosine runs are less well calibrated than one
at 2500 images.

Few seeds: means of accuracy that differ by less than the ranges in the CSV say little. AMD EPYC, 2 cores,
one thread; python 3.11.7, torch 2.15.0, lightning 2.6.6, timm 1.0.31; results/snapshot_budget.csv, whose
values are means (not medians), with ranges; differences are paired by seed. Both commands were run twice,
with the same figures to all digits of the CSV.

All: test_resnet (0.37 million parameters) at 32 x 32, light augmentation, batches of 64, 1000 images for
validation; SGD with Nesterov momentum 0.9 and weight decay 5e-4, rate 0.1 at first and at each restart
(0.03 was worse in the one trial: 87.0 % against 88.0 %, seed 1000, 5000 images, 20 epochs, 2000 for
validation). EMA, SWA and SnapshotEnsemble have their defaults, but for `replace_schedule=True`.

    python benchmarks/snapshot_budget.py
    python benchmarks/snapshot_budget.py --images 50 --epochs 60 --seeds 2
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import torch
from _common import RESULTS, fashion_mnist, machine, versions, write
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_recipes import (
    EMA,
    SWA,
    EarlyStoppingWithRestore,
    EnsembleClassifier,
    ImageClassifier,
    Schedule,
    SnapshotEnsemble,
    TorchvisionDataModule,
)
from lightning_recipes.schedules import Shape
from lightning_recipes.scores import accuracy, disagreement, ece, nll

BACKBONE = "test_resnet"  # timm's smallest: 0.37 million parameters
LR = 0.1
MEMBERS = 5
LAST, BEST = "cosine, last weights", "cosine, best by validation loss"
METRICS: dict[str, tuple[str, float, str, Callable[[Tensor, Tensor], float]]] = {
    "test/acc": ("test accuracy", 100, "%", accuracy),
    "test/loss": ("test NLL", 1, "nats", nll),
    "test/ece": ("test ECE", 100, "%", ece),
}
PACKAGES = ("torch", "lightning", "timm", "torchmetrics", "lightning-recipes")

Scores = dict[str, float]


class Budget:
    """Trains by one recipe and measures on the test split.

    Args:
        root: Where Fashion-MNIST lies.
        runs: Where the runs write.
        epochs: Of every run.
        images: Training images of each class.
    """

    def __init__(self, root: Path, runs: Path, *, epochs: int, images: int) -> None:
        self.root, self.runs, self.epochs, self.images = root, runs, epochs, images
        self.number = 0

    def data(self) -> TorchvisionDataModule:
        """Return the data: the same images for every run, in an order and with shifts that the seed gives."""
        return TorchvisionDataModule(
            "FashionMNIST", root=self.root, limit_per_class=self.images, val_fraction=1 / 60
        )

    def fit(
        self, seed: int, *callbacks: Callback, shape: Shape = "cosine"
    ) -> tuple[ImageClassifier, str, str]:
        """Return what a run leaves in its module, and the checkpoints of its best epoch and of its end."""
        seed_everything(seed, verbose=False)
        self.number += 1
        saved = ModelCheckpoint(self.runs / f"run-{self.number}", monitor="val/loss", save_weights_only=True)
        # Beside a monitor `save_last` keeps the last that was among the best: the end needs its own.
        end = ModelCheckpoint(self.runs / f"run-{self.number}", filename="end", save_weights_only=True)
        model = ImageClassifier(
            BACKBONE,
            in_chans=1,
            image_size=32,
            optimizer=lambda groups: torch.optim.SGD(
                groups, lr=LR, momentum=0.9, nesterov=True, weight_decay=5e-4
            ),
            schedule=lambda optimizer, steps: Schedule(optimizer, steps, shape=shape),
        )
        start = time.perf_counter()
        self.trainer(saved, end, *callbacks, max_epochs=self.epochs).fit(model, datamodule=self.data())
        print(f"{time.perf_counter() - start:.0f} s", flush=True)
        return model, saved.best_model_path, end.best_model_path

    def trainer(self, *callbacks: Callback, max_epochs: int = 1) -> Trainer:
        """Return a Trainer that writes only what its callbacks write."""
        return Trainer(
            accelerator="cpu",
            max_epochs=max_epochs,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self.runs,
        )

    def test(self, model: ImageClassifier | EnsembleClassifier | str) -> Scores:
        """Return accuracy, NLL and ECE on the test split, of a module or of a checkpoint."""
        if isinstance(model, str):
            model = ImageClassifier.load_from_checkpoint(model)
        (measured,) = self.trainer().test(model, datamodule=self.data(), verbose=False)
        return {name: scale * measured[name] for name, (_, scale, _, _) in METRICS.items()}

    def test_members(self, ensemble: EnsembleClassifier) -> tuple[Scores, float]:
        """Return the scores of the pool, and on how many of the test images two members differ, %."""
        data = self.data()
        data.setup("test")
        members, targets = ensemble.collect(data.test_dataloader())  # (M, N, K) and (N,)
        scores = {
            name: scale * score(members.mean(0), targets) for name, (_, scale, _, score) in METRICS.items()
        }
        return scores, 100 * disagreement(members)

    def methods(self, seed: int) -> tuple[dict[str, Scores], dict[str, float]]:
        """Return the scores of each method, and what else is known of the ensembles."""
        scores: dict[str, Scores] = {}
        restored, best, end = self.fit(seed, EarlyStoppingWithRestore(patience=self.epochs))
        scores[BEST] = self.test(restored)
        scores[LAST] = self.test(end)
        scores["cosine, EMA"] = self.test(self.fit(seed, EMA())[0])
        scores["cosine, SWA"] = self.test(self.fit(seed, SWA())[0])
        scores["constant rate, EMA"] = self.test(self.fit(seed, EMA(), shape="constant")[0])
        scores["constant rate, SWA"] = self.test(self.fit(seed, SWA(), shape="constant")[0])

        folder = self.runs / f"snapshots-{seed}"
        snapshots = SnapshotEnsemble(MEMBERS, replace_schedule=True, dirpath=folder)
        self.fit(seed, snapshots)
        paths = [member.path for member in snapshots.members]
        ensemble = EnsembleClassifier.load_from_checkpoint(folder / "ensemble.ckpt")
        whole = EnsembleClassifier.from_checkpoints(paths)
        scores[f"{MEMBERS} snapshots, pooled"] = self.test(ensemble)
        name = f"{MEMBERS} snapshots, pooled, drop_weak=False"
        scores[name], of_snapshots = self.test_members(whole)
        scores[f"{MEMBERS} snapshots, the last alone"] = self.test(paths[-1])

        others = [self.fit(seed + 100 * number)[1] for number in range(1, MEMBERS)]
        deep = EnsembleClassifier.from_checkpoints([best, *others])
        name = f"{MEMBERS} cosine runs, best checkpoints pooled ({MEMBERS} times the cost)"
        scores[name], of_runs = self.test_members(deep)
        return scores, {
            "members kept": float(len(ensemble.members)),
            f"{MEMBERS} snapshots": of_snapshots,
            f"{MEMBERS} cosine runs": of_runs,
        }


def rows(
    scores: Sequence[dict[str, Scores]], known: Sequence[dict[str, float]], case: str
) -> list[list[object]]:
    """Return the means over the seeds, and those of the differences to the single model.

    Args:
        scores: Of each seed, by method.
        known: Of each seed, of the ensembles.
        case: What is trained on what.
    """

    def line(what: str, side: str, values: Sequence[float], unit: str) -> list[object]:
        spread = f"{min(values):.4g}..{max(values):.4g}"
        found = versions(*PACKAGES)
        return [f"{case}, {what}", side, f"{mean(values):.4g}", unit, len(values), spread, machine(), found]

    out = []
    for name, (what, _, unit, _) in METRICS.items():
        out += [line(what, side, [each[side][name] for each in scores], unit) for side in scores[0]]
    out.append(line("of 5 snapshots", "members kept", [each["members kept"] for each in known], "members"))
    for side in list(known[0])[1:]:
        out.append(line("test disagreement", side, [each[side] for each in known], "%"))
    for name, (what, _, unit, _) in METRICS.items():
        for side in list(scores[0])[1:]:
            differences = [each[side][name] - each[BEST][name] for each in scores]
            out.append(line(what, f"{side} - {BEST}", differences, "points" if unit == "%" else unit))
    return out


def others(case: str) -> list[list[str]]:
    """Return the rows that the CSV has of other cases, so that a small run does not cost a large one."""
    path = RESULTS / "snapshot_budget.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in list(csv.reader(file))[1:] if not row[0].startswith(f"{case},")]


def main() -> None:
    """Train, measure, and write the CSV."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20, help="of every run")
    parser.add_argument("--images", type=int, default=250, help="for training, of each class")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scores, known = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = fashion_mnist(Path(folder))
        budget = Budget(root, root / "runs", epochs=arguments.epochs, images=arguments.images)
        case = f"Fashion-MNIST, {10 * arguments.images} images, {BACKBONE}, {arguments.epochs} epochs"
        for seed in range(arguments.seeds):
            of_seed, of_ensembles = budget.methods(seed)
            scores.append(of_seed)
            known.append(of_ensembles)
            write("snapshot_budget", [*others(case), *rows(scores, known, case)])


if __name__ == "__main__":
    main()
