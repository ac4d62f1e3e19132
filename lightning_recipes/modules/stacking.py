"""Members of one architecture run as one network: stacked weights, batches cut to a memory bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from functools import partial
from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle
from torchmetrics import Metric, MetricCollection

from .portable import ELSEWHERE, PortableModule

_VALUES = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device)
# Of a `PortableModule`'s attributes, what is not on the way from images to logits
_TRAINING = {"optimizer", "schedule", "tta", "horizontal_flip"}
_HEADROOM = 4  # a residual branch beside the largest layer, and what its functions keep for themselves


class StackedMembers:
    """Members of an ensemble, those of one architecture stacked by `torch.func`, the others one by one.

    A stack takes the place of its members' weights: each member's tensors become views of it, so that it
    costs no second copy and follows whatever is loaded into a member. Tensors or layers that are replaced, as
    by a move to another device, are noticed, and the stack is built again.

    The batch is cut so that a stack's weights, a copy of its largest tensor (convolutions reorder theirs) and
    its activations stay under the bound. Activations are estimated from one image through one member: four
    times the inputs and outputs of its largest layer. Where one image does not fit, memory runs out, or the
    architecture cannot be vectorised, the members run in a loop from then on, and a warning says so.

    Args:
        members: Modules from images to logits, in eval mode.
        memory_limit_gib: What a stack may take, GiB.
    """

    def __init__(self, members: Sequence[nn.Module], *, memory_limit_gib: float) -> None:
        self.members = list(members)
        self.limit = memory_limit_gib * 2**30
        self.groups: list[_Group] = []
        self.entries: list[_Entry] = []
        self.looped = False

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return each member's logits, (B, K), of images (B, C, H, W)."""
        if not self.looped and not (self.entries and all(_is_current(entry) for entry in self.entries)):
            self._build()
        if self.looped:
            return _loop(self.members, images)
        logits: dict[int, Tensor] = {}
        for group in self.groups:
            members = [self.members[index] for index in group.indices]
            logits |= zip(group.indices, self._run(group, members, images), strict=True)
        return [logits[index] for index in range(len(self.members))]

    def _build(self) -> None:
        self.groups = [_Group(indices) for indices in group_members(self.members)]
        for group in self.groups:
            members = [self.members[index] for index in group.indices]
            if len(members) > 1 and all(map(stackable, members)) and _are_disjoint(members):
                sizes = [tensor.nbytes for tensor in _tensors(members[0]).values()]
                weights = (sum(sizes) + max(sizes, default=0)) * len(members)
                group.room = self.limit - weights
                if group.room <= 0:
                    self._give_up_for_room(f"their weights take {weights / 2**30:.2g} GiB")
                    return
                group.stack = stack(members)
        self.entries = [entry for member in self.members for entry in _entries(member)]

    def _run(self, group: _Group, members: list[nn.Module], images: Tensor) -> Sequence[Tensor]:
        if group.stack is None or self.looped or not len(images) or any(map(_is_hooked, members)):
            return _loop(members, images)
        key = (images.shape[1:], images.dtype, torch.is_autocast_enabled(images.device.type))
        try:
            if key not in group.image_bytes:
                group.image_bytes[key] = activation_bytes(members[0], images[:1]) * len(members)
            most = int(group.room // group.image_bytes[key])
            if most < 1:
                self._give_up_for_room(f"one image takes another {group.image_bytes[key] / 2**30:.2g} GiB")
                return _loop(members, images)
            apply = vmap(partial(_call, members[0]), in_dims=(0, None))
            return torch.cat([apply(group.stack, chunk) for chunk in torch.split(images, most)], 1).unbind()
        except (RuntimeError, TypeError, ValueError) as error:
            failed = error
        logits = _loop(members, images)  # where these fail too, it is not for the stack
        reason = f"{type(failed).__name__}: {str(failed).strip().splitlines()[0] if str(failed) else ''}"
        if isinstance(failed, torch.OutOfMemoryError):
            self._give_up_for_room(reason)
        else:
            self._give_up(f"{len(members)} cannot run as one ({reason}). To say so, set `stacked: false`.")
        return logits

    def _give_up_for_room(self, reason: str) -> None:
        self._give_up(
            f"{len(self.members)} cannot be stacked within `memory_limit_gib: {self.limit / 2**30:g}` "
            f"({reason}). Raise it, or set `stacked: false`."
        )

    def _give_up(self, reason: str) -> None:
        self.looped = True
        self.groups, self.entries = [], []
        rank_zero_warn(f"The members run one after another: {reason}")


class _Group:
    """Members of one architecture."""

    def __init__(self, indices: list[int]) -> None:
        self.indices = indices
        self.stack: dict[str, Tensor] | None = None
        self.room = 0.0  # bytes left for activations
        self.image_bytes: dict[Any, int] = {}  # of one image through all members


_Entry = tuple[Mapping[str, Any], str, Any]  # where a tensor or a layer hangs, and its address or itself


def stack(members: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return the members' parameters and buffers, each (M, ...), and make the members' own views of them."""
    stacked = {}
    with torch.inference_mode(False), torch.no_grad():  # the views must serve outside of it, too
        named = [_tensors(member) for member in members]
        for name in named[0]:
            tensors = [tensors[name] for tensors in named]
            stacked[name] = torch.stack([tensor.detach() for tensor in tensors])
            for tensor, view in zip(tensors, stacked[name].unbind(), strict=True):
                tensor.data = view
    return stacked


def activation_bytes(member: nn.Module, images: Tensor) -> int:
    """Return an estimate of the memory that activations take at most: four times the largest layer's ends.

    Args:
        member: A module in eval mode.
        images: (B, C, H, W).
    """
    largest = 0

    def measure(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401 - of any layer
        nonlocal largest
        ends = chain(inputs, output if isinstance(output, (list, tuple)) else [output])
        largest = max(largest, sum(end.nbytes for end in ends if isinstance(end, Tensor)))

    handles: list[RemovableHandle] = []
    try:
        for module in member.modules():
            if not any(True for _ in module.children()):
                handles.append(module.register_forward_hook(measure))
        member(images)
    finally:
        for handle in handles:
            handle.remove()
    return _HEADROOM * max(largest, images.nbytes)


def group_members(members: Sequence[nn.Module]) -> list[list[int]]:
    """Return the indices of the members, those of one architecture together, in order.

    >>> group_members([nn.Linear(2, 3), nn.Linear(2, 4), nn.Linear(2, 3)])
    [[0, 2], [1]]
    """
    groups: list[list[int]] = []
    for index, member in enumerate(members):
        found = (group for group in groups if _match(members[group[0]], member))
        group = next(found, None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    return groups


def _match(one: nn.Module, two: nn.Module) -> bool:
    return same_architecture(one, two) and _ties(one) == _ties(two)


def same_architecture(one: nn.Module, two: nn.Module) -> bool:
    """Return whether two modules compute the same function of weights and images; False when in doubt.

    They must agree in class, in names, shapes and types of their tensors, in hyperparameters and in every
    other attribute, layer by layer. Attributes that cannot be compared count as different.
    """
    if isinstance(one, (Metric, MetricCollection)):
        return type(one) is type(two)  # it measures, and is no part of the way from images to logits
    if type(one) is not type(two) or _forms(one) != _forms(two):
        return False
    if not _equal(_settings(one), _settings(two)):
        return False
    ours, theirs = dict(one.named_children()), dict(two.named_children())
    return list(ours) == list(theirs) and all(same_architecture(ours[name], theirs[name]) for name in ours)


def stackable(member: nn.Module) -> bool:
    """Return whether a member's weights can hang in a stack.

    Not those of a module with forward hooks, which would see all members as the first, or with BatchNorm that
    takes its statistics from the batch, which is cut; nor those that were made in inference mode, which
    cannot become views.
    """
    by_batch = any(isinstance(part, _BatchNorm) and part.running_mean is None for part in member.modules())
    made_for_inference = any(tensor.is_inference() for tensor in _tensors(member).values())
    return not (by_batch or made_for_inference or _is_hooked(member))


def _is_hooked(member: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in member.modules())


def _are_disjoint(members: Sequence[nn.Module]) -> bool:
    """Return whether no tensor belongs to two members: it could not be a view of two places."""
    owned = [{id(tensor) for tensor in _tensors(member).values()} for member in members]
    return len(set().union(*owned)) == sum(map(len, owned))


def _loop(members: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    return [member(images) for member in members]


def _ties(member: nn.Module) -> list[tuple[str, str]]:
    """Return every name of a tensor, with the first name of the same one."""
    first: dict[int, str] = {}
    parameters = member.named_parameters(remove_duplicate=False)
    buffers = member.named_buffers(remove_duplicate=False)
    return [(name, first.setdefault(id(tensor), name)) for name, tensor in chain(parameters, buffers)]


def _call(member: nn.Module, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
    logits: Tensor = functional_call(member, dict(tensors), (images,))
    return logits


def _tensors(member: nn.Module) -> dict[str, Tensor]:
    return {**dict(member.named_parameters()), **dict(member.named_buffers())}


def _forms(module: nn.Module) -> dict[str, Any]:
    """Return shape and type of a module's own tensors."""
    own = {**module._parameters, **module._buffers}
    return {name: None if tensor is None else (tensor.shape, tensor.dtype) for name, tensor in own.items()}


def _settings(module: nn.Module) -> dict[str, Any]:
    """Return a module's own attributes, without what torch and Lightning give to every one."""
    common = set(vars(nn.Module()))
    found = dict(vars(module))
    if isinstance(module, LightningModule):
        ours = isinstance(module, PortableModule)
        common |= set(vars(LightningModule())) | (_TRAINING if ours else set())
        common |= {name for name in found if name.startswith(("_hparams", "_log_hyperparams"))}
        found["hparams"] = {
            k: v for k, v in module.hparams.items() if not ours or k not in {*ELSEWHERE, "tta"}
        }
    return {name: value for name, value in found.items() if name not in common - {"training"}}


def _equal(one: Any, two: Any) -> bool:  # noqa: ANN401 - any attribute
    """Return whether two attributes are surely the same."""
    if one is two:
        return True
    if type(one) is not type(two):
        return False
    if isinstance(one, Mapping):
        return list(one) == list(two) and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(_equal(a, b) for a, b in zip(one, two, strict=True))
    if isinstance(one, Tensor):
        return one.shape == two.shape and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, partial):
        return _equal((one.func, one.args, one.keywords), (two.func, two.args, two.keywords))
    return (isinstance(one, (*_VALUES, set, frozenset)) or is_dataclass(one)) and bool(one == two)


def _entries(member: nn.Module) -> list[_Entry]:
    """Return where each tensor and each layer of a member hangs, and what hangs there."""
    found: list[_Entry] = []
    for module in member.modules():
        found += [(module._modules, name, child) for name, child in module._modules.items()]
        for tensors in (module._parameters, module._buffers):
            found += [(tensors, name, _address(tensor)) for name, tensor in tensors.items()]
    return found


def _is_current(entry: _Entry) -> bool:
    place, name, known = entry
    now = place.get(name)
    return now is known if isinstance(now, nn.Module) else _address(now) == known


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
