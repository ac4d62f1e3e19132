"""Weights from elsewhere, fitted to a network that may differ at its two ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from .errors import UserError

SHOWN = 4  # names of a list in a message


@dataclass(frozen=True)
class LoadReport:
    """What a file gave to a network.

    Args:
        loaded: Names of the network's tensors that the file set.
        missing: Names of the network's tensors that it did not: they keep their initialization.
        unused: Names in the file that the network has no place for, or one of another shape.
        matched: Whether tensors were found by name, or by their place in the order.
        prefix: What stood before the network's names in the file.
        adapted: What was done to the first convolution; "" for nothing.
    """

    loaded: list[str]
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    matched: Literal["name", "order"] = "name"
    prefix: str = ""
    adapted: str = ""

    def summary(self, source: str) -> str:
        """Return all of it in a line, long lists cut.

        >>> LoadReport(["a.weight"], ["b.weight", "b.bias"]).summary("net.pth")
        'Loaded 1 of 3 tensors from net.pth by name; fresh: b.weight, b.bias.'
        """
        parts = [
            f"Loaded {len(self.loaded)} of {len(self.loaded) + len(self.missing)} tensors from {source} "
            + (
                "by name"
                if self.matched == "name"
                else "in order, for the names differ: look at a few predictions"
            )
        ]
        if self.prefix:
            parts.append(f"under `{self.prefix}`")
        if self.adapted:
            parts.append(f"the first convolution was {self.adapted}")
        lists = (("fresh", self.missing), ("unused", self.unused))
        parts += [f"{what}: {_listed(names)}" for what, names in lists if names]
        return "; ".join(parts) + "."


def load_weights(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    least: float = 0.5,
    ordered: bool = True,
    source: str = "the file",
) -> LoadReport:
    """Copy tensors into `module` where the shapes agree; the rest keeps its initialization.

    They are matched by name, whatever prefix the file's names share. Where that fits too few, they are
    matched in order, and then all must agree: number, kind (weight, bias, …) and shape of every tensor but
    the first convolution's input channels and the last layer. That one is loaded if it agrees, and may be
    absent on either side. Shapes do not show all (padding, an epsilon, two equal branches in another order):
    after a match in order, look at a few predictions.

    The first convolution is adapted to other input channels, as `adapt_channels` says; where that cannot be,
    it stays fresh. Convolutions that read the image beside it (CrossViT) are not.

    Args:
        module: The network.
        tensors: Name to tensor, any floating type.
        least: Least share of the module's tensors that must be set, in [0, 1]. BatchNorm's counters of
            batches, which fit any network, do not count.
        ordered: Whether the order of `tensors` is a network's; a .safetensors file has another.
        source: Where the tensors come from, for the error.

    Raises:
        UserError: Fewer tensors fit than `least` asks.

    >>> import torch
    >>> report = load_weights(nn.Linear(2, 1), {"net.weight": torch.ones(1, 2), "net.other": torch.ones(1)})
    >>> report.loaded, report.missing, report.unused, report.prefix
    (['weight'], ['bias'], ['net.other'], 'net.')
    """
    own = module.state_dict()
    stem = _first_convolution(module)
    total = sum(not _counts(name) for name in own)
    prefix = _shared_prefix(own, tensors)
    pairs = _by_name(own, tensors, prefix)
    matched: Literal["name", "order"] = "name"
    fitting = _fit(own, tensors, pairs, stem)
    found = sum(not _counts(name) for name in fitting)
    if found < least * total:
        by_order = _by_order(own, tensors, stem) if ordered else "the file keeps no order"
        reason = by_order if isinstance(by_order, str) else "too much differs at the two ends"
        if not isinstance(by_order, str):
            matched, prefix, pairs = "order", "", by_order
            fitting = _fit(own, tensors, pairs, stem)
        if sum(not _counts(name) for name in fitting) < least * total:
            raise UserError(
                f"{found} of the network's {total} tensors fit from {source} by name, at least {least:.0%} "
                f"must; nor do they fit in order: {reason}. Give weights of the same architecture."
            )
    module.load_state_dict(fitting, strict=False)
    used = {pairs[name] for name in fitting}
    adapted = ""
    if stem in fitting and (before := tensors[pairs[stem]].shape[1]) != (after := own[stem].shape[1]):
        adapted = f"adapted from {before} to {after} channels"
    return LoadReport(
        loaded=list(fitting),
        missing=[name for name in own if name not in fitting],
        unused=[name for name in tensors if name not in used],
        matched=matched,
        prefix=prefix,
        adapted=adapted,
    )


def adapt_channels(kernel: Tensor, channels: int) -> Tensor | None:
    """Return a convolution's kernel for another number of input channels; None where it cannot be had.

    Args:
        kernel: (O, I, k, k). Every I is summed to 1 channel; 1 is shared out among any number; 3 are repeated
            and scaled by 3/n, as timm does. From others there is no way to tell which channel is which.
        channels: n, of the result.

    Returns:
        (O, n, k, k), float32 where something was done. An image whose channels are all alike gives what it
        gave before, but for 3 that are repeated to a number that 3 does not divide.

    >>> import torch
    >>> adapt_channels(torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1), 1).flatten()
    tensor([7.])
    """
    given = kernel.shape[1]
    if given == channels:
        return kernel
    if channels == 1:
        return kernel.float().sum(1, keepdim=True)
    if given not in (1, 3):
        return None
    repeated = kernel.float().repeat(1, -(-channels // given), 1, 1)[:, :channels]
    return repeated * (given / channels)


def _fit(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], pairs: Mapping[str, str], stem: str
) -> dict[str, Tensor]:
    """Return what can be copied: own name to tensor."""
    fitting = {}
    for name, theirs in pairs.items():
        value: Tensor | None = tensors[theirs]
        if name == stem and _same_but_channels(tensors[theirs], own[name]):
            value = adapt_channels(tensors[theirs], own[name].shape[1])
        if value is not None and _alike(value, own[name]):
            fitting[name] = value
    return fitting


def _by_name(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Return own name to the file's, under the prefix or else without it."""
    return {
        name: prefix + name if prefix + name in tensors else name
        for name in own
        if prefix + name in tensors or name in tensors
    }


def _shared_prefix(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Return what stands before most of the network's names in the file; of equals, the average's."""
    counts: Counter[str] = Counter({"": 0})
    for name, value in tensors.items():
        parts = name.split(".")
        for cut in range(len(parts)):
            mine = own.get(".".join(parts[cut:]))
            if mine is not None and mine.shape == value.shape:
                counts["".join(f"{part}." for part in parts[:cut])] += 1
    return max(counts, key=lambda prefix: (counts[prefix], "ema" in re.split(r"[._]", prefix), not prefix))


def _by_order(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], stem: str) -> dict[str, str] | str:
    """Return own name to the file's by their places, or why that cannot be."""
    mine, theirs = ([n for n in names if not _counts(n)] for names in (own, tensors))
    my_head, their_head = _last_layer(mine, own), _last_layer(theirs, tensors)
    my_body, their_body = mine[: len(mine) - len(my_head)], theirs[: len(theirs) - len(their_head)]
    if len(theirs) == len(my_body):  # a file without a last layer
        my_head, their_head, their_body = [], [], theirs
    elif len(mine) == len(their_body):  # a network without one
        my_head, their_head, my_body = [], [], mine
    if len(my_body) != len(their_body):
        return f"it has {len(theirs)}, from {_listed(theirs)}, and the network has {_listed(mine)}"
    for ours, other in zip(my_body, their_body, strict=True):
        given, wanted = tensors[other], own[ours]
        fits = _alike(given, wanted) or (ours == stem and _same_but_channels(given, wanted))
        if not fits or _leaf(ours) != _leaf(other):
            return f"where the network has {ours} {_sides(wanted)}, it has {other} {_sides(given)}"
    pairs = dict(zip(my_body, their_body, strict=True))
    if len(my_head) == len(their_head) and all(
        _alike(tensors[b], own[a]) for a, b in zip(my_head, their_head, strict=True)
    ):
        pairs |= zip(my_head, their_head, strict=True)
    my_counters, their_counters = ([n for n in names if _counts(n)] for names in (own, tensors))
    if len(my_counters) == len(their_counters):
        pairs |= zip(my_counters, their_counters, strict=True)
    return {name: pairs[name] for name in own if name in pairs}


def _last_layer(names: Sequence[str], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the last module, if it has a matrix and nothing but a bias beside it."""
    parent = names[-1].rpartition(".")[0] if names else ""
    last = [name for name in names if name.rpartition(".")[0] == parent]
    kinds = [_leaf(name) for name in last]
    together = last == list(names[-len(last) :]) and kinds in (["weight"], ["weight", "bias"])
    return last if together and tensors[last[0]].ndim > 1 else []


def _first_convolution(module: nn.Module) -> str:
    """Return the name of its kernel, "" where there is none."""
    found = next((name for name, child in module.named_modules() if isinstance(child, nn.Conv2d)), None)
    return "" if found is None else f"{found}.weight".lstrip(".")


def _alike(given: Tensor, wanted: Tensor) -> bool:
    return given.shape == wanted.shape and given.is_floating_point() == wanted.is_floating_point()


def _same_but_channels(given: Tensor, wanted: Tensor) -> bool:
    return (
        given.ndim == wanted.ndim == 4
        and (given.shape[0], given.shape[2:]) == (wanted.shape[0], wanted.shape[2:])
        and given.is_floating_point()
    )


def _counts(name: str) -> bool:
    return _leaf(name) == "num_batches_tracked"


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _sides(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "()"


def _listed(names: Sequence[str]) -> str:
    """Return the first of them and how many there are besides; counters of batches as a number."""
    named = [name for name in names if not _counts(name)]
    counters = len(names) - len(named)
    parts = named[:SHOWN]
    if len(named) > SHOWN:
        parts.append(f"and {len(named) - SHOWN} more")
    if counters:
        parts.append(f"{counters} × num_batches_tracked")
    return ", ".join(parts)
