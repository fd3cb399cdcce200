"""Worker processes, which end quietly at Ctrl-C and with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from emogen.errors import EmogenError
from emogen.system.signals import ENDING, end_at_once

CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
"""How workers start: forking is fast, but outside Linux unsafe or impossible."""
GONE_S = 5.0
"""How long a companion that no longer answers may take to say why."""


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


@contextmanager
def companions(number: int, work: Callable[..., None], given: tuple[Any, ...], hint: str) -> Iterator[None]:
    """Processes that work beside this one, each by ``work(say_ready, place, *given)`` with its place, from 1.

    They write nothing, leave every signal to this process, and end with it or with the block. Who enters waits until
    all have called ``say_ready``.

    Raises:
        EmogenError: one of them raised it, or was killed; ``hint`` says what to do then. A ConnectionError in the block
            makes us ask.
    """
    context = multiprocessing.get_context("spawn")  # this process may have threads by now
    ends = [context.Pipe(duplex=False) for _ in range(number)]
    processes = [
        context.Process(target=_accompany, args=(work, end, place, given), daemon=True)
        for place, (_, end) in enumerate(ends, start=1)
    ]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ENDING}) if sys.platform != "win32" else None
    try:
        for process in processes:
            process.start()  # with signals blocked for good: Ctrl-C reaches every process of a terminal
    finally:
        if blocked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for _, end in ends:
        end.close()  # a process that ends closes the last one
    try:
        for ear, _ in ends:
            _listen(ear, hint)
        try:
            yield
        except ConnectionError:  # one of them is gone: why?
            for gone in connection.wait([ear for ear, _ in ends], GONE_S):
                _listen(gone, hint)
            raise
    finally:
        for process in processes:
            process.kill()
            process.join()


def _listen(ear: Any, hint: str) -> None:
    """Wait until a companion is ready.

    Raises:
        EmogenError: as ``companions``.
    """
    try:
        error = ear.recv()
    except (EOFError, OSError):
        raise EmogenError("a process of the training was killed (out of memory?)", hint) from None
    if error:
        raise EmogenError(*error)


def _accompany(work: Callable[..., None], end: Any, place: int, given: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where none can be blocked
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(lambda: end.send(None), place, *given)
    except EmogenError as error:
        end.send((str(error), error.hint))
    except ConnectionError:
        threading.Event().wait()  # another one is gone, and says why; this one ends with the block


def _start(start: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    end_at_once()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start:
        start(*given)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
