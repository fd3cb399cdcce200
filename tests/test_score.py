"""Scores: what a performance looks like on paper, and files that MusicXML's own schema accepts."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from emogen.composing.form import compose
from emogen.composing.piece import Piece
from emogen.errors import EmogenError
from emogen.music.chart import Chart
from emogen.music.notes import Piece as Notes
from emogen.music.score import VALUES, key_signature, musicxml, snapped, spelt, values, voice
from tests.charts import played, steady
from tests.music import random_piece
from tests.test_form import BARS

partitura = pytest.importorskip("partitura", reason="partitura writes the scores")


def chart_of(seconds: float) -> Chart:
    return compose(seconds, 0, True, BARS, np.random.default_rng(0)).chart


def is_valid(data: bytes) -> bool:
    import xmlschema

    schema = xmlschema.XMLSchema(str(Path(partitura.__file__).parent / "assets" / "musicxml.xsd"))
    schema.validate(io.BytesIO(data))
    return True


@pytest.mark.filterwarnings("ignore:ignoring empty <harmony>:UserWarning")  # partitura's, at its own reading
def test_music_on_the_beat_is_written_note_for_note(tmp_path: Path) -> None:
    piece = Piece(*played(steady(100, 17)).columns)
    piece.save(tmp_path / "x.musicxml")
    found = partitura.load_score(str(tmp_path / "x.musicxml")).note_array()
    at = np.rint(piece.chart.beat_at(piece.onset_ms) * 2).astype(int) * 6
    written = zip(found["onset_div"].tolist(), found["pitch"].tolist(), strict=True)
    assert sorted(written) == sorted(zip(at.tolist(), piece.pitch.tolist(), strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_any_piece_has_a_score_that_the_schema_accepts(seed: int) -> None:
    piece = random_piece(seed, 120)
    data = musicxml(piece, chart_of(piece.end_ms / 1000 + 1), 'a "title" & <more>')
    assert is_valid(data)
    assert b"a &quot;title&quot;" in data or b'a "title" &amp; &lt;more&gt;' in data
    assert b"<kind" in data


@pytest.mark.parametrize(
    ("onsets", "written"),
    [([0, 250, 500, 750], [0, 3, 6, 9]), ([0, 330, 670], [0, 4, 8]), ([20, 490, 1010], [0, 6, 12])],
)
def test_onsets_are_snapped_to_sixteenths_or_triplets(onsets: list[int], written: list[int]) -> None:
    beats = np.arange(9) * 1000
    zero = np.zeros(9, np.int8)
    chart = Chart(beats, (np.arange(9) % 4).astype(np.int8), zero, zero, zero)
    piece = Notes.of(onsets, [60 + n for n in range(len(onsets))], [60] * len(onsets), [200] * len(onsets))
    at, until = snapped(piece, chart)
    assert at.tolist() == written
    assert (until > at).all()


def test_every_stretch_is_made_of_note_values_within_bars() -> None:
    bars = [0, 48, 96, 144]
    for start in (0, 3, 4, 6, 20, 45):
        for end in (start + 1, 57, 100, 144):
            end = end // 12 * 12 if end > start + 12 else start // 12 * 12 + 12
            if end <= start:
                continue
            parts = list(values(start, end, bars))
            assert parts[0][0] == start
            assert parts[-1][1] == end
            assert all(b - a in VALUES for a, b in parts), parts
            assert all(a // 48 == (b - 1) // 48 for a, b in parts)


def test_a_hand_is_chords_and_rests_one_after_the_other() -> None:
    at, until, pitch = np.array([12, 12, 24]), np.array([15, 18, 48]), np.array([60, 64, 67])
    assert list(voice(at, until, pitch, 96)) == [(0, 12, ()), (12, 24, (60, 64)), (24, 48, (67,)), (48, 96, ())]


@pytest.mark.parametrize(
    ("key", "pitch", "names"),
    [
        ("C major", 61, "C1"),
        ("Eb major", 63, "E-1"),
        ("A minor", 68, "G1"),
        ("D major", 66, "F1"),
        ("F major", 70, "B-1"),
    ],
)
def test_notes_are_spelt_in_their_key(key: str, pitch: int, names: str) -> None:
    step, alter, octave = spelt(pitch, key_signature(key)[0])
    assert f"{step}{alter}" == names
    assert octave == 4


def test_what_is_missing_for_a_score_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EmogenError, match="a score has bars"):
        Piece.of([0], [60], [60], [100]).save(tmp_path / "x.musicxml")
    monkeypatch.setitem(sys.modules, "partitura", None)
    with pytest.raises(EmogenError, match="partitura, which is not installed") as refused:
        Piece(*played(steady(100, 17)).columns).save(tmp_path / "x.musicxml")
    assert "pip install" in refused.value.hint
    assert not list(tmp_path.iterdir())
