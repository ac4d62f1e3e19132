"""Checkpoints that are written while training goes on."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from ..utils.files import save_whole


class BackgroundCheckpointIO(AsyncCheckpointIO):
    """Write checkpoints from a thread, one after another; a copy in main memory is taken at once.

    Lightning's own copies on the device, which would cost a GPU three times the weights. An error, such as
    that of a full disk, is raised at the next checkpoint or when the fit ends.
    """

    def __init__(self) -> None:
        super().__init__(_LocalCheckpointIO())

    def save_checkpoint(self, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Copy the tensors to main memory and hand them to the thread."""
        in_memory = apply_to_collection(checkpoint, torch.Tensor, torch.Tensor.cpu)
        super().save_checkpoint(in_memory, *args, **kwargs)


class _LocalCheckpointIO(TorchCheckpointIO):
    """Write straight into a file beside the checkpoint, then put it in the checkpoint's place.

    As safe against being cut off as Lightning's way through a buffer, at half of the processor time.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ANN401
        if storage_options is not None or "://" in str(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        save_whole(checkpoint, path)
        return None
