"""Ctrl-C that waits until a change is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class uninterrupted:
    """Hold a Ctrl-C (SIGINT) back until the block has ended, then hand it to whoever handled it before.

    For short blocks that would leave weights half exchanged. Outside the main thread, where Python delivers
    no signals, it does nothing.

    >>> before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal
    >>> try:
    ...     with uninterrupted():
    ...         signal.raise_signal(signal.SIGINT)
    ...         print("whole")
    ... except KeyboardInterrupt:
    ...     print("then interrupted")
    whole
    then interrupted
    >>> handler = signal.signal(signal.SIGINT, before)
    """

    def __enter__(self) -> None:
        self.held: tuple[int, FrameType | None] | None = None
        self.holds = threading.get_ident() == threading.main_thread().ident
        if self.holds:
            self.before = signal.signal(signal.SIGINT, self._hold)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self.held = number, frame

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.holds:
            signal.signal(signal.SIGINT, signal.SIG_DFL if self.before is None else self.before)
            if self.held and callable(self.before):
                self.before(*self.held)
