from __future__ import annotations

import math
import multiprocessing
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from emogen.composing import parallel
from emogen.composing.parallel import generate_all
from emogen.composing.wish import Wish
from emogen.errors import EmogenError
from emogen.model.network import Composer
from emogen.music.notes import Piece
from emogen.music.tokens import COLUMN, encode
from emogen.settings import SampleSettings
from emogen.system import processes
from tests import tiny
from tests.music import is_same, random_piece

PLANS = tiny.plans()
SAMPLE = SampleSettings(guidance=1, top_p=0.9)


@pytest.fixture(scope="module")
def model() -> Composer:
    return tiny.composer()


def wish(seconds: float, seed: int) -> Wish:
    return Wish({"happy": 1.0}, seconds, seed, {})


@pytest.fixture
def few_pieces_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "FEWEST", 2)
    monkeypatch.setattr(parallel, "AT_ONCE", 2)


@pytest.mark.parametrize("start", ["fork", "spawn"] if sys.platform == "linux" else ["spawn"])
def test_several_processes_make_the_pieces_that_one_makes(
    start: str, model: Composer, few_pieces_a_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "CONTEXT", multiprocessing.get_context(start))
    monkeypatch.setattr("emogen.system.processes.CONTEXT", multiprocessing.get_context(start))
    wishes, opening, told = [wish(5 + seed, seed) for seed in range(7)], encode(random_piece(1, 1)), list[float]()
    opening[:, COLUMN.duration] = 20
    one, several = (SAMPLE.model_copy(update={"threads": threads}) for threads in (1, 2))
    alone = list(generate_all(model, PLANS, wishes, one, opening))
    monkeypatch.setattr(parallel, "partial", None)  # this process composes no more
    together = list(generate_all(model, PLANS, wishes, several, opening, told.append))
    assert len(alone) == len(together) == 7
    assert all(map(is_same, alone, together))
    assert told == sorted(told)
    assert told[-1] == sum(wished.seconds for wished in wishes)


@pytest.mark.parametrize(("pieces", "threads", "processes"), [(2, 4, 0), (3, 4, 2), (13, 4, 4), (12, 1, 0), (0, 4, 0)])
def test_processes_are_started_where_there_are_pieces_enough_for_them(
    pieces: int, threads: int, processes: int, model: Composer, few_pieces_a_process: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    started: list[int] = []

    def no_processes(workers: int, parts: list[list[Wish]], *_: object) -> list[Piece]:
        started.append(workers)
        assert max(map(len, parts)) <= 2
        return [Piece.of([0], [60], [64], [100])] * sum(map(len, parts))

    monkeypatch.setattr(parallel, "_in_processes", no_processes)
    sample = SAMPLE.model_copy(update={"threads": threads})
    wishes = [wish(1, seed) for seed in range(pieces)]
    assert len(list(generate_all(model, PLANS, wishes, sample))) == pieces
    assert started == [processes] * bool(processes)


@pytest.mark.parametrize(("pieces", "batches"), [(5, [5]), (32, [32]), (33, [17, 16]), (100, [25] * 4)])
def test_as_few_batches_as_there_may_be_are_of_the_same_size(
    pieces: int, batches: list[int], model: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []

    def count(model: object, plans: object, wishes: list[Wish], *_: object) -> list[Piece]:
        made.append(len(wishes))
        return [Piece.of([0], [60], [64], [100])] * len(wishes)

    monkeypatch.setattr(parallel, "generate", count)
    sample = SAMPLE.model_copy(update={"threads": 1})
    assert len(list(generate_all(model, PLANS, [wish(5, seed) for seed in range(pieces)], sample))) == pieces
    assert made == batches


def test_what_goes_wrong_in_a_process_is_told(few_pieces_a_process: None) -> None:
    broken = tiny.composer()
    with torch.no_grad():
        broken.get_parameter("blocks.1.up.weight")[3, 3] = math.nan
    wishes = [wish(5, seed) for seed in range(4)]
    with pytest.raises(EmogenError, match="not all numbers"):
        list(generate_all(broken, PLANS, wishes, SAMPLE.model_copy(update={"threads": 2})))


def test_who_wants_no_more_pieces_does_not_wait_for_them(
    model: Composer, few_pieces_a_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def array(kind: str, size: int, lock: bool) -> Any:
        told.append(processes.CONTEXT.Array(kind, size, lock=lock))
        return told[0]

    monkeypatch.setattr(parallel, "CONTEXT", SimpleNamespace(Array=array))
    wishes = [wish(5, 0), wish(5, 1), *(wish(600, seed) for seed in range(2, 8))]
    pieces = generate_all(model, PLANS, wishes, SAMPLE.model_copy(update={"threads": 2}))
    assert next(pieces).end_ms == 5000
    children = multiprocessing.active_children()
    assert len(children) == 2
    pieces.close()
    assert not any(child.is_alive() for child in children)
    assert sum(told[0][:-1]) < 1000


def test_a_process_that_is_killed_is_an_error_and_not_a_hang(model: Composer, few_pieces_a_process: None) -> None:
    def kill(_: float) -> None:
        for child in multiprocessing.active_children()[:1]:
            child.kill()

    wishes = [wish(60, seed) for seed in range(4)]
    with pytest.raises(EmogenError, match="ended from outside"):
        list(generate_all(model, PLANS, wishes, SAMPLE.model_copy(update={"threads": 2}), tell=kill))
