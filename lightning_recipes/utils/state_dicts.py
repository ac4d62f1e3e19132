"""The tensors of a weights file, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from .errors import UserError

CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
"""Under which names training scripts keep the weights; where a file has several, the average goes before."""


def read_state_dict(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a .pth, .pt, .ckpt or .safetensors file, on the CPU, in the file's order.

    A training script's container is opened: an average's before the raw weights'; under any name where it is
    the only one that holds tensors. Of a checkpoint of
    Lightning these are all tensors of the module, each under the module's name for it. The mark that
    `torch.compile` leaves in names is taken out. No code in the file is run.

    Raises:
        UserError: There is no such file, it cannot be read, or it holds no tensors by name.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"`weights` must be a file, got {path}, which is not there.")
    if path.stat().st_size == 0:
        raise UserError(f"Cannot read weights from {path}: it is empty. Fetch or save it again.")
    stored: object
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            stored = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"Cannot read weights from {path}: it is no weights file, or holds objects beside tensors, whose "
            "code is not run. Where it was made, write `torch.save(model.state_dict(), path)`."
        ) from error
    except Exception as error:  # each format has errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
        raise UserError(
            f"Cannot read weights from {path}: it is cut off or of another format ({reason}). Fetch or save "
            "it again, as .safetensors or .pth."
        ) from error
    keys: list[str] = []
    while isinstance(stored, Mapping):
        keys = [str(key) for key in stored]
        inner = next((stored[k] for k in CONTAINERS if isinstance(stored.get(k), Mapping)), None)
        if inner is None and not _tensors(stored):  # under a name of its own, which must be the only one
            held = [part for part in stored.values() if isinstance(part, Mapping) and _tensors(part)]
            inner = held[0] if len(held) == 1 else None
        if inner is None:
            break
        stored = inner
    found = _tensors(stored) if isinstance(stored, Mapping) else {}
    tensors = {name.replace("_orig_mod.", ""): value for name, value in found.items()}
    if not tensors:
        has = f" It has {', '.join(keys[:5])}." if keys else ""
        raise UserError(f"{path} holds no tensors by name.{has} Save a `state_dict()` there.")
    return tensors


def _tensors(stored: Mapping[object, object]) -> dict[str, Tensor]:
    return {
        name: value for name, value in stored.items() if isinstance(name, str) and isinstance(value, Tensor)
    }
