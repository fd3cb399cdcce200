"""How others ask a process to end, and how it ends without leaving half of its work behind."""

from __future__ import annotations

import signal
import threading
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that ask a process to end, beside Ctrl-C: of whoever shuts down, and of a window that is closed (which
Windows does not tell)."""


def end_in_order() -> None:
    """From now on ``ENDING`` ends the process as Ctrl-C does: what is half written is removed first.

    Signals that somebody ignores (nohup) or handles already stay as they are.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # who asks twice means it
        raise SystemExit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, end)


def end_at_once() -> None:
    """From now on every such signal, and Ctrl-C, ends the process where it stands: for processes that write nothing.

    What the process that started it ignores stays ignored: to a job in the background, Ctrl-C is meant for another.
    """
    for number in (signal.SIGINT, *ENDING):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
