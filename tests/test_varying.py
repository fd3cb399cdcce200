"""Variations, extensions, loops and openings: what is given stays, what is new follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emogen
from emogen.composing import varying
from emogen.composing.form import compose, continued
from emogen.composing.legs import turned
from emogen.composing.piece import Piece, sound_of
from emogen.composing.rules import resembled
from emogen.composing.voice import Voice
from emogen.errors import UsageError
from emogen.music.chart import Chart
from emogen.music.notes import Piece as Notes
from emogen.music.tokens import COLUMN, DURATION_MS, SHIFT_MS
from emogen.sound.render import Sound, folded
from tests import tiny
from tests.charts import played, steady
from tests.conftest import Run
from tests.test_form import BARS


@pytest.fixture(scope="module")
def voice() -> Voice:
    return emogen.load()


@pytest.fixture(scope="module")
def piece(voice: Voice) -> Piece:
    return voice.compose("happy", 12, seed=3, form="AB", tempo=96)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Piece:
    """Music from elsewhere: no manifest, no bars."""
    return Piece(*played(steady(100, 25), jitter_ms=5).columns)


def kept(before: Notes, after: Notes) -> float:
    """The share of notes that are there again, within 50 ms."""
    here = [
        ((np.abs(after.onset_ms - onset) <= 50) & (after.pitch == pitch)).any()
        for onset, pitch in zip(before.onset_ms.tolist(), before.pitch.tolist(), strict=True)
    ]
    return float(np.mean(here))


def test_the_greater_the_amount_the_less_is_kept_and_bars_and_length_stay(voice: Voice, piece: Piece) -> None:
    found = {amount: voice.vary(piece, amount=amount, seed=5) for amount in (0.0, 0.1, 0.5, 1.0)}
    assert found[0.0] == piece
    shares = [kept(piece, one) for one in found.values()]
    assert shares[1] > 0.9
    assert shares[1] > shares[2] > shares[3]
    assert {one.seconds for one in found.values()} == {12.0}
    assert {tuple(one.chart.lines()) for one in found.values()} == {tuple(piece.chart.lines())}
    made = found[0.5].made_by or {}
    assert (made["seed"], made["varied"]["amount"], made["varied"]["of"]) == (5, 0.5, 3)


@pytest.mark.parametrize("window", [(0.0, 4.0), (4.0, 7.5), (8.0, 12.0)])
def test_outside_of_a_part_every_note_stays_as_it_is(voice: Voice, piece: Piece, window: tuple[float, float]) -> None:
    varied = voice.vary(piece, amount=1, start=window[0], end=window[1], seed=1)
    part = round(window[0] * 1000), round(window[1] * 1000)
    assert varying.outside(varied, part) == varying.outside(piece, part)
    assert varied != piece
    assert varied.seconds == piece.seconds


def test_a_section_is_composed_again_where_it_is(voice: Voice, piece: Piece) -> None:
    (part,) = varying.windows(piece, "b")
    assert piece.chart.letters[0] == "A"
    varied = voice.vary(piece, amount=1, section="B", seed=2)
    assert varying.outside(varied, part) == varying.outside(piece, part)
    assert len(varied.crop(*part))
    assert varied != piece


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"section": "Z"}, "no section 'Z'"),
        ({"section": "A", "start": 1}, "a section has its own times"),
        ({"start": 5, "end": 13}, "from 5 to 13 s is not a part of a piece of 12 s"),
        ({"start": 5, "end": 5}, "from 5 to 5 s is not a part"),
        ({"start": -1}, "from -1 is out of range"),
    ],
)
def test_parts_that_are_not_there_are_refused(given: dict[str, Any], told: str, piece: Piece) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        varying.windows(piece, **given)
    assert refused.value.hint


def test_music_from_elsewhere_is_varied_on_the_bars_that_are_heard_in_it(voice: Voice, foreign: Piece) -> None:
    varied = voice.vary(foreign, amount=0.5, seed=1)
    assert varied.seconds == foreign.seconds
    assert varied.chart.letters == foreign.chart.letters
    assert kept(foreign, varied) > 0.3
    assert (varied.made_by or {})["emogen"]


def test_a_path_of_feelings_is_kept(voice: Voice) -> None:
    led = voice.compose([(0, "angry"), (8, "calm")], 16, seed=1, cut=True)
    wish = varying.wish_like(led, led.seconds, charted=True)
    assert [(one.at_s, one.emotion) for one in wish.passages] == [(0, {"angry": 1}), (8, {"calm": 1})]
    assert (wish.change, wish.pins) == ("cut", {})
    assert (voice.vary(led, amount=1, seed=2).made_by or {})["passages"]
    sad = {"sad": 1}
    for odd in ([], [[0, sad], [9, {"x": 1}]], [[5, sad]], "x", None, [[0, sad], [99, sad]]):
        strange = Piece(*led.columns, made_by={"emogen": 1, "emotion": {"sad": 1}, "passages": odd, "change": []})
        assert not varying.wish_like(strange, led.seconds, charted=False).passages


def test_a_voice_without_charts_varies_and_extends_too(piece: Piece, tmp_path: Path) -> None:
    plain = tiny.voice(tmp_path)
    assert plain.vary(piece, seed=1).seconds == piece.seconds
    assert plain.vary(piece, start=3, end=6, seed=1).seconds == piece.seconds
    assert plain.extend(piece, 15, seed=1).seconds == 15
    assert plain.compose("sad", 6, seed=1, loop=True).seconds == 6


def test_an_extension_begins_with_every_note_and_ends_on_time(voice: Voice, foreign: Piece) -> None:
    longer = voice.extend(foreign, 20, seed=1)
    assert longer.seconds == 20
    start = Notes(*(column[: len(foreign)] for column in longer.columns))
    assert start == foreign
    assert longer.onset_ms[len(foreign)] >= foreign.onset_ms[-1]
    assert longer.chart.beats_ms[-1] == 20_000


def test_an_opening_comes_back_exactly_though_its_keys_are_wanted_again(voice: Voice) -> None:
    held = Notes.of([0, 500, 600, 1000], [48, 60, 64, 67], [101, 33, 64, 7], [6000, 5000, 123, 4321])
    piece = voice.compose("angry", 12, seed=2, prime=held)
    start = Notes(*(column[:4] for column in piece.columns))
    assert start == held
    assert len(piece) > 10
    assert piece.seconds == 12


def test_a_part_of_an_opening_keeps_its_lengths() -> None:
    music = Notes.of([0, 1000, 2000, 3000], [60, 62, 64, 65], [50] * 4, [500, 5000, 500, 500])
    assert varying.part(music, 1, 2.5) == Notes.of([0, 1000], [62, 64], [50] * 2, [5000, 500])
    for start, end in ((2, 1), (0, 7), (0.1, 0.9)):
        with pytest.raises(UsageError):
            varying.part(music, start, end)


def test_a_loop_leads_to_its_first_chord_and_nothing_rings_over_the_seam(voice: Voice) -> None:
    loop = voice.compose("calm", 10, seed=1, loop=True)
    chart = loop.chart
    assert (chart.root[-2] - chart.root[chart.root >= 0][0]) % 12 == 7
    assert chart.names()[-2].endswith("7")
    assert loop.seconds == 10
    assert loop.onset_ms[-1] > 8000
    assert (loop.made_by or {})["loop"]


def test_a_chart_without_chords_has_nothing_to_turn() -> None:
    assert not len(turned(Chart.none()))


def test_what_rings_after_a_loop_is_heard_at_its_beginning() -> None:
    samples = np.zeros((250, 2), np.float32)
    samples[:100], samples[100:200], samples[200:] = 0.1, 0.2, 0.05
    found = folded(Sound(samples, 1000), 100).samples
    assert found.shape == (100, 2)
    np.testing.assert_allclose(found[:50], 0.35, atol=1e-6)
    np.testing.assert_allclose(found[50:], 0.3, atol=1e-6)


@pytest.mark.parametrize("seconds", [31.0, 40.0, 75.5])
def test_a_chart_goes_on_in_whole_bars_until_the_end(seconds: float) -> None:
    chart = compose(30, 0, True, BARS, np.random.default_rng(0)).chart
    longer = continued(chart, seconds)
    assert longer.beats_ms[-1] == seconds * 1000
    assert (np.diff(longer.beats_ms) > 0).all()
    count = len(chart) - 1
    np.testing.assert_array_equal(longer.beats_ms[:count], chart.beats_ms[:count])
    assert longer.lines(100)[0].startswith(chart.lines(100)[0].rpartition(" | ")[0])
    assert {len(getattr(longer, name)) for name in ("place", "root", "quality", "section")} == {len(longer)}
    assert longer.place[-1] == 0


def test_what_other_music_would_play_next_is_found_note_by_note() -> None:
    like = Notes.of([0, 0, 500], [60, 64, 67], [40, 80, 100], [500, 500, 250])
    nothing = np.zeros(4, dtype=np.int64)

    def ids(family: int, onset_ms: int, landing_ms: int, last: int, note: Any = nothing) -> list[int]:
        return resembled(like, family, onset_ms, landing_ms, last, note).tolist()

    assert ids(COLUMN.shift, 0, 0, 60 - 21) == [0]  # the chord goes on
    assert SHIFT_MS[ids(COLUMN.shift, 0, 0, 64 - 21)] == [500]
    assert ids(COLUMN.shift, 500, 500, 67 - 21) == []
    assert ids(COLUMN.pitch, 0, 0, 60 - 21) == [64 - 21]
    assert ids(COLUMN.pitch, 0, 500, 64 - 21, np.array([50, 0, 0, 0])) == [67 - 21]
    struck = np.array([50, 67 - 21, 0, 0])
    assert ids(COLUMN.velocity, 0, 500, 64 - 21, struck) == [25]
    assert DURATION_MS[ids(COLUMN.duration, 0, 500, 64 - 21, struck)] == [250]


def test_the_commands_write_what_python_composes_and_nothing_where_it_cannot_be(
    run: Run, voice: Voice, piece: Piece
) -> None:
    piece.save("p.mid")
    assert run("vary", "p.mid", "--amount", "0.3", "--from", "0:04", "--to", "0:08", "--seed", "7")[0] == 0
    assert Piece.read("p_vary_seed7.mid") == voice.vary("p.mid", amount=0.3, start=4, end=8, seed=7)
    code, _, err = run("extend", "p.mid", "--seconds", "0:20", "--seed", "7")
    assert code == 0
    assert err.splitlines()[-1] == "next: emogen play p_20s_seed7.mid"
    assert Piece.read("p_20s_seed7.mid") == voice.extend(piece, 20, seed=7)
    there = sorted(Path().iterdir())
    for words, told in (
        (("vary", "p.mid", "--section", "Z"), "no section 'Z'"),
        (("vary", "p.mid", "--from", "0:10", "--to", "0:30"), "is not a part"),
        (("vary", "p.mid", "--amount", "2"), "--amount 2 is out of range"),
        (("extend", "p.mid", "--seconds", "8"), "lasts 12.0 s of the 8 s"),
        (("generate", "-e", "sad", "--prime-to", "5"), "are of a --prime"),
        (("generate", "-e", "sad", "--prime", "p.mid", "--prime-to", "1:00"), "is not a part"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (2, ""), words
        assert told in err
        assert "hint: " in err
    assert sorted(Path().iterdir()) == there
    code, _, _ = run("generate", "-e", "sad", "-s", "8", "--prime", "p.mid", "--prime-to", "0:03", "-o", "q.mid")
    opening = varying.part(piece, None, 3.0)
    assert Notes(*(column[: len(opening)] for column in Piece.read("q.mid").columns)) == opening


def test_the_sound_of_a_loop_is_as_long_as_it_and_has_its_tail_at_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def audio(piece: Notes, soundfont: Path | None, **how: bool) -> Sound:
        asked.append(how)
        return Sound(np.full((15, 1), 0.1, np.float32), 10)

    monkeypatch.setattr("emogen.sound.render.audio", audio)
    loop = Piece.of([0], [60], [60], [1000])
    once = sound_of(loop).samples
    round_ = sound_of(Piece(*loop.columns, made_by={"loop": True})).samples
    assert [how["tail"] for how in asked] == [False, True]
    assert (len(once), len(round_)) == (15, 10)
    np.testing.assert_allclose(round_[:, 0], [0.2] * 5 + [0.1] * 5, atol=1e-6)
