"""Weights from a local file, fitted to a network that may differ at its two ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from .errors import UserError

_PREFIXES = ("module.", "model.", "backbone.", "_orig_mod.")
_CONTAINERS = ("state_dict", "model", "model_ema", "state_dict_ema")


@dataclass(frozen=True)
class LoadReport:
    """What a file gave to a network.

    Args:
        loaded: Names of the network's tensors that the file set.
        missing: Names of the network's tensors that it did not.
        unused: Names in the file that the network has no place for.
    """

    loaded: list[str]
    missing: list[str]
    unused: list[str]


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a .pth, .pt, .ckpt or .safetensors file, wrappers' prefixes stripped.

    Raises:
        UserError: There is no such file, or it holds no tensors by name.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"`weights` must be a file, got {path}, which is not there.")
    stored: object
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"Cannot read weights from {path}: {reason}. Give a .safetensors file or a .pth of plain tensors."
        ) from error
    while isinstance(stored, Mapping) and (inner := next((k for k in _CONTAINERS if k in stored), None)):
        stored = stored[inner]
    tensors = (
        {k: v for k, v in stored.items() if isinstance(v, Tensor)} if isinstance(stored, Mapping) else {}
    )
    if not tensors:
        raise UserError(f"{path} holds no tensors by name. Save a `state_dict()` there.")
    while prefix := next((p for p in _PREFIXES if any(name.startswith(p) for name in tensors)), None):
        shared = {name for name in tensors if name.startswith(prefix)}
        tensors = {name.removeprefix(prefix) if name in shared else name: v for name, v in tensors.items()}
    return tensors


def load_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], *, least: float = 0.5, source: str = "the file"
) -> LoadReport:
    """Copy tensors into `module` by name where the shapes agree; the rest keeps its initialization.

    A first convolution for another number of input channels is adapted as timm does. A head for other classes
    stays as it was.

    Args:
        module: The network.
        tensors: Name to tensor.
        least: Least share of the module's tensors that must be set, in [0, 1].
        source: Where the tensors come from, for the error.

    Raises:
        UserError: Fewer tensors fit than `least` asks.

    >>> report = load_weights(nn.Linear(2, 1), {"weight": torch.ones(1, 2), "other": torch.ones(1)})
    >>> report
    LoadReport(loaded=['weight'], missing=['bias'], unused=['other'])
    """
    own = module.state_dict()
    fitting: dict[str, Tensor] = {}
    for name, value in own.items():
        given = tensors.get(name)
        if given is not None and given.ndim == 4 == value.ndim and given.shape[0] == value.shape[0]:
            given = _adapt_channels(given, value)
        if given is not None and given.shape == value.shape:
            fitting[name] = given
    if len(fitting) < least * len(own):
        raise UserError(
            f"{len(fitting)} of the {len(own)} tensors fit from {source}, at least {least:.0%} must. "
            f"It has {', '.join(list(tensors)[:3])}, …; the network has {', '.join(list(own)[:3])}, …. "
            "Give weights of the same architecture."
        )
    module.load_state_dict(fitting, strict=False)
    return LoadReport(
        list(fitting), [n for n in own if n not in fitting], [n for n in tensors if n not in fitting]
    )


def _adapt_channels(given: Tensor, wanted: Tensor) -> Tensor:
    """Return a (O, 3, k, k) kernel for the `wanted` number of input channels, unchanged when it cannot be."""
    if given.shape[2:] != wanted.shape[2:] or given.shape[1] == wanted.shape[1] or given.shape[1] != 3:
        return given
    from timm.models import adapt_input_conv  # slow to import

    return adapt_input_conv(wanted.shape[1], given).to(given.dtype)
