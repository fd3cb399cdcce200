from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from emogen.composing import parallel
from emogen.composing.drafts import Drawn
from emogen.composing.generate import generate
from emogen.composing.parallel import Tell, compose_all, workers_for
from emogen.composing.wish import Wish
from emogen.errors import EmogenError
from emogen.music.notes import Piece as Notes
from emogen.settings import SampleSettings
from emogen.system import processes
from tests import tiny
from tests.music import is_same, random_piece

PLANS = tiny.plans()
SAMPLE = SampleSettings(guidance=1, top_p=0.9)


def ignore(seconds: float) -> None:
    """Nobody asks how far it is."""


def composing(opening: Notes | None, wishes: Sequence[Wish], tell: Tell) -> list[Drawn]:
    return generate(tiny.in_numpy(tiny.composer()), PLANS, wishes, SAMPLE, opening, tell)


compose = partial(composing, None)


def broken(wishes: Sequence[Wish], tell: Tell) -> list[Drawn]:
    raise EmogenError("it is broken")


def wish(seconds: float, seed: int) -> Wish:
    return Wish({"happy": 1.0}, seconds, seed, {})


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "AT_ONCE", 2)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"] if sys.platform == "linux" else ["spawn"])
def test_several_processes_make_the_pieces_that_one_makes(
    start: str, few_at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "CONTEXT", multiprocessing.get_context(start))
    monkeypatch.setattr("emogen.system.processes.CONTEXT", multiprocessing.get_context(start))
    wishes, opening, told = [wish(5 + seed, seed) for seed in range(7)], random_piece(1, 1).crop(0, 2000), list[float]()
    alone = list(compose_all(partial(composing, opening), wishes, 1, ignore))
    monkeypatch.setattr(parallel, "partial", None)  # this process composes no more
    together = list(compose_all(partial(composing, opening), wishes, 2, told.append))
    assert len(alone) == len(together) == 7
    assert all(map(is_same, alone, together))
    assert told == sorted(told)
    assert told[-1] == sum(wished.seconds for wished in wishes)


@pytest.mark.parametrize(
    ("pieces", "cores", "workers"), [(0, 4, 1), (4, 4, 1), (5, 4, 2), (13, 4, 4), (100, 4, 4), (100, 1, 1)]
)
def test_processes_are_started_where_there_are_pieces_enough_for_them(pieces: int, cores: int, workers: int) -> None:
    assert workers_for(pieces, cores) == workers


@pytest.mark.parametrize(
    ("pieces", "workers", "batches"),
    [
        (0, 1, []),
        (5, 1, [5]),
        (32, 1, [32]),
        (33, 1, [17, 16]),
        (100, 1, [25] * 4),
        (33, 2, [17, 16]),
        (70, 2, [18, 18, 18, 16]),
    ],
)
def test_as_few_batches_as_there_may_be_are_of_about_the_same_size(
    pieces: int, workers: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def count(wishes: Sequence[Wish], tell: Tell) -> list[Drawn]:
        made.append(len(wishes))
        return [Drawn.of([0], [60], [64], [100])] * len(wishes)

    def here(compose: parallel.Compose, parts: list[list[Wish]], workers: int, tell: Tell) -> Iterator[Drawn]:
        for part in parts:
            yield from compose(part, tell)

    monkeypatch.setattr(parallel, "_in_processes", here)
    assert len(list(compose_all(count, [wish(5, seed) for seed in range(pieces)], workers, ignore))) == pieces
    assert made == batches


def test_progress_counts_the_parts_before() -> None:
    told: list[float] = []

    def half_way(wishes: Sequence[Wish], tell: Tell) -> list[Drawn]:
        tell(2.5)
        return [Drawn.of([0], [60], [64], [100])] * len(wishes)

    list(compose_all(half_way, [wish(5, seed) for seed in range(33)], 1, told.append))
    assert told == [2.5, 17 * 5 + 2.5]


def test_what_goes_wrong_in_a_process_is_told(few_at_once: None) -> None:
    with pytest.raises(EmogenError, match="it is broken"):
        list(compose_all(broken, [wish(5, seed) for seed in range(4)], 2, ignore))


def test_who_wants_no_more_pieces_does_not_wait_for_them(few_at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def array(kind: str, size: int, lock: bool) -> Any:
        told.append(processes.CONTEXT.Array(kind, size, lock=lock))
        return told[0]

    monkeypatch.setattr(parallel, "CONTEXT", SimpleNamespace(Array=array))
    wishes = [wish(5, 0), wish(5, 1), *(wish(600, seed) for seed in range(2, 8))]
    pieces = compose_all(compose, wishes, 2, ignore)
    assert next(pieces).end_ms == 5000
    children = multiprocessing.active_children()
    assert len(children) == 2
    pieces.close()
    assert not any(child.is_alive() for child in children)
    assert sum(told[0][:-1]) < 1000


def test_a_process_that_is_killed_is_an_error_and_not_a_hang(few_at_once: None) -> None:
    def kill(_: float) -> None:
        for child in multiprocessing.active_children()[:1]:
            child.kill()

    wishes = [wish(60, seed) for seed in range(4)]
    with pytest.raises(EmogenError, match="was killed"):
        list(compose_all(compose, wishes, 2, kill))
