"""How large the gradients are, where they fade, and where they break."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, inf, nan
from os import PathLike
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer

from ..checks import Finding, worst_first
from ..checks.gradients import check_clipping, check_finite_gradients, check_vanishing
from ..evidence.gradients import BackwardOrder, NonFiniteGradients, depth_ratio
from ..evidence.updates import copies, distances, norms
from ..plots import heatmap
from .step_monitor import StepMonitor
from .watched import Lists, Watched, relative

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TOTAL, _CLIP, _RATE, _FIRST = "total norm", "clip coefficient", "learning rate", "update of first third"


@dataclass
class _Seen:
    """Gradients as they were before the optimizer's maths."""

    sizes: dict[str, Tensor]  # norms of all gradients by parameter, before clipping
    weights: tuple[list[str], list[Tensor]] = ((), ())  # type: ignore[assignment]
    total: Tensor | None = None
    clip: Tensor | None = None  # norm after clipping over that before; None where one is not known
    lengths: tuple[Tensor, ...] = ()  # norms of the weights
    first: tuple[list[Tensor], list[Tensor]] | None = None  # weights of the first third, and their copies


class GradientMonitor(StepMonitor):
    r"""Watch the gradients of all layers: their size, what clipping leaves, and whether they are finite.

    Every n-th step of each optimizer it logs the norm of all gradients (`gradients/total`), that of at most
    eight groups of layers (`gradients/GROUP`), the median :math:`\|g\|/\|W\|` of the first third of the
    layers over that of the last (`gradients/depth_ratio`), and what clipping leaves
    (`gradients/clip_coefficient`). The norms are those before clipping, without a gradient scaler's factor;
    where a module steps by hand, and clips itself, what was before is not known.

    At each step, without making the host wait, it notes whether a gradient is not finite, and then names the
    layer in which that arose: the first one in the order of the backward pass. A step that a gradient scaler
    leaves out does not count. When the fit ends, `gradients.png` (depth × step, :math:`\|g\|/\|W\|`) and
    `gradients.csv` are written, and what is wrong is warned of: `findings`.

    Args:
        every_n_steps: Optimizer steps between two measurements.
        dirpath: Where to write; by default the run's directory (`trainer.log_dir` or `default_root_dir`).
        name: Name of the files without their endings, and of what is logged. Two instances need two names.

    Raises:
        UserError: `every_n_steps` is below 1, or `name` holds a path.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010 (fading); Pascanu et al., "On the difficulty of training recurrent neural networks", 2013 (clipping).

    >>> [finding.status for finding in GradientMonitor().findings]
    ['PASS', 'SKIP', 'SKIP']
    """

    def __init__(
        self,
        every_n_steps: int = 10,
        *,
        dirpath: str | PathLike[str] | None = None,
        name: str = "gradients",
    ) -> None:
        super().__init__(every_n_steps, dirpath=dirpath, name=name)

    def _reset(self) -> None:
        super()._reset()
        self._order: BackwardOrder | None = None
        self._broken: NonFiniteGradients | None = None
        self._known: dict[str, Any] = {"steps": 0, "first_step": None, "parameters": []}
        self._numbers: dict[str, int] = {}
        self._of_module: list[str] = []  # all parameters, in the order of registration
        self._first: set[str] = set()  # weights of the first third
        self._clips = self._warned = False
        self._unclipped = nan
        self._raw: dict[str, Tensor] = {}
        self._seen: _Seen | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the optimizers, and the first backward pass."""
        super().on_train_start(trainer, pl_module)
        self._of_module = list(self._names.values())
        self._numbers = {name: number for number, name in enumerate(self._of_module)}
        self._broken = NonFiniteGradients(len(self._of_module))
        self._order = BackwardOrder(pl_module)
        weights = [name for members in self.groups.values() for name in members]
        self._first = set(weights[: len(weights) // 3])
        hooked = is_overridden("configure_gradient_clipping", pl_module)
        self._clips = bool(trainer.gradient_clip_val) or hooked
        self._unclipped = 1.0 if pl_module.automatic_optimization and not self._clips else nan

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the gradients before Lightning clips them."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scaled = scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
        if self._clips and not scaled and pl_module.automatic_optimization:
            watched = next((w for w in self._watched if w.optimizer is optimizer), None)
            self._raw = self._sizes(watched) if watched else {}

    @torch.no_grad()
    def _sizes(self, watched: Watched) -> dict[str, Tensor]:
        known = {self._names[id(p)]: p for p in watched.parameters() if id(p) in self._names}
        gradients = [_dense(p.grad) for p in known.values() if p.grad is not None]
        sizes = norms(gradients) if gradients else []
        scale = getattr(watched.optimizer, "grad_scale", None)  # a fused optimizer's, within its step
        if scale is not None:
            sizes = [size / scale.to(size.device) for size in sizes]
        return dict(zip(known, sizes, strict=True))

    def before_step(self, watched: Watched, *, measured: bool) -> None:
        """Look at the gradients, and at the weights of the first third."""
        raw, self._raw = self._raw, {}
        sizes = raw or self._sizes(watched)
        self._seen = _Seen(sizes)
        if not measured or not sizes:
            return
        names, weights = self.weights_of(watched.parameters())
        self._seen.weights = names, weights
        self._seen.lengths = tuple(norms(weights))
        self._seen.total = _total(sizes)
        if raw:
            self._seen.clip = _total(self._sizes(watched)) / self._seen.total
        first = [weight for name, weight in zip(names, weights, strict=True) if name in self._first]
        self._seen.first = first, copies(first)

    def after_step(self, watched: Watched, *, measured: bool) -> tuple[list[str], Lists] | None:
        """Note gradients that are not finite, without a transfer; return the measured norms."""
        seen, self._seen = self._seen, None
        if seen is None or self._broken is None:
            return None
        left_out = getattr(watched.optimizer, "found_inf", None)
        sizes = {self._numbers[name]: size for name, size in seen.sizes.items()}
        self._broken.update(sizes, watched.steps, unless=left_out)
        if seen.total is None or seen.first is None:
            return None
        names, _ = seen.weights
        weights, before = seen.first
        count = self._broken.count
        return names, {
            "gradient": [seen.sizes[name] for name in names],
            "weight": seen.lengths,
            "first": distances(before, weights) if weights else [],
            "total": [seen.total],
            "clip": [] if seen.clip is None else [seen.clip],
            "broken": [] if count is None else [count],
        }

    def take(
        self, watched: Watched, step: int, names: list[str], values: dict[str, list[float]]
    ) -> dict[str, float]:
        """Keep the norms of the layers; log those of their groups."""
        self._warn_of_broken(values["broken"])
        gradients = dict(zip(names, values["gradient"], strict=True))
        lengths = dict(zip(names, values["weight"], strict=True))
        layers = {name: relative(gradients[name], lengths[name]) for name in names if lengths[name] != 0}
        first = [name for name in names if name in self._first]
        moved = [
            relative(update, lengths[name])
            for name, update in zip(first, values["first"], strict=True)
            if lengths[name] != 0
        ]
        (total,) = values["total"]
        clip = values["clip"][0] if values["clip"] else self._unclipped
        numbers = {_TOTAL: total if total == total else inf, _CLIP: clip, _RATE: watched.rate()}
        own = {_of(key, watched.number): value for key, value in numbers.items()}
        self.history.add(step, {**own, _FIRST: median(moved) if moved else nan, **layers})
        groups = {
            group: hypot(*(gradients[name] for name in members if name in gradients))
            for group, members in self.groups.items()
            if any(name in gradients for name in members)
        }
        ratio = depth_ratio([layers.get(name, nan) for members in self.groups.values() for name in members])
        own = {"total": total, "clip_coefficient": clip}
        own = {_of(key, watched.number).replace(" ", "_"): value for key, value in own.items()}
        scalars = {**own, **groups, "depth_ratio": ratio}
        return {key: value for key, value in scalars.items() if value == value}

    def _warn_of_broken(self, count: list[float]) -> None:
        if self.warns and count and count[0] and not self._warned:
            self._warned = True
            finding = self._finite()
            rank_zero_warn(f"{type(self).__name__}: {finding.message} {finding.advice}")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Log what was measured; the order of the backward pass is known by now."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._raw = {}
        if self._order is not None and self._order.arrived:
            self._order.close()

    def _leave(self) -> None:
        super()._leave()
        if self._order is not None:
            self._order.close()

    # What it comes to

    @property
    def findings(self) -> list[Finding]:
        """Return what the gradients so far say: whether they are finite, fade, or are clipped away."""
        steps, layers = self.history.steps, self.layers()
        ratios = [depth_ratio(row) for row in self.history.table(layers)]
        clipping = [
            check_clipping(steps, *(self.history.column(_of(name, number)) for name in (_CLIP, _RATE)))
            for number in range(max(len(self._counts), 1))
        ]
        vanishing = check_vanishing(steps, ratios, self.history.column(_FIRST))
        return [self._finite(), vanishing, worst_first(clipping)[0]]

    def _finite(self) -> Finding:
        broken = self._broken_so_far()
        sort = self._order.sort if self._order is not None else lambda names: list(names)[::-1]
        arrived = self._order.arrived if self._order is not None else {}
        every = _layers(sort(list(arrived)))
        return check_finite_gradients(
            broken["steps"],
            first_step=broken["first_step"],
            layers=_layers(sort(broken["parameters"])),
            n_layers=len(every),
            last=every[0] if every else "",
        )

    def _broken_so_far(self) -> dict[str, Any]:
        """Return what was not finite, of the checkpoint and of this fit; the host waits for it."""
        count, first, numbers = self._broken.read() if self._broken is not None else (0, 0, [])
        if self._known["steps"] or not count:
            return {**self._known, "steps": self._known["steps"] + count}
        return {"steps": count, "first_step": first, "parameters": [self._of_module[i] for i in numbers]}

    def draw(self) -> Figure:
        """Return the gradients relative to the weights as a picture, depth × step."""
        return heatmap(
            self.history.table(self.layers()),
            steps=self.history.steps,
            rows=self.layers(),
            title="Gradient before clipping ‖g‖ / ‖w‖",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements so far, the optimizers' steps, and what was not finite."""
        return {**super().state_dict(), "not_finite": self._broken_so_far()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the measurements of a checkpoint."""
        super().load_state_dict(state_dict)
        self._known, self._broken = dict(state_dict["not_finite"]), None


def _of(name: str, number: int) -> str:
    """Return the name of a column of one of several optimizers."""
    return f"{name} {number + 1}" if number else name


def _layers(parameters: list[str]) -> list[str]:
    """Return the layers of parameters, each once."""
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in parameters))


def _dense(gradient: Tensor) -> Tensor:
    """Return the gradient, or of a sparse one what it holds."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _total(sizes: dict[str, Tensor]) -> Tensor:
    """Return the norm of all gradients from the norms of each."""
    device = next(iter(sizes.values())).device
    total: Tensor = torch.linalg.vector_norm(
        torch.stack([s.to(device, torch.float32) for s in sizes.values()])
    )
    return total
