"""Composing many pieces: in batches, and in several processes.

Pieces are composed as a batch, because a matrix is read once for all of its rows; but each piece takes memory, so large
numbers are composed in parts. On a CPU several processes of one thread each compose more than one process of
several threads, so the parts are dealt out to processes, each of which has the network from the start and gets wishes::

    this process                                   each worker
    compose, once ------------------------------>  compose
    wishes of a part --------------------------->  compose(wishes, tell) -> pieces
    pieces, in the order of the wishes <---------
    progress: one number per part, in shared memory, written by the process that composes it and read here while
    waiting; the last number of that memory is written here, and ends all composing at its next note

Shared memory and not a queue: a number is neither lost nor waited for, and Ctrl-C cannot leave a lock behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from math import ceil
from time import sleep
from typing import Any

from emogen.composing.drafts import Drawn
from emogen.composing.wish import Wish
from emogen.system.processes import CONTEXT, pool

AT_ONCE = 32
"""Pieces to compose as one batch: each takes memory (13 MB with a base model, twice that with guidance)."""
FEWEST = 4
"""Pieces for which it pays to start a process."""
POLL_S = 0.05
"""Time between two readings of the progress of the processes."""

Tell = Callable[[float], None]
"""Called now and then with the seconds of music composed so far."""
Compose = Callable[[Sequence[Wish], Tell], list[Drawn]]
"""A piece for each wish, as one batch."""


def workers_for(pieces: int, cores: int) -> int:
    """Processes that it pays to start for that many pieces."""
    return max(1, min(cores, ceil(pieces / FEWEST)))


def compose_all(compose: Compose, wishes: Sequence[Wish], workers: int, tell: Tell) -> Generator[Drawn]:
    """A piece for each wish, in the order of the wishes, composed in parts by that many processes.

    With one worker it is this process. Otherwise ``compose`` must be picklable.

    Raises:
        EmogenError: a process was killed; or what ``compose`` raises.
    """
    rounds = max(1, ceil(len(wishes) / (AT_ONCE * workers)))
    at_once = max(1, ceil(len(wishes) / (rounds * workers)))
    parts = [wishes[at : at + at_once] for at in range(0, len(wishes), at_once)]
    if workers > 1:
        yield from _in_processes(compose, parts, workers, tell)
        return
    before_s = 0.0
    for part in parts:
        yield from compose(part, partial(_tell_more, tell, before_s))
        before_s += sum(wish.seconds for wish in part)


def _tell_more(tell: Tell, before_s: float, seconds: float) -> None:
    tell(before_s + seconds)


def _in_processes(compose: Compose, parts: Sequence[Sequence[Wish]], workers: int, tell: Tell) -> Iterator[Drawn]:
    done_s = CONTEXT.Array("d", len(parts) + 1, lock=False)  # of each part; and whether to stop
    with pool(workers, "try again with --threads 1", _remember, (done_s, compose)) as processes:
        composing = deque(processes.submit(_compose_part, number, part) for number, part in enumerate(parts))
        try:
            while composing:
                part = composing.popleft()
                while not part.done():
                    sleep(POLL_S)  # not part.result(timeout): Ctrl-C may break the lock that it waits with
                    tell(sum(done_s[:-1]))
                tell(sum(done_s[:-1]))
                yield from part.result()
        finally:
            done_s[-1] = 1


_given: tuple[Any, Compose]
"""In a process of ``_in_processes``: its memory of progress, and what it composes with."""


def _remember(done_s: Any, compose: Compose) -> None:
    global _given
    _given = done_s, compose


def _compose_part(number: int, part: Sequence[Wish]) -> list[Drawn]:
    done_s, compose = _given

    def tell(seconds: float) -> None:
        done_s[number] = seconds
        if done_s[-1]:
            raise KeyboardInterrupt

    return compose(part, tell)
