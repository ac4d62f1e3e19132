"""Activations of any module, measured by hooks that go when the block ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchmetrics import Metric

from ..utils.activation_modules import kind_of_module
from ..utils.tensors import local_part
from .activation_kinds import BOUNDS, MULTIPLICATIONS, kind_of_call
from .activation_sums import LayerActivations, LayerSums, lowest_of

_CONVOLUTIONS = nn.modules.conv._ConvNd
_MOST_CALLS = 8  # of one module in a pass that are kept apart: a recurrent one is called for each time step
Units = dict[str, tuple[Tensor, Tensor]]


class ActivationRecord:
    """What the activations of some batches were like; `recording` fills it, `read` gives the figures."""

    def __init__(self) -> None:
        self._layers: dict[str, LayerSums] = {}
        self._activations = False  # whether there is any, or only outputs of layers with weights
        self._shared: tuple[Tensor, Tensor] | None = None

    def sums(self, name: str, kind: str, *, loose: bool) -> LayerSums:
        """Return what is kept of a layer; a new one where it is seen for the first time."""
        if name not in self._layers:
            self._layers[name] = LayerSums(name, kind, loose=loose)
        self._activations |= kind not in ("linear", "conv")
        return self._layers[name]

    def layers(self) -> list[LayerSums]:
        """Return the layers in the order in which they were first called.

        The outputs of layers with weights count only where there are no activations, and a function that the
        training step itself calls only where weights come after it: else it belongs to the loss.
        """
        return [
            layer
            for layer in self._layers.values()
            if (layer.kind not in ("linear", "conv")) == self._activations
            and (layer.hidden or not layer.loose)
        ]

    def units(self) -> Units:
        """Return of each layer the extremes of its units, by which dead ones are known."""
        return {
            layer.name: (layer.peak, layer.lowest)
            for layer in self.layers()
            if layer.peak is not None and layer.lowest is not None
        }

    def extend(self, units: Mapping[str, tuple[Tensor, Tensor]], samples: int) -> None:
        """Have `dead` be of earlier batches too: of `samples` samples, with these extremes of the units."""
        for layer in self.layers():
            if layer.name in units:
                layer.extend(*units[layer.name], samples)

    def reduce(self, reduce: Callable[[Tensor, str], Tensor]) -> None:
        """Bring the sums and extremes of all processes together; each must call it.

        Args:
            reduce: Takes a tensor and `sum` or `max`, and returns it over all processes.
        """
        layers = self.layers()
        names = ";".join(f"{layer.name}:{layer.shape[1:]}" for layer in layers)
        mark = float(crc32(names.encode()))
        device = layers[0].sums.device if layers and layers[0].sums is not None else torch.device("cpu")
        ends = reduce(torch.tensor([mark, -mark], dtype=torch.float64, device=device), "max")
        if not layers or ends[0] != -ends[1]:
            return  # the processes went different ways through the network: each keeps its own figures
        parts = [part for layer in layers for part in (layer.sums, layer.moments) if part is not None]
        flat = reduce(torch.cat([part.flatten() for part in parts]), "sum")
        sums = iter(torch.split(flat, [part.numel() for part in parts]))
        both = [end for peak, lowest in self.units().values() for end in (peak, -lowest)]
        extremes = reduce(torch.cat(both), "max")
        ends_of = iter(torch.split(extremes, [len(end) for end in both]))
        for layer in layers:
            layer.sums, layer.moments = next(sums), next(sums).view(2, -1)
            layer.peak, layer.lowest = next(ends_of), -next(ends_of)
        counts = reduce(torch.stack([layer.histogram() for layer in layers]), "sum")
        for layer, own in zip(layers, counts, strict=True):
            layer.counts = own

    def read(self) -> list[LayerActivations]:
        """Return the figures of each layer, by one transfer from the device."""
        layers = self.layers()
        if not layers:
            return []
        device = layers[0].sums.device if layers[0].sums is not None else None
        flat = torch.cat([layer.flat().to(device) for layer in layers]).cpu()
        parts = torch.split(flat, [layer.length() for layer in layers])
        samples = layers[0].read(parts[0], None).samples  # windows and tiles of an image are no samples
        return [layer.read(part, samples) for layer, part in zip(layers, parts, strict=True)]


@contextmanager
def recording(module: nn.Module, record: ActivationRecord | None = None) -> Iterator[ActivationRecord]:
    """Measure the activations of what `module` computes within the block.

    Known are modules (`nn.ReLU`, timm's, one's own of such a name) and functions (`F.relu`, `torch.tanh`,
    `x.clamp(min=0)`), which are named for the module that calls them. Where there are none, the outputs of
    linear layers and convolutions are measured. What is kept stays on the device until `record.read()`.
    Modules that are compiled or scripted cannot be looked into.

    Args:
        module: Any network, or a LightningModule whose training step is called.
        record: To go on with; by default a new one.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> with recording(net) as record:
    ...     _ = net(torch.zeros(5, 2))
    >>> [(layer.name, layer.kind, layer.samples, layer.units) for layer in record.read()]
    [('1', 'relu', 5, 3)]
    """
    record = ActivationRecord() if record is None else record
    watch = _Watch(record, module)
    with ExitStack() as stack:
        stack.callback(watch.close)
        compiled = False
        for name, part, opaque in _walk(module):
            compiled |= opaque
            handles = [
                part.register_forward_pre_hook(watch.entering(name, opaque)),
                part.register_forward_hook(watch.leaving, always_call=True),
            ]
            for handle in handles:
                stack.callback(handle.remove)
        if not compiled:  # a compiler would look into the mode
            stack.enter_context(watch)
        yield record


def _walk(
    module: nn.Module, name: str = "", seen: set[nn.Module] | None = None
) -> Iterator[tuple[str, nn.Module, bool]]:
    """Yield each module with its name, and whether nothing within it can be seen."""
    seen = set() if seen is None else seen
    if module in seen or isinstance(module, torch.jit.ScriptModule):
        return
    seen.add(module)
    opaque = type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
    yield name, module, opaque
    if opaque or isinstance(module, (Metric, nn.modules.loss._Loss)):
        return
    for key, child in module.named_children():
        yield from _walk(child, f"{name}.{key}" if name else key, seen)


class _Watch(TorchFunctionMode):
    """Knows which module is running, and hands each activation to the record."""

    def __init__(self, record: ActivationRecord, root: nn.Module) -> None:
        super().__init__()
        self.record, self.closed = record, False
        self.takes_steps = hasattr(root, "training_step")
        self.stack: list[tuple[str, nn.Module, str | None, Tensor | None]] = []
        self.within = 0  # activation modules that are running, and modules that are not looked into
        self.calls: dict[str, int] = {}
        self.unit_dims = {2: 1}  # dimensions of a tensor to the one of its units, as the last layer had it
        self.open: list[LayerSums] = []  # layers since the last one with weights
        self.factors: list[tuple[weakref.ref[Tensor], LayerSums, str]] = []
        self.beside: dict[tuple[str, torch.Size], list[LayerSums]] = {}

    def close(self) -> None:
        self.closed = True
        self.stack.clear()
        self.factors.clear()

    # The modules

    def entering(self, name: str, opaque: bool) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """Return the hook that runs before the module of that name."""

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self.stack and not self.takes_steps:
                self.calls.clear()  # a new pass
                self.beside.clear()
                self.open.clear()
            kind = kind_of_module(module)
            lowest = None
            if kind == "relu" and not self.within and args:
                lowest = self._lowest(args[0])  # before it may be overwritten
            if isinstance(module, (nn.Linear, _CONVOLUTIONS)):
                for layer in self.open:
                    layer.hidden = True
                self.open.clear()
            skipped = opaque or isinstance(module, (Metric, nn.modules.loss._Loss))
            self.stack.append((name, module, "" if skipped else kind, lowest))
            self.within += skipped or kind is not None

        return enter

    def leaving(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
        """Run after each module, also when it raises."""
        while self.stack:
            name, running, kind, lowest = self.stack.pop()
            self.within -= kind is not None
            if running is module:
                break
        else:
            return
        if not isinstance(output, Tensor) or self.within:
            return
        if kind:
            self._take(name, kind, output, lowest, loose=False)
        elif isinstance(module, (nn.Linear, _CONVOLUTIONS, nn.modules.batchnorm._BatchNorm)):
            linear = isinstance(module, nn.Linear)
            self.unit_dims[output.ndim] = output.ndim - 1 if linear else 1
            if isinstance(module, (nn.Linear, _CONVOLUTIONS)) and not self.record._activations:
                self._take(name, "linear" if linear else "conv", output, None, loose=False)

    # The functions

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if self.closed or self.within:
            return func(*args, **kwargs)
        if func in MULTIPLICATIONS:
            self._multiplied(args)
            return func(*args, **kwargs)
        kind = kind_of_call(func, args, kwargs)
        if kind is None or not args:
            return func(*args, **kwargs)
        lowest = self._lowest(args[0]) if kind == "relu" else None
        output = func(*args, **kwargs)
        owner = self.stack[-1][0] if self.stack else ""
        name = func.__name__.strip("_").removeprefix("special_")
        name = "relu" if "clamp" in name or "clip" in name else name
        loose = self.takes_steps and len(self.stack) <= (1 if self.stack and not owner else 0)
        self._take(f"{owner}.{name}" if owner else name, kind, output, lowest, loose=loose)
        return output

    # Both

    @torch.no_grad()
    def _lowest(self, x: Any) -> Tensor | None:  # noqa: ANN401
        if not _measurable(x):
            return None
        with torch._C.DisableTorchFunction():
            return lowest_of(local_part(x.detach()), self._unit_dim(x))

    def _unit_dim(self, x: Tensor) -> int:
        return self.unit_dims.get(x.ndim, 2 if x.ndim == 3 else 1)

    @torch.no_grad()
    def _take(self, name: str, kind: str, output: Tensor, lowest: Tensor | None, *, loose: bool) -> None:
        if not _measurable(output):
            return
        calls = self.calls[name] = min(self.calls.get(name, 0) + 1, _MOST_CALLS)
        layer = self.record.sums(f"{name}#{calls}" if calls > 1 else name, kind, loose=loose)
        with torch._C.DisableTorchFunction():
            layer.add(local_part(output.detach()), self._unit_dim(output), lowest)
        self.open.append(layer)
        place = (name.rpartition(".")[0], output.shape[2:])
        self.beside.setdefault(place, []).append(layer)
        if kind in BOUNDS:
            self.factors = [*self.factors[-3:], (weakref.ref(output), layer, place[0])]

    def _multiplied(self, args: tuple[Any, ...]) -> None:
        """Mark what is used as a factor, such as the sigmoid of a squeeze and excitation, and its branch."""
        for factor, layer, owner in self.factors:
            gate = factor()
            if gate is not None and any(x is gate or getattr(x, "_base", None) is gate for x in args):
                for other in self.beside.get((owner, gate.shape[2:]), [layer]):
                    other.gate = True


def _measurable(x: Any) -> bool:  # noqa: ANN401
    return isinstance(x, Tensor) and x.ndim >= 2 and x.is_floating_point() and x.numel() > 0
