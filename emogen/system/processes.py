"""Worker processes, which end quietly at Ctrl-C and with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from emogen.errors import EmogenError
from emogen.system.signals import end_at_once

CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
"""How workers start: forking is fast, but outside Linux unsafe or impossible."""


@contextmanager
def pool(
    workers: int, hint: str, start: Callable[..., None] | None = None, given: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Processes that take calls, each after ``start(*given)``.

    Raises:
        EmogenError: one was killed; ``hint`` says what to do then.
    """
    processes = ProcessPoolExecutor(workers, CONTEXT, _start, (start, given))
    try:
        with (
            warnings.catch_warnings()
        ):  # about forking beside other libraries' threads: workers use none of their locks
            warnings.simplefilter("ignore", DeprecationWarning)
            processes.submit(int)  # the first call starts them
        yield processes
    except BrokenProcessPool:
        raise EmogenError("a worker process was killed (out of memory?)", hint) from None
    finally:
        processes.shutdown(cancel_futures=True)


def _start(start: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    end_at_once()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start:
        start(*given)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
