"""How far each step moves the weights."""

from __future__ import annotations

from os import PathLike
from statistics import median
from typing import TYPE_CHECKING

from torch import Tensor

from ..checks import Finding
from ..checks.update_ratio import FIRST_STEPS, check_update_ratio
from ..evidence.updates import copies, distances, norms
from ..plots import heatmap
from .step_monitor import StepMonitor
from .watched import Lists, Watched, relative

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class UpdateRatioMonitor(StepMonitor):
    r"""Measure by how much the optimizer's steps move the weights, relative to their size, layer by layer.

    .. math:: \|\Delta w\|_2 / \|w\|_2

    where :math:`\Delta w` is the difference of the weights before and after the optimizer's own step: true
    of any optimizer, with momentum, clipping, decay and accumulation. About 1e-3 is usual, 1e-2 about okay.
    Weights with two dimensions and more are measured; one whose norm is zero is left out. The first five
    steps of each optimizer are measured and every n-th from then on; one that a gradient scaler leaves out
    is none.

    The medians of at most eight groups of layers, and of all, are logged as `update_ratio/GROUP` and
    `update_ratio/median`. When the fit ends, `update_ratio.png` (depth × step) and `update_ratio.csv` are
    written, and a rate that is far off is warned of: `findings`.

    Args:
        every_n_steps: Optimizer steps between two measurements.
        dirpath: Where to write; by default the run's directory (`trainer.log_dir` or `default_root_dir`).
        name: Name of the files without their endings, and of what is logged. Two instances need two names.

    Raises:
        UserError: `every_n_steps` is below 1, or `name` holds a path.

    Source: CS231n notes, "Neural Networks Part 3", section "Ratio of weights:updates".

    >>> UpdateRatioMonitor(every_n_steps=50).findings[0].status
    'SKIP'
    """

    def __init__(
        self,
        every_n_steps: int = 10,
        *,
        dirpath: str | PathLike[str] | None = None,
        name: str = "update_ratio",
    ) -> None:
        super().__init__(every_n_steps, dirpath=dirpath, name=name, first_steps=FIRST_STEPS)

    def _reset(self) -> None:
        super()._reset()
        self._held: tuple[list[str], list[Tensor], list[Tensor], list[Tensor]] | None = None

    def before_step(self, watched: Watched, *, measured: bool) -> None:
        """Copy the weights."""
        names, weights = self.weights_of(watched.parameters()) if measured else ([], [])
        self._held = (names, weights, copies(weights), norms(weights)) if names else None

    def after_step(self, watched: Watched, *, measured: bool) -> tuple[list[str], Lists] | None:
        """Return how long the step was, and the weights before it."""
        if self._held is None:
            return None
        names, weights, before, lengths = self._held
        self._held = None
        return names, {"update": distances(before, weights), "weight": lengths}

    def take(
        self, watched: Watched, step: int, names: list[str], values: dict[str, list[float]]
    ) -> dict[str, float]:
        """Keep the ratios of the layers; log the medians of their groups."""
        pairs = zip(names, values["update"], values["weight"], strict=True)
        ratios = {name: relative(update, weight) for name, update, weight in pairs if weight != 0}
        self.history.add(step, {**ratios, "learning rate": watched.rate()})
        scalars = {
            group: median(known)
            for group, members in self.groups.items()
            if (known := [ratios[name] for name in members if name in ratios])
        }
        return {**scalars, "median": median(ratios.values())} if ratios else {}

    @property
    def findings(self) -> list[Finding]:
        """What the ratios so far say of the learning rate."""
        layers = self.layers()
        judged = check_update_ratio(
            self.history.steps,
            self.history.table(layers),
            layers=layers,
            rates=self.history.column("learning rate"),
        )
        return [judged]

    def draw(self) -> Figure:
        """Return the ratios as a picture, depth × step."""
        return heatmap(
            self.history.table(self.layers()),
            steps=self.history.steps,
            rows=self.layers(),
            title="Update ratio ‖Δw‖ / ‖w‖",
            center=1e-3,
        )
