"""How far an optimizer step moves the weights, and the layers in the order of their depth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def update_ratio(before: Tensor, after: Tensor) -> Tensor:
    r"""Return :math:`\|\Delta w\|_2 / \|w\|_2` of one optimizer step.

    About 1e-3 is usual, 1e-2 about okay; far above it, lower the learning rate.

    Args:
        before: Weights before the step, any shape.
        after: Weights after the step, same shape.

    Source: CS231n notes, "Neural Networks Part 3".

    >>> update_ratio(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0]))
    tensor(0.2000)
    """
    ratio: Tensor = (after - before).norm() / before.norm()
    return ratio


def is_weight(tensor: Tensor) -> bool:
    """Return whether a parameter is a layer's weight: floating-point, with two dimensions at least.

    Biases and the parameters of norms start at 0 or 1, and their ratios say nothing.

    >>> [is_weight(torch.zeros(2, 3)), is_weight(torch.zeros(3))]
    [True, False]
    """
    return tensor.ndim >= 2 and tensor.is_floating_point()


def norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    r"""Return the norm :math:`\|x\|_2` of each tensor, a scalar where the tensor lies, without a transfer.

    Summed in float32 at least; of sharded tensors (DTensor) the norm of the whole, which all ranks must ask
    for.

    >>> norms([torch.tensor([3.0, 4.0]), torch.ones(4, dtype=torch.bfloat16)])
    [tensor(5.), tensor(2.)]
    """
    found: dict[int, Tensor] = {}
    for numbers in _alike(tensors):
        first = tensors[numbers[0]]
        dtype = torch.float32 if first.element_size() < 4 else None
        values = torch._foreach_norm([tensors[i].detach() for i in numbers], 2, dtype=dtype)
        found.update(zip(numbers, values, strict=True))
    ordered = [found[i] for i in range(len(tensors))]
    return [value.full_tensor() if isinstance(value, DTensor) else value for value in ordered]


def _alike(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return the numbers of the tensors that one call can take together: narrow or wide, sharded or whole."""
    alike: dict[tuple[bool, bool], list[int]] = {}
    for number, tensor in enumerate(tensors):
        key = tensor.element_size() < 4, isinstance(tensor, DTensor)
        alike.setdefault(key, []).append(number)
    return list(alike.values())


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of the tensors beside them."""
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def distances(copies: Sequence[Tensor], tensors: Sequence[Tensor]) -> list[Tensor]:
    r"""Return :math:`\|x - y\|_2` of each copy and its tensor; the copies are used up.

    >>> distances([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 3.0])])
    [tensor(1.)]
    """
    for numbers in _alike(tensors):
        torch._foreach_sub_([copies[i] for i in numbers], [tensors[i].detach() for i in numbers])
    return norms(copies)


def depth_groups(module: nn.Module, at_most: int = 8) -> dict[str, list[str]]:
    """Return the weights of a module in a few groups by depth: name of the group to names of parameters.

    Depth is the order in which layers were registered. A part with more than a third of all layers is opened
    into its own parts; what has too many parts is cut into runs of them, `blocks.0-2`, `blocks.3-5`.

    Args:
        module: Its parameters `is_weight` are grouped.
        at_most: Groups at most, from 1 on.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    >>> depth_groups(net)
    {'0': ['0.weight'], '3': ['3.weight']}
    """
    names = [name for name, parameter in module.named_parameters() if is_weight(parameter)]
    groups = {"": names} if names else {}
    while True:
        opened = {
            prefix: parts
            for prefix, members in groups.items()
            if 3 * len(members) > len(names) and len(parts := _parts(prefix, members)) > 1
        }
        if not opened:
            return {prefix or members[0]: members for prefix, members in groups.items()}
        largest = max(opened, key=lambda prefix: len(groups[prefix]))
        room = at_most - len(groups) + 1
        parts = opened[largest]
        runs = parts if len(parts) <= room else _runs(parts, room)
        groups = {
            name: members
            for prefix, kept in groups.items()
            for name, members in (runs.items() if prefix == largest else [(prefix, kept)])
        }
        if len(parts) >= room:
            return groups


def _parts(prefix: str, members: Sequence[str]) -> dict[str, list[str]]:
    """Return the members by the next part of their names at which they differ."""
    layers = [_layer(name) for name in members]
    start = prefix
    while True:
        parts: dict[str, list[str]] = {}
        for name, layer in zip(members, layers, strict=True):
            inner = layer.removeprefix(start).removeprefix(".") if start else layer
            key = inner.partition(".")[0]
            parts.setdefault(f"{start}.{key}".strip(".") if key else name, []).append(name)
        if len(parts) != 1 or len(members) == 1:
            return parts
        (only,) = parts
        if only in (start, *layers):
            return parts
        start = only


def _layer(name: str) -> str:
    """Return the layer that a parameter is of; a parameter of the module itself is one of its own."""
    path, _, last = name.rpartition(".")
    return path if last == "weight" and path else name


def _runs(parts: dict[str, list[str]], room: int) -> dict[str, list[str]]:
    """Return the parts joined to so many runs of neighbours, of as equal length as can be."""
    names, room = list(parts), max(room, 1)
    bounds = [i * len(names) // room for i in range(room + 1)]
    runs = {}
    for first, end in pairwise(bounds):
        chosen = names[first:end]
        last = chosen[-1].rpartition(".")[2]
        name = chosen[0] if len(chosen) == 1 else f"{chosen[0]}-{last}"
        runs[name] = [member for part in chosen for member in parts[part]]
    return runs
