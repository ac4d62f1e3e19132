"""A look at the activations of each layer, every so many steps."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console

from ..checks.dead_units import SAMPLES, dead_units
from ..checks.finding import Finding, worst_first
from ..checks.saturation import saturation
from ..evidence.activation_sums import LayerActivations
from ..evidence.activations import ActivationRecord, Units, recording
from ..plots import activation_histograms
from ..utils.errors import UserError
from ..utils.files import run_directory
from ..utils.steps import around_next_step
from .activation_table import activation_table

_MOST_KEPT = 128  # moments in the history, which is part of each checkpoint
_FIGURES = ("mean", "std", "spread", "zero", "near_zero", "saturated")


class ActivationMonitor(Callback):
    r"""Measure the activations of each layer, and warn of dead ReLUs and saturated sigmoids and tanhs.

    On every so many training batches it measures mean, standard deviation, zeros, dead units, values at the
    bounds and a histogram of each activation, whether a module or a function; in a network without any, of
    the outputs of its layers. Other batches run as they would without it. The first batch measured is shown
    as a table, the one that tells a bad initialization; at the end of the fit `activations.csv` and
    `activations.png` are written, also after an exception or Ctrl-C.

    Logged: `activations/std_first`, `activations/std_last` and `activations/zero`; `activations/saturated`
    where there are hidden sigmoids or tanhs; `activations/dead`, the fraction of all ReLU units that were
    zero throughout the last 512 samples measured or more.

    Args:
        every_n_steps: Training batches from one measurement to the next; the first is of the first batch.
        table: Whether the first measurement is shown in the terminal.
        name: Name of the files and of what is logged. Two instances in one run need two names.
        dirpath: Where to write; by default the run's directory (`trainer.log_dir` or `default_root_dir`).

    Raises:
        UserError: `every_n_steps` is below 1, or `name` holds a path.

    >>> ActivationMonitor(100).findings
    []
    """

    warns: bool = True  # of what is wrong; who else says it sets this to false

    def __init__(
        self,
        every_n_steps: int = 25,
        *,
        table: bool = True,
        name: str = "activations",
        dirpath: str | PathLike[str] | None = None,
    ) -> None:
        if every_n_steps < 1:
            raise UserError(
                f"`every_n_steps` must be at least 1, got {every_n_steps}. To measure nothing, leave the "
                "callback out."
            )
        if not name or Path(name).name != name:
            raise UserError(
                f"`name` must be a file's name without folders, got {name!r}. Give folders by `dirpath`."
            )
        self.every_n_steps, self.table, self.name, self.dirpath = every_n_steps, table, name, dirpath
        self._directory: Path | None = None
        self._remove: Callable[[], None] | None = None
        self._record: ActivationRecord | None = None
        self._step = 0
        self._warned: set[tuple[str, str]] = set()
        self._reset()

    def _reset(self) -> None:
        self.history: list[dict[str, Any]] = []  # `step` and `layers`: name to figures
        self._batches = self._measured = 0
        self._keep_every = 1  # of the measurements: doubled when the history is full
        self._units: Units = {}  # extremes of the units so far, of fewer than SAMPLES samples
        self._samples = 0
        self._dead: dict[str, list[float]] = {}  # of layers that can die, the last two observations
        self._sizes: dict[str, int] = {}  # their units
        self._moments: dict[str, dict[str, Any]] = {}  # what the picture shows: `first` and `last`

    @property
    def state_key(self) -> str:
        """Apart for each `name` and interval."""
        return self._generate_state_key(name=self.name, every_n_steps=self.every_n_steps)

    @property
    def findings(self) -> list[Finding]:
        """What the measurements so far say, the worst first."""
        if not self._moments:
            return []
        bounded = [
            layer
            for layer in self._moments["last"]["layers"]
            if layer["saturated"] is not None and layer["hidden"] and not layer["gate"]
        ]
        return worst_first(
            [
                dead_units(self._dead, units=self._sizes, samples=SAMPLES),
                saturation(
                    *({layer["name"]: layer[key] for layer in bounded} for key in ("saturated", "spread"))
                ),
            ]
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the history, and the extremes of the units so far."""
        return {
            "history": list(self.history),
            "counts": [self._batches, self._measured, self._keep_every, self._samples],
            "units": {name: [tensor.cpu() for tensor in pair] for name, pair in self._units.items()},
            "dead": {name: list(values) for name, values in self._dead.items()},
            "sizes": dict(self._sizes),
            "moments": dict(self._moments),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history = list(state_dict["history"])
        self._batches, self._measured, self._keep_every, self._samples = state_dict["counts"]
        self._units = {name: (peak, lowest) for name, (peak, lowest) in state_dict["units"].items()}
        self._dead = {name: list(values) for name, values in state_dict["dead"].items()}
        self._sizes, self._moments = dict(state_dict["sizes"]), dict(state_dict["moments"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew; a resumed fit then loads its history."""
        if stage == "fit":
            self._reset()
            self._warned = set()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the directory: on every rank, for `log_dir` is a collective call."""
        self._directory = run_directory(trainer, self.dirpath)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Have this batch measured, when it is its turn."""
        if self._batches % self.every_n_steps:
            return
        self._stop()
        if pl_module._compiler_ctx is not None:
            if not self._batches:
                rank_zero_warn("ActivationMonitor cannot look into a compiled module: it measures nothing.")
            return
        record = self._record = ActivationRecord()
        self._step = trainer.global_step
        self._remove = around_next_step(pl_module, lambda: recording(pl_module, record))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Take what was measured."""
        self._batches += 1
        record = self._record
        if record is None:
            return
        self._stop()
        record.extend(self._units, self._samples)
        if trainer.world_size > 1:
            record.reduce(
                lambda tensor, op: trainer.strategy.reduce(tensor.to(pl_module.device), reduce_op=op)
            )
        layers = record.read()
        if layers:
            self._take(trainer, layers, record.units())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files."""
        self._stop()
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write what there is."""
        self._stop()
        if trainer.state.fn == "fit":
            self._write(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing behind."""
        self._stop()

    def _stop(self) -> None:
        if self._remove is not None:
            self._remove()
        self._remove = self._record = None

    def _take(self, trainer: Trainer, layers: list[LayerActivations], units: Units) -> None:
        step = self._step
        rows = [asdict(layer) for layer in layers]
        moment = {"step": step, "layers": [{**row, "counts": list(row["counts"])} for row in rows]}
        if not self._measured and self.table and trainer.is_global_zero:
            Console().print(activation_table(layers))
        self._moments = {"first": self._moments.get("first", moment), "last": moment}
        if self._measured % self._keep_every == 0:
            figures = {row["name"]: {key: row[key] for key in ("kind", *_FIGURES)} for row in rows}
            self.history.append({"step": step, "layers": figures})
            if len(self.history) > _MOST_KEPT:
                self.history, self._keep_every = self.history[::2], 2 * self._keep_every
        self._measured += 1
        values = self._scalars(layers)
        if layers[0].unit_samples >= SAMPLES:
            seen = [layer for layer in layers if layer.can_die and layer.unit_samples >= SAMPLES]
            self._sizes = {layer.name: layer.units for layer in seen}
            self._dead = {
                layer.name: [*self._dead.get(layer.name, []), layer.dead - layer.silent][-2:]
                for layer in seen
            }
            if seen:
                dead = sum(layer.dead * layer.units for layer in seen)
                values["dead"] = dead / sum(layer.units for layer in seen)
            self._units, self._samples = {}, 0
        else:
            self._units, self._samples = units, layers[0].unit_samples
        self._log(trainer, values)
        for finding in self.findings:
            mark = finding.check, finding.status
            if self.warns and finding.status in ("FAIL", "WARN") and mark not in self._warned:
                self._warned.add(mark)
                rank_zero_warn(f"{finding.check}, step {step}: {finding.message} {finding.advice}")

    def _scalars(self, layers: list[LayerActivations]) -> dict[str, float]:
        values = {
            "std_first": layers[0].std,
            "std_last": layers[-1].std,
            "zero": sum(layer.zero for layer in layers) / len(layers),
        }
        bounded = [
            layer.saturated
            for layer in layers
            if layer.saturated is not None and layer.hidden and not layer.gate
        ]
        return {**values, "saturated": sum(bounded) / len(bounded)} if bounded else values

    def _log(self, trainer: Trainer, values: dict[str, float]) -> None:
        named = {f"{self.name}/{key}": value for key, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(named, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in named.items()})

    def _write(self, trainer: Trainer) -> None:
        rehearsal = getattr(trainer, "fast_dev_run", False)
        if not self.history or self._directory is None or not trainer.is_global_zero or rehearsal:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{self.name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", "layer", "kind", *_FIGURES])
            writer.writeheader()
            for moment in self.history:
                for name, figures in moment["layers"].items():
                    writer.writerow({"step": moment["step"], "layer": name, **figures})
        moments = {f"step {moment['step']}": moment["layers"] for moment in self._moments.values()}
        activation_histograms(moments).savefig(path.with_suffix(".png"), dpi=120)
