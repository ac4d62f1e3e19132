"""The calls of a loss function inside somebody else's training step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

CLASSIFICATION = ("cross_entropy", "nll_loss", "multi_margin_loss", "log_softmax")
BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits", "soft_margin_loss")
REGRESSION = ("mse_loss", "smooth_l1_loss", "huber_loss", "l1_loss")
_KNOWN = {
    getattr(functional, name): name
    for name in (*CLASSIFICATION, *BINARY, *REGRESSION, "multilabel_soft_margin_loss", "hinge_embedding_loss")
}
_KNOWN |= dict.fromkeys((torch.log_softmax, Tensor.log_softmax), "log_softmax")
_SQUASHING = ("softmax", "log_softmax", "sigmoid", "logsigmoid", "tanh", "hardtanh", "clamp")
_RECTIFYING = ("relu", "relu_", "relu6", "leaky_relu", "gelu", "silu", "elu", "selu", "mish", "hardswish")
_ELEMENTARY = ("log",)  # between a squashing function and `nll_loss`
_ALIKE: tuple[str, ...] = ("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "ToCopy", "Clone")
_ALIKE += ("Alias", "Slice", "T", "Transpose", "Permute")
# the backward nodes of operations that hand numbers on as they are


@dataclass
class LossCall:
    """One call of a loss function.

    Args:
        name: The function's, such as `cross_entropy`; `log_softmax` where a loss is made by hand out of it.
        inputs: What the function was given, detached: logits (N, K) for a cross-entropy.
        targets: Indices (N,) or numbers shaped like `inputs`, detached; None where only a softmax was seen.
        options: `reduction`, `label_smoothing`, `weight`, `ignore_index`, as given.
        value: What it returned, detached.
        made_by: The functions that made `inputs` out of the layer before, last first: `("softmax",)`.
        before: What went into the first of these; `inputs` where there is none.
        source: `origin_of` what came in: calls that share it have mixed targets.
        gradient: The derivative of the step's loss by `inputs`, after the backward pass.
        swapped: What came second depends on weights, and what came first does not.
        live: `before` with its graph, for a loss that replaces this one within the step.
    """

    name: str
    inputs: Tensor
    targets: Tensor | None
    options: Mapping[str, Any]
    value: Tensor
    made_by: tuple[str, ...]
    before: Tensor
    source: int
    gradient: Tensor | None = None
    swapped: bool = False
    live: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """Return the inputs as rows of classes, (N, K): (N, K, d1, ...) becomes (N·d1·…, K)."""
        return rows_of(self.inputs)

    @property
    def indices(self) -> Tensor | None:
        """Return the targets as indices (N,), soft ones by their largest; None where there are none.

        Those of a cross-entropy that are `ignore_index` stay as they are.
        """
        if self.targets is None:
            return None
        if self.targets.is_floating_point():
            return rows_of(self.targets).argmax(1) if self.targets.dim() > 1 else self.targets.round().long()
        return self.targets.reshape(-1)

    @property
    def hard(self) -> bool:
        """Return whether each sample has one class."""
        return self.targets is not None and not self.targets.is_floating_point()

    @property
    def contrastive(self) -> bool:
        """Return whether the classes are the samples of the batch: as many, and each the target of one."""
        if not self.hard or self.inputs.dim() != 2 or self.targets is None or self.targets.dim() != 1:
            return False
        rows, classes = self.inputs.shape
        apart = self.targets.sort().values.diff() > 0
        return 4 <= rows <= classes <= rows + 1 and bool(apart.all())

    @property
    def reduction(self) -> str:
        """Return `mean`, `sum` or `none`."""
        return str(self.options.get("reduction") or "mean")


def rows_of(tensor: Tensor) -> Tensor:
    """Return (N, K, d1, ...) as (N·d1·…, K).

    >>> import torch
    >>> rows_of(torch.zeros(2, 3, 4)).shape
    torch.Size([8, 3])
    """
    return tensor if tensor.dim() < 3 else tensor.movedim(1, -1).reshape(-1, tensor.shape[1])


@dataclass
class LossCalls(TorchFunctionMode):
    """Note the loss calls within the block, and the gradients that flow back into them.

    Nothing of what is computed changes. The gradients come with the backward pass, within the block or
    after it.

    Args:
        seen: The calls, in their order.

    >>> import torch
    >>> weight = torch.ones(2, 3, requires_grad=True)
    >>> with LossCalls() as calls:
    ...     loss = functional.cross_entropy((weight * 2).softmax(1), torch.tensor([0, 1]))
    >>> loss.backward()
    >>> calls.seen[0].name, calls.seen[0].made_by, calls.seen[0].gradient.sum().abs() < 1e-6
    ('cross_entropy', ('softmax',), tensor(True))
    """

    seen: list[LossCall] = field(default_factory=list)
    _made: dict[Any, tuple[str, Tensor, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever `func` returns
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        known = _KNOWN.get(func)
        given = _arguments(func, args, kwargs) if known else {}
        before = given.get("input")
        # taken before the call: some losses are followed by work in place
        kept = before.detach().clone() if known and isinstance(before, Tensor) else None
        shaped = name in _SQUASHING + _RECTIFYING + _ELEMENTARY and args and isinstance(args[0], Tensor)
        node = args[0].grad_fn if shaped else None
        result = func(*args, **kwargs)
        if not isinstance(result, Tensor):
            return result
        if shaped and result.grad_fn is not None:
            self._made[result.grad_fn] = (name.rstrip("_"), args[0], node)
        if known and known != "log_softmax" and before is not None and kept is not None:
            self._note(known, before, kept, given, result)
        elif known and before is not None and kept is not None and _over_classes(given, kept):
            self._note(known, before, kept, {}, result)
        return result

    def classification(self) -> list[LossCall]:
        """Return the calls that judge rows of logits, those made by hand only where there is nothing else.

        A contrastive loss, whose classes are the samples of the batch, is none of them.
        """
        direct = [c for c in self.seen if c.name in CLASSIFICATION[:-1] and c.inputs.dim() > 1]
        if direct:
            return [call for call in direct if not call.contrastive]
        return [c for c in self.seen if c.name == "log_softmax"]

    def let_go(self) -> None:
        """Forget the tensors that hold the step's graph."""
        self._made.clear()
        for call in self.seen:
            call.live = None

    def _note(self, name: str, live: Tensor, kept: Tensor, given: Mapping[str, Any], value: Tensor) -> None:
        made_by, before = self._history(live)
        options = {k: v for k, v in given.items() if k not in ("input", "target")}
        target = given.get("target")
        call = LossCall(
            name=name,
            inputs=kept,
            targets=target.detach().clone() if isinstance(target, Tensor) else None,
            options=options,
            value=value.detach(),
            made_by=made_by,
            before=before.detach(),
            source=origin_of(live),
            swapped=isinstance(target, Tensor) and target.requires_grad and not live.requires_grad,
            live=before,
        )
        if live.requires_grad:

            def take(gradient: Tensor) -> None:
                call.gradient = gradient.detach().clone()

            live.register_hook(take)  # type: ignore[no-untyped-call]
        self.seen.append(call)

    def _history(self, tensor: Tensor) -> tuple[tuple[str, ...], Tensor]:
        """Return the functions that made `tensor`, last first, and what went into the first of them."""
        names: list[str] = []
        node = tensor.grad_fn
        for _ in range(16):
            if node is None:
                break
            if node in self._made:
                name, tensor, node = self._made[node]
                names.append(name)
            elif (behind := _behind(node)) is not None:
                node = behind
            else:
                break
        return tuple(names), tensor


def origin_of(tensor: Tensor) -> int:
    """Return a number of what computed the tensor, the same for its views, casts and clones.

    The number of the node in the graph: nodes themselves come and go in Python, and their `id` with them.
    """
    node: Any = tensor.grad_fn
    if node is None:
        return id(tensor)
    while (behind := _behind(node)) is not None:
        node = behind
    return int(node._sequence_nr())


def _behind(node: Any) -> Any:  # noqa: ANN401 - a node of the graph has no public type
    """Return the node behind one that hands its numbers on as they are; None for all others."""
    if node.name().rstrip("0123456789").removesuffix("Backward").lstrip("_") not in _ALIKE:
        return None
    following = [parent for parent, _ in node.next_functions if parent is not None]
    leaf = len(following) != 1 or "AccumulateGrad" in following[0].name()
    return None if leaf else following[0]


def _arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if func in (torch.log_softmax, Tensor.log_softmax):  # these have no signature that could be read
        return {**dict(zip(("input", "dim"), args, strict=False)), **kwargs}
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):  # a function without a signature, or a wrong call, which fails by itself
        return {}
    bound.apply_defaults()
    return dict(bound.arguments)


def _over_classes(given: Mapping[str, Any], inputs: Tensor) -> bool:
    return inputs.dim() == 2 and given.get("dim") in (1, -1)
