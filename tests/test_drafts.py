from __future__ import annotations

import numpy as np
import pytest

from emogen.composing.drafts import LAST_STRIKE_MS, RING_MS, ROOM, Drafts, ring
from emogen.music.notes import Piece
from emogen.music.tokens import COLUMN, DURATION_MS, NO_NOTE, SHIFT_MS, SIZES
from tests.drafting import PLANS, random_notes, strike, wish
from tests.music import is_same


def test_the_clock_of_what_is_drawn_goes_on_from_the_last_chord_of_the_opening() -> None:
    opening = Piece.of([1234, 12_003, 12_030], [60, 64, 67], [60, 61, 62], [900, 500, 200])
    drafts = Drafts([wish(60)], PLANS, opening)
    assert drafts.onset_ms.tolist() == [12_003]
    assert drafts.remaining_s[0, : drafts.length].tolist() == pytest.approx([60, 58.766, 47.997, 47.997])
    strike(drafts, np.array([[0, 80, 10, 10], [10, 20, 10, 10]], dtype=np.uint8))
    piece = drafts.piece(0)
    assert piece.pitch.tolist() == [60, 64, 101, 67, 41]
    assert piece.onset_ms.tolist() == [1234, 12_003, 12_003, 12_030, 12_103]
    assert piece.velocity[[0, 1, 3]].tolist() == [60, 61, 62]
    assert piece.duration_ms[[0, 1, 3]].tolist() == [900, 500, 200]


def test_an_opening_after_which_nothing_is_drawn_rings_to_the_end() -> None:
    opening = Piece.of([0, 500], [60, 64], [60, 61], [900, 300])
    assert Drafts([wish(5)], PLANS, opening).piece(0).duration_ms.tolist() == [5000, 4500]


def test_drafts_remember_every_note_and_its_time_however_many_there_are() -> None:
    drafts, notes = Drafts([wish(600), wish(500, 1)], PLANS), random_notes(600)
    strike(drafts, notes)
    onset_ms = SHIFT_MS[notes[:, COLUMN.shift]].cumsum()
    for row, seconds in enumerate((600, 500)):
        assert np.array_equal(drafts.notes[row, 1 : drafts.length], notes)
        assert drafts.remaining_s[row, 1 : drafts.length] == pytest.approx(seconds - onset_ms / 1000, abs=1e-4)
    assert drafts.notes[:, 0].tolist() == [list(NO_NOTE)] * 2


def test_the_last_sound_rings_to_the_end_and_no_other() -> None:
    loose = Piece.of([0, 900, 900, 1000], [60, 64, 67, 72], [64] * 4, [1649, 750, 1000, 700])
    piece = ring(loose, 10_000)
    assert RING_MS == 250
    assert (piece.onset_ms + piece.duration_ms).tolist() == [1649, 10_000, 10_000, 10_000]
    assert piece.onset_ms.tolist() == loose.onset_ms.tolist()


def test_what_sounds_beyond_the_end_is_released_there_and_what_ends_there_is_left_alone() -> None:
    exact = Piece.of([0, 500, 900], [60, 64, 67], [64, 70, 80], [800, 100, 9100])
    assert is_same(ring(exact, 10_000), exact)
    assert is_same(ring(Piece.of([0, 500, 900], [60, 64, 67], [64, 70, 80], [800, 100, 9800]), 10_000), exact)


def test_every_size_of_id_fits_the_bytes_it_is_kept_in() -> None:
    assert max(SIZES) < 256


def test_a_note_struck_again_counts_as_long_as_it_was_held() -> None:
    drafts = Drafts([wish(30)], PLANS)
    long = int(np.flatnonzero(DURATION_MS >= 4000)[0])
    for pitch, shift in ((40, 10), (44, 10), (40, 20)):  # the first key again after the shifts of two notes
        note = np.array([[shift, pitch, 20, long]])
        drafts.add(note, SHIFT_MS[note[:, COLUMN.shift]])
    held_ms = SHIFT_MS[10] + SHIFT_MS[20]
    assert abs(DURATION_MS[drafts.held[0, 1]] - held_ms) <= held_ms * 0.05
    assert drafts.held[0, 2:4].tolist() == [long, long]
    assert drafts.notes[0, 1:4, COLUMN.duration].tolist() == [long] * 3  # the network goes on from what it drew


def test_what_is_kept_for_each_draft_is_named_and_nothing_else_is_cut() -> None:
    drafts = Drafts([wish(60, seed) for seed in range(3)], PLANS)
    strike(drafts, random_notes(3))
    drafts.steer()
    for holder in (drafts, drafts.steering):
        arrays = {name for name, value in vars(holder).items() if isinstance(value, np.ndarray)}
        assert arrays == set(holder.BY_ROW)
        vars(holder)["table"] = np.arange(7)
    rows = {name: getattr(drafts, name).copy() for name in drafts.BY_ROW}
    plans = {name: getattr(drafts.steering, name).copy() for name in drafts.steering.BY_ROW}
    rngs, wishes = list(drafts.rngs), list(drafts.steering.wishes)
    drafts.keep(np.array([0, 2]))
    assert len(drafts) == 2
    for holder, before in ((drafts, rows), (drafts.steering, plans)):
        assert vars(holder)["table"].tolist() == list(range(7))
        for name, value in before.items():
            assert np.array_equal(getattr(holder, name), value[[0, 2]], equal_nan=value.dtype.kind == "f"), name
    assert drafts.rngs == rngs[::2]
    assert drafts.steering.wishes == wishes[::2]


@pytest.mark.parametrize(("left_ms", "shift_ms", "ends"), [(1000, 750, False), (1000, 760, True), (240, 0, True)])
def test_a_shift_ends_a_piece_where_no_time_is_left_for_a_sound(left_ms: int, shift_ms: int, ends: bool) -> None:
    assert LAST_STRIKE_MS == 250
    drafts = Drafts([wish(60), wish(600)], PLANS)
    drafts.onset_ms[0] = 60_000 - left_ms
    assert drafts.ends(np.array([shift_ms])).tolist() == [[ends], [False]]


def test_there_is_room_for_more_notes_than_there_was_at_first() -> None:
    drafts = Drafts([wish(600)], PLANS)
    notes = np.zeros((ROOM + 5, 4), dtype=np.uint8)
    notes[:, COLUMN.pitch] = np.arange(len(notes)) % 88
    strike(drafts, notes)
    assert np.array_equal(drafts.notes[0, 1 : drafts.length], notes)
