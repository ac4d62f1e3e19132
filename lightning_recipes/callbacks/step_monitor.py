"""What the monitors of optimizer steps share: when they look, how they log, and what they leave behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ..checks import Finding
from ..evidence.updates import depth_groups, is_weight
from ..utils.errors import UserError
from ..utils.files import run_directory, write_csv
from ..utils.history import StepHistory
from .watched import Lists, Watched, transferred

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class _Reading:
    watched: Watched
    step: int
    names: list[str]  # of the weights that were measured
    lists: Lists
    left_out: list[Tensor]  # of this step, and of all since the last transfer


class StepMonitor(Callback, ABC):
    """Looks at every n-th step of each optimizer: between its gradients and its maths, and after it.

    Only a measured step makes the host wait, once, at the end of its batch; steps are those that the
    optimizers take themselves. One that a gradient scaler leaves out is none.

    Args:
        every_n_steps: Steps of an optimizer between two measurements.
        dirpath: Where to write the picture and the numbers; by default the run's directory.
        name: Name of the files without their endings, and first part of what is logged.
        first_steps: How many of the first steps are measured in any case.
    """

    def __init__(
        self,
        every_n_steps: int,
        *,
        dirpath: str | PathLike[str] | None,
        name: str,
        first_steps: int = 0,
    ) -> None:
        if every_n_steps < 1:
            raise UserError(f"`every_n_steps` must be at least 1, got {every_n_steps}.")
        if not name or Path(name).name != name:
            raise UserError(
                f"`name` must be a file's name without folders, got {name!r}. Give folders by `dirpath`."
            )
        self.every_n_steps, self.dirpath, self.name = every_n_steps, dirpath, name
        self.first_steps = first_steps
        self._handles: list[RemovableHandle] = []
        self._directory: Path | None = None
        self._reset()

    def _reset(self) -> None:
        self.history = StepHistory(self.every_n_steps, first=self.first_steps)
        self.groups: dict[str, list[str]] = {}  # by depth: names of the weights
        self._names: dict[int, str] = {}  # of all parameters, by their identity
        self._watched: list[Watched] = []
        self._counts: list[int] = []  # of a checkpoint
        self._readings: list[_Reading] = []

    warns: bool = True  # of what is wrong; who else says it sets this to false

    # What a subclass says

    @abstractmethod
    def before_step(self, watched: Watched, *, measured: bool) -> None:
        """Look at the gradients and weights, right before the optimizer's maths."""

    @abstractmethod
    def after_step(self, watched: Watched, *, measured: bool) -> tuple[list[str], Lists] | None:
        """Return the names of the weights that were measured, and the scalars; None where there are none."""

    @abstractmethod
    def take(
        self, watched: Watched, step: int, names: list[str], values: dict[str, list[float]]
    ) -> dict[str, float]:
        """Keep what a step has measured, and return what is to be logged of it."""

    @property
    @abstractmethod
    def findings(self) -> list[Finding]:
        """What the measurements so far say."""

    @abstractmethod
    def draw(self) -> Figure:
        """Return the picture of the measurements."""

    # The way through a fit

    @property
    def state_key(self) -> str:
        """Apart for each `name` and each `every_n_steps`."""
        return self._generate_state_key(name=self.name, every_n_steps=self.every_n_steps)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew; a resumed fit then loads its measurements."""
        if stage == "fit":
            self._reset()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the directory: on every rank, for `log_dir` is a collective call."""
        self._directory = run_directory(trainer, self.dirpath)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the optimizers."""
        self.groups = depth_groups(pl_module)
        self._names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
        if not self.groups:
            rank_zero_warn(
                f"{type(self).__name__} finds no weights with two dimensions in {type(pl_module).__name__}: "
                "it has nothing to measure."
            )
        optimizers = [optimizer for optimizer in trainer.optimizers if isinstance(optimizer, Optimizer)]
        self._watched = [Watched(optimizer, number) for number, optimizer in enumerate(optimizers)]
        for watched, steps in zip(self._watched, self._counts, strict=False):
            watched.steps = steps
        for watched in self._watched:
            before, after = partial(self._before, watched), partial(self._after, watched)
            self._handles.append(watched.optimizer.register_step_pre_hook(before))
            self._handles.append(watched.optimizer.register_step_post_hook(after))

    def is_measured(self, step: int) -> bool:
        """Return whether the step of an optimizer, counted from 1, is one of those that are measured."""
        return step <= self.first_steps or step % self.every_n_steps == 0

    def _before(self, watched: Watched, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Look at once; or, where the gradients are yet to be computed by a closure, behind that."""
        given = kwargs["closure"] if "closure" in kwargs else next(iter(args[1:]), None)
        if given is None:
            self._look(watched)
            return None
        looked = False

        def closure() -> Any:  # noqa: ANN401 - the loss, as the module has it
            nonlocal looked
            result = given()
            if not looked:  # LBFGS calls it several times within a step
                looked = True
                self._look(watched)
            return result

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure}
        return (args[0], closure, *args[2:]), kwargs

    @torch.no_grad()
    def _look(self, watched: Watched) -> None:
        self.before_step(watched, measured=self.is_measured(watched.steps + 1))

    @torch.no_grad()
    def _after(self, watched: Watched, optimizer: Optimizer, *_: Any) -> None:  # noqa: ANN401
        watched.steps += 1
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None:
            skipped = (skipped > 0).float().reshape(())
            watched.left_out = skipped if watched.left_out is None else watched.left_out + skipped
        found = self.after_step(watched, measured=self.is_measured(watched.steps))
        if found is not None:
            left_out = [] if skipped is None or watched.left_out is None else [skipped, watched.left_out]
            self._readings.append(_Reading(watched, watched.steps, *found, left_out))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Take what the steps of this batch have measured, in one transfer, and log it."""
        readings, self._readings = self._readings, []
        scalars = [s for r in readings for part in (*r.lists.values(), r.left_out) for s in part]
        numbers = iter(transferred(scalars))
        logged: dict[str, float] = {}
        for reading in readings:
            values = {kind: [next(numbers) for _ in part] for kind, part in reading.lists.items()}
            now, since = [int(next(numbers)) for _ in reading.left_out] or (0, 0)
            if not now:
                logged |= self.take(reading.watched, reading.step - since, reading.names, values)
            if reading.left_out and reading is readings[-1]:
                self._counted()
        if logged:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped  # as LearningRateMonitor
            for logger in trainer.loggers:
                logger.log_metrics({f"{self.name}/{key}": value for key, value in logged.items()}, step=step)

    def weights_of(self, parameters: Sequence[Tensor]) -> tuple[list[str], list[Tensor]]:
        """Return names and tensors of those parameters that are weights of the module."""
        chosen = [p for p in parameters if is_weight(p) and id(p) in self._names]
        return [self._names[id(p)] for p in chosen], chosen

    def layers(self) -> list[str]:
        """Return the names of the weights that were measured, in the order of their depth."""
        known = self.history.names()
        depth = {
            name: number for number, name in enumerate(n for names in self.groups.values() for n in names)
        }
        return sorted((name for name in known if " " not in name), key=lambda n: depth.get(n, len(depth)))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers, and say what is wrong."""
        self._leave()
        for finding in self.findings:
            if self.warns and finding.status in ("FAIL", "WARN"):
                rank_zero_warn(f"{type(self).__name__}: {finding.message} {finding.advice}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files."""
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers, and write what there is."""
        if trainer.state.fn == "fit":
            self._leave()
            self._write(trainer)

    def _leave(self) -> None:
        self._counts = [watched.steps for watched in self._counted()]
        self._watched, self._readings = [], []
        while self._handles:
            self._handles.pop().remove()

    def _counted(self) -> list[Watched]:
        """Take off, once the host may wait, the steps that were left out."""
        for watched in self._watched:
            if watched.left_out is not None:
                watched.steps -= int(watched.left_out)
                watched.left_out = None
        return self._watched

    def _write(self, trainer: Trainer) -> None:
        rehearsal = getattr(trainer, "fast_dev_run", False)
        if not self.history.steps or self._directory is None or not trainer.is_global_zero or rehearsal:
            return
        names = [*(name for name in self.history.names() if " " in name), *self.layers()]
        rows = zip(self.history.steps, self.history.table(names), strict=True)
        cells = [[step, *("" if v != v else f"{v:.6g}" for v in values)] for step, values in rows]
        path = self._directory / f"{self.name}.csv"
        write_csv(path, [["step", *names], *cells])
        self.draw().savefig(path.with_suffix(".png"), dpi=120)

    # What is saved

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements so far, and the optimizers' steps."""
        counts = [watched.steps for watched in self._counted()] or self._counts
        return {"steps": list(counts), "history": self.history.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the measurements of a checkpoint."""
        self._counts = list(state_dict["steps"])
        self.history.load_state_dict(state_dict["history"])
