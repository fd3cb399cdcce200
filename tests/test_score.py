"""Scores: what a performance looks like on paper, and files that MusicXML's own schema accepts."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest

import emogen
from emogen.composing.form import compose
from emogen.composing.piece import Piece
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.music.chart import Chart
from emogen.music.midi_bars import in_right_hand
from emogen.music.notes import Piece as Notes
from emogen.music.score import DIVISIONS, VALUES, bars_of, key_signature, musicxml, snapped, spelt, values, voice
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
    other = np.zeros((2, 0), dtype=np.int64)
    assert list(voice(at, until, pitch, 96, (other[0], other[1]))) == [
        (0, 12, ()),
        (12, 24, (60, 64)),
        (24, 48, (67,)),
        (48, 96, ()),
    ]


def test_a_chord_ends_where_the_other_hand_takes_one_of_its_keys_over() -> None:
    at, until, pitch = np.array([0, 0, 24]), np.array([24, 24, 48]), np.array([60, 64, 67])
    other = np.array([0, 6, 9]), np.array([60, 64, 62])
    assert list(voice(at, until, pitch, 48, other)) == [(0, 6, (60, 64)), (6, 24, ()), (24, 48, (67,))]


MUSESCORE = next(filter(None, map(shutil.which, ("musescore3", "mscore3", "musescore", "mscore"))), "")


def struck(file: Path) -> set[tuple[float, int]]:
    """When keys are struck in a MIDI file, in parts of a beat, and which."""
    midi, found = mido.MidiFile(file), set()
    for track in midi.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity:
                found.add((now * DIVISIONS / midi.ticks_per_beat, message.note))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not MUSESCORE, reason="MuseScore, which reads the scores, is missing (Debian: musescore3)")
def test_musescore_reads_every_note_and_every_bar(tmp_path: Path) -> None:
    from lxml import etree

    compose_one = emogen.load().compose
    ways: list[dict[str, Any]] = [{"meter": "3/4", "markers": [4.5]}, {"chords": "Am F C G", "loop": True}]
    cases: list[tuple[Notes, Chart]] = []
    for emotion in EMOTIONS:
        for way in ways:
            piece = compose_one(emotion, 10, seed=3, **way)
            cases.append((piece, piece.chart))
    triplets, beats = random_piece(0, 120), steady(100, 17)
    cases.append((triplets, chart_of(triplets.end_ms / 1000 + 1)))
    pick_up = ((np.arange(len(beats)) + 3) % 4).astype(np.int8)
    zero = np.zeros(len(beats), np.int8)
    cases.append((played(beats), Chart(beats, pick_up, zero, zero, zero)))
    taken_over = Notes.of([0, 0, 0, 600, 1200], [48, 60, 79, 60, 72], [80] * 5, [2400, 2400, 600, 600, 1200])
    assert in_right_hand(taken_over).tolist() == [False, False, True, True, True]
    cases.append((taken_over, chart_of(taken_over.end_ms / 1000 + 1)))
    jobs = []
    for number, (piece, chart) in enumerate(cases):
        (tmp_path / f"{number}.musicxml").write_bytes(musicxml(piece, chart, "a title"))
        for out in (f"{number}.mid", f"{number}.read.musicxml"):
            jobs.append({"in": str(tmp_path / f"{number}.musicxml"), "out": str(tmp_path / out)})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [MUSESCORE, "-j", str(tmp_path / "jobs.json")],
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen", "XDG_DATA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stdout + done.stderr
    for number, (piece, chart) in enumerate(cases):
        at, until = snapped(piece, chart)
        assert struck(tmp_path / f"{number}.mid") == set(zip(at.tolist(), piece.pitch.tolist(), strict=True))
        read = etree.parse(tmp_path / f"{number}.read.musicxml")
        assert len(read.findall("part/measure")) == len(bars_of(chart, int(until.max()))) - 1
    assert etree.parse(tmp_path / "12.read.musicxml").find(".//tuplet") is not None


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
