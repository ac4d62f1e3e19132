"""How the tensors of one forward pass were made out of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

ADDITIONS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})
PRODUCTS = frozenset({"mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__"})
SUMS = frozenset({"linear", "conv1d", "conv2d", "conv3d"})  # over inputs, with weights
_NORMS = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"})
_OTHERS = frozenset({"matmul", "__matmul__", "einsum", "multi_head_attention_forward"})
_WEIGHTED = SUMS | _NORMS | _OTHERS | PRODUCTS
_SHAPING = frozenset({"view", "reshape", "unsqueeze", "expand", "to", "__getitem__", "permute", "transpose"})


@dataclass(eq=False)
class Step:
    """A function that made a tensor out of tensors that depend on the input.

    Args:
        function: Its name.
        parents: What made those tensors, in the order of its arguments.
        cone: A bit for each step that this one depends on, and for itself.
        weights: Names of the parameters without which the result is 0.
        zeros: Of an addition, whether each operand was 0 throughout.
        like: Whether its operands have the same shape.
    """

    function: str
    parents: tuple[Step, ...]
    cone: int
    weights: tuple[str, ...] = ()
    zeros: tuple[bool, ...] = ()
    like: bool = True

    def depends_on(self, other: Step) -> bool:
        """Return whether this step is `other`, or was made out of its result."""
        return self.cone | other.cone == self.cone


class Trace(TorchFunctionMode):
    """Note, of the forward passes within the block, the steps from the inputs to the output.

    Nothing of what is computed changes. Functions that torch compiles or scripts are not seen.

    Args:
        module: Whose parameters are known by their names.
        inputs: Where the steps begin.

    >>> net = nn.Linear(2, 2)
    >>> x = torch.ones(1, 2)
    >>> with Trace(net, x) as trace:
    ...     _ = x + net(x)
    >>> [(step.function, step.weights) for step in trace.steps]
    [('input', ()), ('linear', ('weight', 'bias')), ('add', ())]
    """

    def __init__(self, module: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.module = module
        self.names = {id(parameter): name for name, parameter in module.named_parameters()}
        self.steps = [Step("input", (), 1)]
        self._made = {id(inputs): self.steps[0]}
        self._kept: list[Any] = [inputs]  # so that no other tensor takes an identity
        self._running: list[nn.Module] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Trace:
        for part in self.module.modules():
            self._hooks.append(part.register_forward_pre_hook(self._begin))
            self._hooks.append(part.register_forward_hook(self._end, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        while self._hooks:
            self._hooks.pop().remove()
        self._kept.clear()

    def _begin(self, part: nn.Module, _: Any) -> None:  # noqa: ANN401
        self._running.append(part)

    def _end(self, *_: Any) -> None:  # noqa: ANN401
        self._running.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever `func` returns
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = getattr(func, "__name__", "")
        operands = [tensor for tensor in given if id(tensor) in self._made]
        if name.endswith("_as"):
            operands = operands[:1]  # the other one lends its shape
        adding = name in ADDITIONS and len(operands) == 2
        zeros = tuple(not bool(tensor.any()) for tensor in operands) if adding else ()
        like = not adding or operands[0].shape == operands[1].shape
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self._kept.extend(made)
        if operands and made:
            parents = tuple(self._made[id(tensor)] for tensor in operands)
            step = self._step(name, parents, self._weights(name, given), zeros, like)
            for tensor in made:  # each part of several is made by a step of its own
                self._made[id(tensor)] = step if len(made) == 1 else self._step(name, (step,))
        elif name in _SHAPING and made and id(given[0]) in self.names:
            self.names[id(made[0])] = self.names[id(given[0])]
        return result

    def _step(
        self,
        function: str,
        parents: tuple[Step, ...],
        weights: tuple[str, ...] = (),
        zeros: tuple[bool, ...] = (),
        like: bool = True,
    ) -> Step:
        cone = 1 << len(self.steps)
        for parent in parents:
            cone |= parent.cone
        self.steps.append(Step(function, parents, cone, weights, zeros, like))
        return self.steps[-1]

    def _weights(self, function: str, given: list[Tensor]) -> tuple[str, ...]:
        """Return the last weight among the arguments, and what follows it: its bias."""
        if function not in _WEIGHTED:
            return ()
        own = [tensor for tensor in given if id(tensor) in self.names]
        matrices = [number for number, tensor in enumerate(own) if tensor.dim() > 1]
        if not matrices and function in SUMS and self._running:  # the weight is computed: standardised
            keyed = {key: p for key, p in self._running[-1]._parameters.items() if p is not None}
            if set(keyed) - {"weight", "bias"}:  # then the gain tells its size
                keyed.pop("weight", None)
            own, matrices = list(keyed.values()), []
        return tuple(self.names[id(tensor)] for tensor in own[matrices[-1] if matrices else 0 :])


def example_shapes(module: nn.Module) -> list[torch.Size]:
    """Return shapes of a batch of one that the network may take, small ones first; none where unknown.

    >>> example_shapes(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))
    [torch.Size([1, 3])]
    """
    sizes: list[tuple[int, ...]] = [(size, size) for size in (32, 64, 96, 128, 160, 192, 224, 256, 384)]
    parts = list(module.modules())
    embeds = [getattr(part, "patch_embed", None) for part in parts]
    fixed = next((size for embed in embeds if (size := getattr(embed, "img_size", None)) is not None), None)
    configs = [getattr(part, "pretrained_cfg", None) for part in parts]
    usual = next((tuple(config["input_size"]) for config in configs if config), None)
    first = next((part for part in parts if isinstance(part, (nn.Linear, nn.Conv2d))), None)
    if isinstance(first, nn.Linear):
        return [torch.Size((1, first.in_features))]
    if first is None:
        return []
    shapes = [(first.in_channels, *size) for size in ([tuple(fixed)] if fixed is not None else sizes)]
    if usual is not None:
        shapes += [(first.in_channels, *usual[1:]), usual]  # the latter where the image is cut up at first
    return [torch.Size((1, *shape)) for shape in shapes]
