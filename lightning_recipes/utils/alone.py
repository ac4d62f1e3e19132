"""One process among several that must not wait for the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch


@contextmanager
def alone() -> Iterator[None]:
    """Let all code within the block find no process group: no barrier, no reduction, no synchronised norm.

    For work that one process does while the others go on: whoever asks `torch.distributed.is_initialized()`
    is told no, as Lightning, torchmetrics and `SyncBatchNorm` do before they speak to the others.

    >>> with alone():
    ...     torch.distributed.is_initialized()
    False
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        yield
        return
    with patch.object(torch.distributed, "is_initialized", return_value=False):
        yield
