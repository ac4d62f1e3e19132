"""Averages of weights: the maths, and one that lives beside a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import getitem
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .utils.errors import UserError
from .utils.interrupts import uninterrupted
from .utils.tensors import local_part, part_of, places, whole_of

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes an element


def warmed_decay(updates: int, decay: float) -> float:
    """Return the decay of an exponential average after so many updates: 1 - (1 + s)^(-2/3), at most `decay`.

    The first update copies the weights; the average then looks back over a growing part of the run, instead
    of holding on to the first weights.

    Args:
        updates: Updates made so far, s.
        decay: Upper bound, in [0, 1).

    Source: the warm-up of timm's `ModelEmaV3`, with its default gamma 1 and power 2/3.

    >>> [round(warmed_decay(updates, 0.9), 3) for updates in (0, 1, 7, 1000)]
    [0.0, 0.37, 0.75, 0.9]
    """
    return min(1 - float((1 + updates) ** (-2 / 3)), decay)


def decay_of_half_life(half_life: float) -> float:
    """Return the decay d with d^half_life = 1/2: after so many updates a weight counts half.

    >>> decay_of_half_life(1.0)
    0.5
    """
    return float(2 ** (-1 / half_life))


class WeightAverage:
    """The average of a module's weights, as flat lists of tensors beside it.

    Floating-point parameters and buffers are averaged, in float32 where they have 16 bits (in which a step of
    1e-4 of the distance would be lost). All other buffers are the module's own when the average is used, and
    buffers that no checkpoint holds are left alone. Of a sharded parameter (DTensor) the local shard is
    averaged. The module's tensors are looked up at each use, so that the average follows a module whose
    tensors are replaced or moved.

    While `holds_average` is set, the module holds the average, and this object the module's own weights.
    Exchanging the two takes no memory.

    Args:
        module: Whose weights; the average begins as their copy.
        device: Where the average is kept; by default beside the weights.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage(layer)
    >>> before, _ = layer.weight.item(), layer.weight.data.add_(4)
    >>> average.update(0.5)
    >>> with average.inside():
    ...     round(layer.weight.item() - before, 4)
    2.0
    >>> round(layer.weight.item() - before, 4)
    4.0
    """

    def __init__(self, module: nn.Module, *, device: torch.device | str | None = None) -> None:
        self.module = module
        self.holds_average = False
        self._owners: list[dict[str, Any]] = []  # in which each tensor hangs; tied ones once
        self._keys: list[str] = []  # and under which name
        self._numbers: dict[str, int] = {}  # every name, the tied ones too, to its slot
        known: dict[int, int] = {}
        for name, owner, key in places(module):
            if id(owner[key]) not in known:
                known[id(owner[key])] = len(self._keys)
                self._owners.append(owner)
                self._keys.append(key)
            self._numbers[name] = known[id(owner[key])]
        self._sharded = any(isinstance(self._slot(number), DTensor) for number in range(len(self._keys)))
        self._kept = [_copy(tensor, device) for tensor in self._live()]
        self._own: dict[int, Tensor] = {}  # the module's own, where `_kept` cannot take them
        self._counts: list[int] = []  # slots that are not averaged
        self._groups = self._group()
        self._versions: list[int] = []

    def _live(self) -> list[Tensor]:
        """Return the module's tensors: of sharded ones the local part."""
        live = list(map(getitem, self._owners, self._keys))
        return [local_part(tensor) for tensor in live] if self._sharded else live

    def _group(self) -> list[list[int]]:
        """Return the slots that one foreach call can serve."""
        groups: dict[object, list[int]] = {}
        for number, (kept, live) in enumerate(zip(self._kept, self._live(), strict=True)):
            if kept.is_floating_point() or kept.is_complex():
                groups.setdefault((kept.device, kept.dtype, live.device, live.dtype), []).append(number)
            else:
                self._counts.append(number)
        return list(groups.values())

    def _copy_counts(self, live: list[Tensor]) -> None:
        """Copy what is not averaged. At each use is enough, and an update is spared many small copies."""
        if self._counts and not self.holds_average:
            torch._foreach_copy_([self._kept[i] for i in self._counts], [live[i] for i in self._counts])

    @torch.no_grad()
    def update(self, weight: float) -> None:
        """Move the average towards the module's weights by `weight`, in [0, 1], of the distance.

        Ctrl-C may come between two dtypes: whoever counts on all or nothing calls it `uninterrupted`.
        """
        live = self._live()
        for group in self._groups:
            kept, new = [self._kept[i] for i in group], [live[i] for i in group]
            if weight == 1:
                torch._foreach_copy_(kept, new)
                continue
            if kept[0].dtype != new[0].dtype or kept[0].device != new[0].device:
                new = [tensor.to(kept[0]) for tensor in new]
            torch._foreach_lerp_(kept, new, weight)

    @torch.no_grad()
    def exchange(self) -> None:
        """Put the average into the module and keep the module's own weights, or the reverse."""
        tensors = self._live()
        with uninterrupted():
            self._copy_counts(tensors)
            for number, (kept, live) in enumerate(zip(self._kept, tensors, strict=True)):
                if number in self._own:
                    live.copy_(self._own.pop(number))
                elif kept.dtype != live.dtype:
                    self._own[number] = live.clone()
                    live.copy_(kept)
                else:
                    _exchange(kept, live)
            self.holds_average = not self.holds_average
            self._versions = self._parameter_versions()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have the module hold the average within the block."""
        there = self.holds_average
        if not there:
            self.exchange()
        try:
            yield
        finally:
            if not there:
                self.exchange()

    @torch.no_grad()
    def settle(self) -> None:
        """Make an average that is complete independent of the module, which may then be changed.

        One that the module held when it was changed is lost, and stays so.
        """
        if not self.holds_average:
            self._copy_counts(self._live())
            self._counts = []
        if not self.holds_average or self._is_lost():
            return
        for number, average in enumerate(self._average()):
            if number not in self._own:
                self._own[number], self._kept[number] = self._kept[number], average.clone()

    def take_back(self) -> None:
        """Give the module its own weights back, unless it was changed while it held the average."""
        if self.holds_average and self._versions == self._parameter_versions():
            self.exchange()

    def _is_lost(self) -> bool:
        settled = len(self._own) == len(self._kept)
        return self.holds_average and not settled and self._versions != self._parameter_versions()

    def _parameter_versions(self) -> list[int]:
        """Return torch's counts of in-place changes; moving a parameter to a device is none."""
        slots = map(self._slot, range(len(self._keys)))
        return [local_part(tensor)._version for tensor in slots if isinstance(tensor, nn.Parameter)]

    def _average(self) -> list[Tensor]:
        live = self._live()
        if not self.holds_average or len(self._own) == len(self._kept):
            self._copy_counts(live)
            return self._kept
        if self._is_lost():
            raise UserError(
                "The module that held the average was changed after the fit. Ask for the average before, or "
                "load a checkpoint of the run: its weights are the average."
            )
        return [self._kept[i] if i in self._own else live[i] for i in range(len(live))]

    def average(self) -> dict[str, Tensor]:
        """Return the average by name; of sharded weights the whole, which all ranks must ask for."""
        return self._whole(self._average())

    def own(self) -> dict[str, Tensor]:
        """Return the module's own weights by name; of sharded weights the whole."""
        if not self.holds_average:
            return self._whole(self._live())
        return self._whole([self._own.get(i, kept) for i, kept in enumerate(self._kept)])

    def load(self, average: Mapping[str, Tensor]) -> None:
        """Take back what `average` returned; names that are missing stay as they are."""
        with torch.no_grad():
            for name in average.keys() & self._numbers.keys():
                number = self._numbers[name]
                self._kept[number].copy_(part_of(average[name], self._slot(number)))

    def state_dict(self, of_module: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what `of_module` would return if the module held the average.

        Args:
            of_module: Returns a state dict, whose tensors may be the module's own.
        """
        with self.inside():
            state = of_module()
            live = self._live()
            exact = {_place(tensor): number for number, tensor in enumerate(live) if tensor.numel()}
            storages = {tensor.untyped_storage().data_ptr() for tensor in live if tensor.numel()}
            found: dict[str, int] = {}
            for name, value in state.items():
                if isinstance(value, DTensor):
                    state[name] = value.clone()
                elif isinstance(value, Tensor) and value.numel():
                    if _place(value) in exact:
                        found[name] = exact[_place(value)]
                    elif value.untyped_storage().data_ptr() in storages:
                        state[name] = value.clone()
        average = self._average()
        for name, number in found.items():
            state[name] = average[number].detach().to(live[number].dtype)
        return state

    def widened(self) -> dict[str, Tensor]:
        """Return the part of the average that is kept in more bits than the module's weights, by name."""
        live, average = self._live(), self.average()
        return {n: average[n] for n, i in self._numbers.items() if self._kept[i].dtype != live[i].dtype}

    def _slot(self, number: int) -> Tensor:
        tensor: Tensor = self._owners[number][self._keys[number]]
        return tensor

    def _whole(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        whole = [whole_of(tensor.detach(), self._slot(number)) for number, tensor in enumerate(tensors)]
        return {name: whole[number] for name, number in self._numbers.items()}


def _copy(tensor: Tensor, device: torch.device | str | None) -> Tensor:
    narrow = tensor.is_floating_point() and tensor.element_size() < 4
    return tensor.detach().to(device or tensor.device, torch.float32 if narrow else tensor.dtype, copy=True)


def _exchange(first: Tensor, second: Tensor) -> None:
    """Exchange the values of two tensors of one shape and dtype; on one device, without any memory."""
    dtype = _INTEGERS.get(first.element_size())
    if first.device != second.device or dtype is None:
        held = first.clone()
        first.copy_(second)
        second.copy_(held)
        return
    a, b = first.detach().view(dtype), second.detach().view(dtype)
    a.bitwise_xor_(b)  # a ^ b
    b.bitwise_xor_(a)  # b ^ (a ^ b) = a
    a.bitwise_xor_(b)  # (a ^ b) ^ a = b


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
