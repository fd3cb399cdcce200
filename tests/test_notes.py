from __future__ import annotations

import numpy as np
import pytest

from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Ints, Piece

Rows = list[tuple[int, int, int, int]]


def rows(piece: Piece) -> Rows:
    """(onset, pitch, velocity, duration) of each note."""
    columns = (piece.onset_ms, piece.pitch, piece.velocity, piece.duration_ms)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def piece(*notes: tuple[int, int, int, int]) -> Piece:
    return Piece.of(*np.array(notes).reshape(-1, 4).T)


def loose_notes(seed: int, count: int = 400) -> tuple[Ints, Ints, Ints, Ints]:
    """Notes in no order on a few keys, many of which overlap or begin together."""
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 2000, count),
        rng.integers(60, 70, count),
        rng.integers(1, 128, count),
        rng.integers(1, 500, count),
    )


def test_notes_are_sorted_by_onset_then_pitch() -> None:
    assert rows(piece((50, 60, 1, 9), (0, 64, 2, 9), (0, 60, 3, 9))) == [(0, 60, 3, 9), (0, 64, 2, 9), (50, 60, 1, 9)]


def test_a_note_ends_where_its_key_is_struck_again() -> None:
    assert rows(piece((0, 60, 1, 500), (0, 62, 2, 500), (200, 60, 3, 100))) == [
        (0, 60, 1, 200),
        (0, 62, 2, 500),
        (200, 60, 3, 100),
    ]


def test_of_notes_of_one_key_and_onset_the_longest_stays() -> None:
    assert rows(piece((0, 60, 1, 100), (0, 60, 2, 300), (0, 60, 3, 200), (250, 60, 4, 10))) == [
        (0, 60, 2, 250),
        (250, 60, 4, 10),
    ]


def test_a_note_lasts_a_millisecond_at_least() -> None:
    assert rows(piece((0, 60, 1, 0), (5, 61, 1, -3))) == [(0, 60, 1, 1), (5, 61, 1, 1)]


@pytest.mark.parametrize("seed", range(5))
def test_no_two_notes_of_one_key_sound_at_once_and_no_struck_key_is_lost(seed: int) -> None:
    onset, pitch, velocity, duration = loose_notes(seed)
    made = Piece.of(onset, pitch, velocity, duration)
    assert sorted(zip(made.onset_ms, made.pitch, strict=True)) == sorted(set(zip(onset, pitch, strict=True)))
    for key in range(60, 70):
        own = made.pitch == key
        assert (made.onset_ms[own][1:] >= (made.onset_ms + made.duration_ms)[own][:-1]).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_loose_notes_come_does_not_matter(seed: int) -> None:
    notes = np.stack(loose_notes(seed))
    shuffled = np.random.default_rng(seed).permutation(notes, axis=1)
    assert rows(Piece.of(*shuffled)) == rows(Piece.of(*notes))


def test_the_order_does_not_matter_either_where_notes_differ_in_loudness_alone() -> None:
    assert rows(piece((0, 60, 10, 100), (0, 60, 20, 100))) == rows(piece((0, 60, 20, 100), (0, 60, 10, 100)))


def test_a_piece_made_of_a_piece_is_the_same() -> None:
    made = Piece.of(*loose_notes(0))
    assert rows(Piece.of(made.onset_ms, made.pitch, made.velocity, made.duration_ms)) == rows(made)


def test_a_piece_ends_with_its_last_release() -> None:
    assert piece((0, 60, 1, 900), (500, 62, 1, 100)).end_ms == 900


def test_transposing_moves_the_pitch_alone() -> None:
    assert rows(piece((0, 60, 1, 9), (7, 64, 2, 9)).transpose(-3)) == [(0, 57, 1, 9), (7, 61, 2, 9)]


def test_stretching_moves_onsets_and_releases_alike() -> None:
    assert rows(piece((0, 60, 1, 105), (101, 62, 2, 201)).stretch(1.5)) == [(0, 60, 1, 158), (152, 62, 2, 301)]


def test_a_stretched_piece_ends_at_its_length_times_the_factor() -> None:
    made = Piece.of(*loose_notes(0))
    for factor in (0.5, 0.98, 1.02, 2.0):
        assert abs(made.stretch(factor).end_ms - made.end_ms * factor) <= 0.5


def test_pressing_notes_of_one_key_onto_one_millisecond_leaves_a_single_note() -> None:
    assert rows(piece((1000, 60, 1, 1), (1001, 60, 2, 40)).stretch(0.1)) == [(100, 60, 2, 4)]


def test_a_crop_holds_what_is_struck_inside_and_ends_it_there() -> None:
    whole = piece((99, 60, 1, 50), (100, 62, 2, 50), (150, 64, 3, 50), (199, 65, 4, 1), (200, 67, 5, 9))
    assert rows(whole.crop(100, 200)) == [(0, 62, 2, 50), (50, 64, 3, 50), (99, 65, 4, 1)]
    assert rows(whole.crop(100, 170)) == [(0, 62, 2, 50), (50, 64, 3, 20)]


def test_a_piece_without_notes_can_be_changed_like_any_other() -> None:
    empty = piece()
    assert (len(empty), empty.end_ms) == (0, 0)
    assert [len(other) for other in (empty.transpose(2), empty.stretch(2.0), empty.crop(0, 100))] == [0, 0, 0]
    assert empty.onset_ms.dtype == np.int64


def test_changing_a_piece_leaves_the_one_it_came_from() -> None:
    made = Piece.of(*loose_notes(0))
    before = rows(made)
    made.transpose(5)
    made.stretch(0.5)
    made.crop(0, 1000)
    assert rows(made) == before


def test_a_piano_has_88_keys() -> None:
    assert HIGHEST_KEY - LOWEST_KEY + 1 == 88
