"""The C library's memory, set for training."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> None:
    """Let the process keep the memory that a step frees, for the next step; a no-op where there is no glibc.

    glibc hands large blocks back to the system at once, and every step then faults its activations in again.
    The process stays as large as its largest step.

    Source: mallopt(3).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
