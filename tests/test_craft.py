from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from emogen.ear.craft import DISTURBED, KIND, NAMES, craft, disturbed, returns, top_line
from emogen.music.midi import read_piece
from emogen.music.notes import Piece
from emogen.music.tokens import on_grid
from tests.charts import played, steady
from tests.midi_files import EMOPIA, needs_emopia
from tests.music import is_same, random_piece

NOTHING = Piece.of([], [], [], [])
STEADY = on_grid(played(steady(100, 65)))
_KEPT = np.random.default_rng(0).random(len(STEADY)) < 0.6
SONG = Piece(*(column[_KEPT] for column in STEADY.columns))
"""With gaps, so that its rhythm varies."""


def test_music_on_the_beat_has_a_pulse_and_music_at_any_time_has_none() -> None:
    loose = on_grid(random_piece(0, 80, (80, 600)))
    assert craft(SONG).pulse < 2
    assert craft(loose).pulse > 3
    assert craft(disturbed(SONG, "times")).pulse > craft(SONG).pulse + 0.3


def test_what_is_played_again_returns_and_what_never_comes_again_does_not() -> None:
    rng = np.random.default_rng(0)
    onset, pitch = rng.integers(0, 6000, 30), rng.integers(50, 80, 30)
    twice = Piece.of([*onset, *(onset + 8000)], [*pitch, *pitch], [64] * 60, [200] * 60)
    once = Piece.of(rng.integers(0, 14_000, 60), rng.integers(50, 80, 60), [64] * 60, [200] * 60)
    assert returns(on_grid(twice)) > 0.95
    assert returns(on_grid(once)) < 0.6
    assert returns(on_grid(twice).transpose(12)) == pytest.approx(returns(on_grid(twice)))


def test_what_returns_within_four_seconds_is_no_return() -> None:
    rng = np.random.default_rng(1)
    figure = rng.integers(0, 1800, 12), rng.integers(50, 80, 12)
    onset, pitch = np.concatenate([figure[0], figure[0] + 2000]), np.tile(figure[1], 2)
    rest = np.arange(4000, 12_000, 250)
    piece = Piece.of([*onset, *rest], [*pitch, *rng.integers(50, 80, len(rest))], [64] * 56, [200] * 56)
    assert returns(on_grid(piece)) < 0.7


def test_chords_are_counted_by_quality_and_change_once_a_bar() -> None:
    plain = craft(STEADY)
    assert plain.triads > 0.95
    assert plain.chords_per_bar == pytest.approx(1, abs=0.15)
    assert plain.dominants == 0  # Am F C G: a fifth down only from F's fifth C, and that is no tonic's
    cadence = craft(on_grid(played(steady(100, 65), ("C", "G7", "C", "G7"))))
    assert cadence.dominants == pytest.approx(0.5, abs=0.15)
    assert cadence.sevenths > 0.3
    altered = craft(on_grid(played(steady(100, 65), ("C", "Bdim", "C", "Bdim"))))
    assert altered.altered > 0.3
    for one in (plain, cadence, altered):
        assert one.triads + one.sevenths + one.altered + one.suspended == pytest.approx(1)


def test_the_top_line_steps_repeats_and_leaps() -> None:
    top = [72, 74, 74, 79, 78, 66]  # step, repeat, leap, step, leap
    piece = Piece.of([*range(0, 3000, 500)] * 2, [*top, *[48] * 6], [64] * 12, [400] * 12)
    assert top_line(on_grid(piece)).tolist() == top
    found = craft(on_grid(piece))
    assert (found.steps, found.repeats, found.leaps) == (0.4, 0.2, 0.4)


@pytest.mark.parametrize("piece", [NOTHING, Piece.of([0], [60], [64], [500])])
def test_nothing_is_said_of_music_in_which_nothing_happens(piece: Piece) -> None:
    assert np.isnan(astuple(craft(piece))).all()
    for kind in DISTURBED.values():
        assert is_same(disturbed(piece, kind), piece) or len(piece)


@pytest.mark.parametrize("kind", DISTURBED.values())
def test_a_disturbance_is_the_same_each_time_and_keeps_the_notes(kind: str) -> None:
    copy = disturbed(SONG, kind)
    assert is_same(copy, disturbed(SONG, kind))
    assert not is_same(copy, SONG)
    assert len(copy) > 0.95 * len(SONG)
    if kind in ("times", "bars"):
        assert abs(np.bincount(copy.pitch, minlength=128) - np.bincount(SONG.pitch, minlength=128)).sum() < 5
    if kind == "times":
        assert (copy.onset_ms[0], copy.onset_ms[-1]) == (SONG.onset_ms[0], SONG.onset_ms[-1])


def test_an_unknown_disturbance_is_refused() -> None:
    with pytest.raises(ValueError, match="only times, bars, detuned, shuffled"):
        disturbed(SONG, "louder")


@needs_emopia
def test_each_disturbance_moves_its_measures_of_real_clips_by_two_standard_errors() -> None:
    files = sorted((EMOPIA / "midis").glob("Q*_0.mid"))[::12]
    clips = [on_grid(read_piece(file)).crop(0, 30_000) for file in files]
    real = np.array([astuple(craft(clip)) for clip in clips])
    for kind, how in DISTURBED.items():
        own = [index for index, name in enumerate(NAMES) if KIND[name] == kind]
        moved = (np.array([astuple(craft(disturbed(clip, how))) for clip in clips]) - real)[:, own]
        errors = np.nanstd(moved, 0) / np.sqrt((~np.isnan(moved)).sum(0))
        size = np.nanmean(moved, 0) / np.maximum(errors, 1e-9)
        assert np.abs(size).max() > 4, (kind, size)
        main = [own.index(NAMES.index(name)) for name in ("pulse", "returns", "chords_per_bar", "steps", "repeats")
                if KIND[name] == kind]  # fmt: skip
        assert (np.abs(size[main]) > 2).all(), (kind, size)
