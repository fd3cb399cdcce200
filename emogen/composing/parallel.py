"""Many pieces: some at a time, so that they take the memory of a few, and in several processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from math import ceil
from time import sleep
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from emogen.composing.generate import generate
from emogen.composing.wish import Wish
from emogen.errors import EmogenError
from emogen.model.numpy_network import NumpyComposer
from emogen.model.opening import fastest
from emogen.music.notes import Piece
from emogen.music.plan import PlanTable
from emogen.music.tokens import Tokens
from emogen.settings import SampleSettings
from emogen.system.devices import default_threads, is_out_of_memory
from emogen.system.processes import CONTEXT, pool

if TYPE_CHECKING:
    from emogen.model.network import Composer

FEWEST = 4
"""Pieces for which it pays to start a process."""
LOOK_EVERY_S = 0.05
"""How often it is looked how far the processes are."""
AT_ONCE = 32
"""Pieces to compose as one batch: each takes memory (13 MB with a base model, twice that with guidance)."""


def generate_all(
    model: Composer | NumpyComposer,
    plans: PlanTable,
    wishes: Sequence[Wish],
    sample: SampleSettings,
    opening: Tokens | None = None,
    tell: Callable[[float], None] = lambda seconds: None,
) -> Generator[Piece]:  # six, as generate
    """A piece for each wish, as ``generate``; some at a time, so any number of them takes the memory of a few.

    NumPy composes in several processes, if there are enough pieces for them.

    Raises:
        EmogenError: as ``generate``; or memory is too small even so.
    """
    network = fastest(model, sample)
    alone = not isinstance(network, NumpyComposer) or sample.precision == "int8"
    workers = 1 if alone else max(1, min(sample.threads or default_threads(), ceil(len(wishes) / FEWEST)))
    rounds = max(1, ceil(len(wishes) / (AT_ONCE * workers)))
    at_once = max(1, ceil(len(wishes) / (rounds * workers)))
    parts = [wishes[at : at + at_once] for at in range(0, len(wishes), at_once)]
    try:
        if workers == 1:
            before_s = 0.0
            for some in parts:
                yield from generate(network, plans, some, sample, opening, partial(_tell_more, tell, before_s))
                before_s += sum(wish.seconds for wish in some)
        else:
            yield from _in_processes(workers, parts, tell, network, plans, sample, opening)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        where = "cpu" if isinstance(model, NumpyComposer) else model.device
        raise EmogenError(f"out of memory on {where}", "close other programs, or try --device cpu") from None


def _tell_more(tell: Callable[[float], None], before_s: float, seconds: float) -> None:
    tell(before_s + seconds)


def _in_processes(
    workers: int, parts: Sequence[Sequence[Wish]], tell: Callable[[float], None], *given: Any
) -> Iterator[Piece]:
    """The pieces of all parts in their order; ``given`` is what each process composes with, see ``_compose_part``."""
    told = CONTEXT.Array("d", len(parts) + 1, lock=False)  # seconds of each part, and whether to stop
    with pool(workers, "try again with --threads 1", _remember, (told, *given)) as processes:
        composing = deque(processes.submit(_compose_part, number, part) for number, part in enumerate(parts))
        try:
            while composing:
                part = composing.popleft()
                while not part.done():
                    sleep(LOOK_EVERY_S)  # not part.result(timeout): Ctrl-C may break the lock that it waits with
                    tell(sum(told[:-1]))
                tell(sum(told[:-1]))
                yield from part.result()
        finally:
            told[-1] = 1


_given: tuple[Any, ...] = ()
"""In a process of ``_in_processes``: what it composes with."""


def _remember(*given: Any) -> None:
    global _given
    threadpool_limits(1, user_api="blas")
    _given = given


def _compose_part(number: int, part: Sequence[Wish]) -> list[Piece]:
    told, network, plans, sample, opening = _given

    def tell(seconds: float) -> None:
        told[number] = seconds
        if told[-1]:
            raise KeyboardInterrupt

    return generate(network, plans, part, sample, opening, tell)
