"""Work that nobody should hear of."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Have neither Lightning's logs nor any warning be seen within the block."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def kept_signals() -> Iterator[None]:
    """Keep the handler of Ctrl-C, which Lightning exchanges when it is interrupted."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        main = threading.current_thread() is threading.main_thread()  # elsewhere Python sets no handlers
        if main and before is not None and signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)
