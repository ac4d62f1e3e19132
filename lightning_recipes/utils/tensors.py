"""The tensors of a module by name, whole or sharded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a module, all names of tied ones too."""
    return {name: owner[key] for name, owner, key in places(module)}


@torch.no_grad()
def load_tensors(module: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy `values` into the module's tensors of the same names; sharded ones take their part."""
    for name, tensor in tensors_of(module).items():
        if name in values:
            local_part(tensor).copy_(part_of(values[name], tensor))


def places(module: nn.Module) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield name, dict and key of each parameter and persistent buffer."""
    for path, part in module.named_modules(remove_duplicate=False):
        passing = part._non_persistent_buffers_set
        for owner, left_out in ((part._parameters, ()), (part._buffers, passing)):
            for key, tensor in owner.items():
                if tensor is not None and key not in left_out:
                    yield f"{path}.{key}" if path else key, owner, key


def local_part(tensor: Tensor) -> Tensor:
    """Return the tensor, or of a sharded one (DTensor) what lies on this rank."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@contextmanager
def carrying(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Have the module's tensors of those names hold `values` within the block."""
    own = {name: tensor.detach().clone() for name, tensor in tensors_of(module).items() if name in values}
    try:
        load_tensors(module, values)
        yield
    finally:
        load_tensors(module, own)


def whole_of(part: Tensor, like: Tensor) -> Tensor:
    """Return the whole of which `part` is this rank's, sharded as `like` is."""
    if not isinstance(like, DTensor):
        return part
    sharded = DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
    whole: Tensor = sharded.full_tensor()
    return whole


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """Return this rank's part of `whole`, sharded as `like` is."""
    if not isinstance(like, DTensor):
        return whole
    part: Tensor = distribute_tensor(whole.to(like.device), like.device_mesh, like.placements).to_local()
    return part


def copies_of(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the module's tensors in main memory; of sharded ones of what lies on this rank."""
    return {
        name: local_part(tensor).detach().to("cpu", copy=True) for name, tensor in tensors_of(module).items()
    }


@torch.no_grad()
def load_copies(module: nn.Module, copies: Mapping[str, Tensor]) -> None:
    """Put what `copies_of` returned back into the module."""
    for name, tensor in tensors_of(module).items():
        local_part(tensor).copy_(copies[name])


def whole_copies(module: nn.Module, copies: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the whole tensors of which all ranks hold `copies`."""
    theirs = tensors_of(module)
    return {
        name: whole_of(copy.to(local_part(theirs[name]).device), theirs[name])
        for name, copy in copies.items()
    }
