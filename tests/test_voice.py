from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from emogen.composing import parallel
from emogen.composing import voice as voices
from emogen.composing.drafts import Drawn
from emogen.composing.voice import Voice
from emogen.composing.wish import Wish
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.model import opening
from emogen.model.checkpoint import Meta
from emogen.model.network import Composer
from emogen.model.numpy_network import NumpyComposer
from emogen.music.plan import PLANS_KEPT
from emogen.settings import SampleSettings
from emogen.system.devices import threads
from tests import tiny
from tests.music import is_same

SAMPLE = SampleSettings(guidance=1, top_p=0.9)


def test_a_voice_goes_by_its_names_and_says_who_it_is(tmp_path: Path) -> None:
    path = tiny.save(tmp_path / "runs")
    for name in ("best", "tiny/best", path.name, str(path), ""):
        voice = Voice.open(name, tmp_path / "runs")
        assert (voice.path, voice.label) == (path, f"tiny/{path.name}")
    assert repr(voice) == f"<Voice tiny/{path.name}>"
    assert voice.plans == tiny.plans()
    assert Voice.open().label == "the bundled voice"
    assert Voice.open("open").label == "the open voice"
    with pytest.raises(EmogenError, match="no checkpoint 'bst'"):
        Voice.open("bst", tmp_path / "runs")


def test_a_voice_composes_a_piece_for_each_wish_and_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[float] = []
    wishes = [Wish.of("sad", 5 + seed, seed=seed) for seed in range(3)]
    pieces = list(tiny.voice(tmp_path).pieces(wishes, SAMPLE, tell=told.append))
    assert [piece.end_ms for piece in pieces] == [5000, 6000, 7000]
    assert told == sorted(told)
    assert told[-1] == 18


def test_the_open_voice_composes_to_the_millisecond_and_knows_its_songs() -> None:
    voice = Voice.open("open")
    assert [voice.compose(emotion, 10, seed=1).end_ms for emotion in ("excited", "calm")] == [10_000, 10_000]
    kept = {emotion: len(rows) for emotion, rows in voice.plans.by_emotion.items()}
    assert kept == dict.fromkeys(EMOTIONS, PLANS_KEPT)
    assert voice.known is not None


def test_the_network_is_opened_when_it_is_needed_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, ...]] = []

    def watched(path: Path, meta: Meta, *kind: str) -> Composer | NumpyComposer:
        opened.append(kind)
        return opening.open_network(path, meta, *kind)

    monkeypatch.setattr(voices, "open_network", watched)
    voice, wish = tiny.voice(tmp_path), Wish.of("sad", 5, seed=1)
    assert not opened
    first, again = (next(voice.pieces([wish], SAMPLE)) for _ in range(2))
    assert is_same(first, again)
    assert not is_same(first, next(voice.pieces([wish], SAMPLE.model_copy(update={"top_p": 0.2}))))
    assert opened == [("cpu", "float32")]


def limits() -> tuple[set[int], int]:
    """How many threads BLAS and PyTorch have at the moment."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}, torch.get_num_threads()


@pytest.mark.parametrize(
    ("given", "blas", "in_torch"),
    [
        ({}, 1, 2),
        ({"threads": 3}, 3, 2),
        ({"threads": 100}, 4, 2),  # there are four cores
        ({"precision": "int8"}, 1, 1),
        ({"precision": "int8", "threads": 3}, 1, 3),  # two pools would take each other's cores
        ({"precision": "int8", "threads": 5}, 1, 4),
    ],
    ids=str,
)
def test_threads_are_limited_while_it_composes_and_never_beyond(
    given: dict[str, Any], blas: int, in_torch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[tuple[set[int], int]] = []

    def listen(network: object, plans: object, wishes: list[Wish], *_: object) -> list[Drawn]:
        during.append(limits())
        return [Drawn.of([0], [60], [64], [100])] * len(wishes)

    monkeypatch.setattr(voices, "generate", listen)
    monkeypatch.setattr(parallel, "AT_ONCE", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    sample = SampleSettings.model_validate(given)
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        assert limits() == ({2}, 2)
        for _ in tiny.voice(tmp_path).pieces([Wish.of("sad", 5, seed=seed) for seed in range(2)], sample):
            assert limits() == ({2}, 2)  # also between one part and the next
        assert limits() == ({2}, 2)
    assert during == [({blas}, in_torch)] * 2


@pytest.mark.parametrize("by", ["numpy", "torch"])
def test_threads_are_given_back_after_an_error(by: str) -> None:
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(KeyError), threads(3, in_torch=by == "torch"):
            raise KeyError
        assert limits() == ({2}, 2)


OUT_OF_MEMORY = (MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"))


@pytest.mark.parametrize("error", [*OUT_OF_MEMORY, RuntimeError("something else")], ids=repr)
def test_running_out_of_memory_is_said_in_words_and_only_that(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: object) -> list[Drawn]:
        raise error

    monkeypatch.setattr(voices, "generate", hungry)
    with pytest.raises((EmogenError, RuntimeError)) as caught:
        next(tiny.voice(tmp_path).pieces([Wish.of("sad", 5)]))
    assert str(caught.value) == ("out of memory on cpu" if error in OUT_OF_MEMORY else "something else")
