from __future__ import annotations

from pathlib import Path

import pytest

from emogen.composing import voice as voices
from emogen.composing.voice import Voice
from emogen.composing.wish import Wish
from emogen.errors import EmogenError
from emogen.model import opening
from emogen.model.checkpoint import Meta
from emogen.model.network import Composer
from emogen.model.numpy_network import NumpyComposer
from emogen.settings import SampleSettings
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
    with pytest.raises(EmogenError, match="no checkpoint 'bst'"):
        Voice.open("bst", tmp_path / "runs")


def test_a_voice_composes_a_piece_for_each_wish_and_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[float] = []
    wishes = [Wish.of("sad", 5 + seed, seed=seed) for seed in range(3)]
    pieces = list(tiny.voice(tmp_path).pieces(wishes, SAMPLE, tell=told.append))
    assert [piece.end_ms for piece in pieces] == [5000, 6000, 7000]
    assert told == sorted(told)
    assert told[-1] == 18


def test_the_network_is_opened_when_it_is_needed_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[SampleSettings] = []

    def watched(path: Path, meta: Meta, sample: SampleSettings) -> Composer | NumpyComposer:
        opened.append(sample)
        return opening.open_to_compose(path, meta, sample)

    monkeypatch.setattr(voices, "open_to_compose", watched)
    voice, wish = tiny.voice(tmp_path), Wish.of("sad", 5, seed=1)
    assert not opened
    first, again = (next(voice.pieces([wish], SAMPLE)) for _ in range(2))
    assert is_same(first, again)
    assert not is_same(first, next(voice.pieces([wish], SAMPLE.model_copy(update={"top_p": 0.2}))))
    assert len(opened) == 1
