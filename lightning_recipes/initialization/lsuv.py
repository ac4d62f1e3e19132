"""Layer-sequential unit-variance initialization."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from math import isfinite, log, sqrt
from typing import Any
from zlib import crc32

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..utils.errors import UserError
from ..utils.modes import evaluating
from ..utils.rng import preserved_generators
from .layers import Layer, draw_weight, matched_layers, set_weight

_UNMOVED = 0.1  # share of the step to 1, in logarithms, below which a weight's scale has no effect


def lsuv(
    module: nn.Module,
    images: Tensor,
    *,
    pattern: str = "*",
    tol: float = 0.02,
    max_iterations: int = 10,
) -> dict[str, float]:
    r"""Initialise each layer orthonormally and scale it so that its output has variance 1 on a batch.

    .. math:: W_l \leftarrow W_l / \operatorname{std}(W_l * h_{l-1})

    layer after layer, in the order in which the forward pass comes to them, so that each is scaled by what
    the scaled ones before it hand on. Biases are 0. The orthonormal weights are random, and follow from
    those that were there: equal weights become equal ones, on however many processes.

    Args:
        module: The network, changed in place. Buffers, modes and torch's random numbers are left as they
            were; BatchNorm normalises by the batch where it trains, dropout is off.
        images: A training batch, as `module` takes it: (B, C, H, W). A hundred samples or more tell the
            variance to a few per cent.
        pattern: Which layers, by name, as a shell has it: `layer3.*`, `*.conv2`.
        tol: How far a layer's standard deviation may be from 1.
        max_iterations: Most times that a layer is scaled; one is enough where its output is linear in its
            weight.

    Returns:
        The standard deviation of each layer's output, in the order of the forward pass. A layer that is
        used several times is scaled by its first use. Where a layer standardises its weight itself, so that
        its scale changes nothing, its `gain` is scaled; without one it stays orthonormal, with a warning.
        Frozen layers, and those that the forward pass does not call, are left as they were and are not
        among them.

    Raises:
        UserError: A pattern that matches no layer that is called, an argument out of its bounds, a layer
            whose output is constant or does not come near 1. The weights are as before.

    Source: Mishkin and Matas, "All you need is a good init", 2016.

    >>> net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    >>> {name: abs(std - 1) <= 0.02 for name, std in lsuv(net, torch.randn(32, 8)).items()}
    {'0': True, '2': True}
    """
    with unit_variance(module, pattern=pattern, tol=tol, max_iterations=max_iterations) as stds:
        module(images)
    return stds


@contextmanager
def unit_variance(
    module: nn.Module,
    *,
    pattern: str = "*",
    tol: float = 0.02,
    max_iterations: int = 10,
    total: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[dict[str, float]]:
    """Have the forward pass within the block initialise the layers that it comes to, as `lsuv` does.

    Args:
        module: The network.
        pattern: Which layers, by name.
        tol: How far a layer's standard deviation may be from 1.
        max_iterations: Most times that a layer is scaled.
        total: Adds a tensor up over processes, so that the variance is that of all their batches.

    Raises:
        UserError: As `lsuv`; any error within the block puts the weights back.
    """
    check_settings(tol, max_iterations)
    layers = {
        name: layer
        for name, layer in matched_layers(module, pattern).items()
        if any(parameter.requires_grad for parameter in layer.parameters())
    }
    before = {name: _copies(layer.state_dict()) for name, layer in layers.items()}
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    stds: dict[str, float] = {}
    unmoved: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(preserved_generators())
        stack.enter_context(_first_step_modes(module))
        for name, layer in layers.items():
            scaled = _Scaled(name, stds, unmoved, tol, max_iterations, total)
            stack.callback(layer.register_forward_pre_hook(scaled.draw).remove)
            stack.callback(layer.register_forward_hook(scaled.scale, with_kwargs=True).remove)
        try:
            yield stds
            if not stds:
                raise UserError(
                    f"The forward pass calls none of the {len(layers)} trainable layers that `pattern` "
                    f"{pattern!r} matches. Give a pattern of layers that it calls."
                )
        except BaseException:
            for name, layer in layers.items():
                layer.load_state_dict(before[name])
            raise
        finally:
            for buffer, value in buffers:
                buffer.copy_(value)
    if unmoved:
        warnings.warn(
            f"The weights of {', '.join(unmoved[:3])}{', …' if len(unmoved) > 3 else ''} are normalised "
            f"where they are used: {len(unmoved)} of {len(layers)} layers are orthonormal, but not of "
            "variance 1.",
            stacklevel=3,
        )
    if unused := [name for name in layers if name not in stds]:
        warnings.warn(
            f"The forward pass does not call {', '.join(unused[:3])}{', …' if len(unused) > 3 else ''}: "
            f"{len(unused)} of {len(layers)} layers stay as they were.",
            stacklevel=3,
        )


def check_settings(tol: float, max_iterations: int) -> None:
    """Refuse settings that are out of their bounds.

    Raises:
        UserError: Says which.
    """
    if not 0 < tol < 1:
        raise UserError(f"`tol` must lie between 0 and 1, got {tol}. The paper's is 0.1.")
    if max_iterations < 1:
        raise UserError(f"`max_iterations` must be at least 1, got {max_iterations}.")


class _Scaled:
    """The hooks of one layer."""

    def __init__(
        self,
        name: str,
        stds: dict[str, float],
        unmoved: list[str],
        tol: float,
        max_iterations: int,
        total: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.name, self.stds, self.unmoved = name, stds, unmoved
        self.tol, self.max_iterations, self.total = tol, max_iterations, total

    def draw(self, layer: Layer, _: Any) -> None:  # noqa: ANN401
        """Make the weight orthonormal before it is used for the first time."""
        if self.name not in self.stds:
            values = layer.weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            fast = layer.weight.device if layer.weight.is_cuda else "cpu"  # of decompositions
            generator = Generator(fast).manual_seed(crc32(values, crc32(self.name.encode())))
            draw_weight(layer, partial(nn.init.orthogonal_, generator=generator), generator)
            if (gain := _gain(layer)) is not None:
                gain.fill_(1)

    def scale(self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        """Scale the weight, and return what the layer makes of its input then."""
        if self.name in self.stds:
            return output
        before = None
        for left in range(self.max_iterations, -1, -1):
            std = pooled_std(output, self.total)
            if abs(std - 1) <= self.tol:
                break
            if std == 0 or not isfinite(std):
                raise UserError(
                    f"The output of `{self.name}` has the standard deviation {std:g} on this batch, which "
                    "cannot be scaled to 1. Look at what the layer is given, or leave it out by `pattern`."
                )
            if before is not None and abs(log(std / before)) < _UNMOVED * abs(log(before)):
                _scale(layer, before)
                self.unmoved.append(self.name)
                break
            if not left:
                raise UserError(
                    f"The output of `{self.name}` has the standard deviation {std:.3g} after its weight was "
                    f"scaled {self.max_iterations} times; it must come within {self.tol} of 1. Raise `tol` "
                    "or `max_iterations`, or leave the layer out by `pattern`."
                )
            before = std
            _scale(layer, 1 / std)
            output = layer.forward(*args, **kwargs)
        self.stds[self.name] = std
        return output


def pooled_std(values: Tensor, total: Callable[[Tensor], Tensor] | None = None) -> float:
    r"""Return the standard deviation of all numbers, over all processes: :math:`\sqrt{E[x^2] - E[x]^2}`.

    Args:
        values: Of any shape.
        total: Adds a tensor up over processes.

    >>> pooled_std(torch.tensor([[1.0, 3.0]]))
    1.0
    """
    variance, mean = torch.var_mean(values.float(), correction=0)
    if total is None:
        return float(variance.sqrt())
    n = values.numel()
    moments = torch.stack([torch.ones_like(mean), mean, variance + mean**2]).double() * n
    count, first, second = (total(moments) / 1).tolist()
    return sqrt(max(second / count - (first / count) ** 2, 0.0))


def _gain(layer: nn.Module) -> Tensor | None:
    """Return the parameter that multiplies a standardised weight, where there is one: timm's NFNets."""
    return layer._parameters.get("gain")


def _scale(layer: Layer, factor: float) -> None:
    gain = _gain(layer)
    if gain is None:
        set_weight(layer, layer.weight * factor)
    else:
        gain.mul_(factor)


@contextmanager
def _first_step_modes(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm normalise by the batch where it trains, and all else evaluate."""
    norms = [part for part in module.modules() if isinstance(part, _NormBase) and part.training]
    with evaluating(module):
        for norm in norms:
            norm.training = True  # not `train()`: timm's norms hold a dropout
        yield


def _copies(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}
