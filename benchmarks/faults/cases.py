"""A case: what is trained, what is wrong with it, and which causes would name that."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

Settings = dict[str, object]
"""Arguments of the Trainer."""


@dataclass
class Run:
    """What a user would hand over: the module, the data and the Trainer's settings."""

    module: LightningModule
    data: LightningDataModule
    settings: Settings = field(default_factory=dict)

    def trainer(self, **settings: object) -> Trainer:
        """Return a quiet Trainer with the settings of this run; `settings` win."""
        quiet: Settings = {
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "max_epochs": 6,
        }
        return Trainer(**(quiet | self.settings | settings))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """One run and what is known of it.

    Args:
        kind: "faults", "extra" (faults that the checks' author did not list) or "healthy".
        name: Of the fault, or of the recipe.
        arch: Name of the net.
        data: Name of the data.
        make: Architecture and data to the run; builds anew at each call.
        expected: Slugs of the causes that name the fault rightly.
        mild: INFO is enough: the fault slows a run and does not break it.
        metric: What the healthy run is measured by.
        goal: What it must reach after its budget: at least (accuracies), or at most (losses).
    """

    kind: str
    name: str
    arch: str
    data: str
    make: Callable[[str, str], Run]
    expected: tuple[str, ...] = ()
    mild: bool = False
    metric: str = "val_acc"
    goal: float = 0.5

    @property
    def key(self) -> str:
        """Return what tells this case from all others."""
        return f"{self.kind}/{self.name}/{self.arch}/{self.data}"

    def build(self) -> Run:
        """Return the run, the same at each call."""
        torch.manual_seed(zlib.crc32(self.key.encode()))
        return self.make(self.arch, self.data)

    def reached(self, value: float) -> bool:
        """Return whether `value` of the metric is good enough."""
        return value <= self.goal if "loss" in self.metric else value >= self.goal


Maker = Callable[[str, str], Run]
PAIRS = (("cnn", "digits"), ("resnet", "fashion"), ("vit", "fashion"))


class Shelf(list[Case]):
    """Cases, collected by a decorator."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def fault(
        self, *expected: str, on: tuple[tuple[str, str], ...] = PAIRS, mild: bool = False, extra: bool = False
    ) -> Callable[[Maker], Maker]:
        """Collect a maker of runs with a fault, on each pair of architecture and data."""

        def collect(make: Maker) -> Maker:
            name = make.__name__.replace("_", "-")
            kind = "extra" if extra else self.kind
            self.extend(Case(kind, name, arch, data, make, expected, mild) for arch, data in on)
            return make

        return collect

    def healthy(
        self, *on: tuple[str, str], metric: str = "val_acc", goal: float = 0.5
    ) -> Callable[[Maker], Maker]:
        """Collect a maker of healthy runs, on each pair of architecture and data."""

        def collect(make: Maker) -> Maker:
            name = make.__name__.replace("_", "-")
            self.extend(
                Case(self.kind, name, arch, data, make, metric=metric, goal=goal) for arch, data in on
            )
            return make

        return collect
