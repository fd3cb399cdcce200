from __future__ import annotations

import numpy as np
import pytest

from emogen.music import tokens
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Ints, Piece
from emogen.music.tokens import (
    CHORD_MS,
    COLUMN,
    DURATION_MS,
    FAMILIES,
    SHIFT_MS,
    SILENCE,
    SIZES,
    SPREAD_MS,
    VELOCITY,
    Tokens,
    decode,
    encode,
    end_row,
    fingerprint,
    is_note,
    nearest,
    on_grid,
    onsets_ms,
    releases_ms,
)
from tests.music import each_key_once, is_same, random_piece

Note = tuple[int, int, int, int]


def piece(*notes: Note) -> Piece:
    return Piece.of(*np.array(notes).reshape(-1, 4).T)


def chords_of(piece: Piece) -> list[list[Note]]:
    """The chords of a piece as (onset, pitch, velocity, duration), each key once, from bass to top; the slow way."""
    chords: list[list[Note]] = []
    for note in zip(piece.onset_ms, piece.pitch, piece.velocity, piece.duration_ms, strict=True):
        if not chords or note[0] - chords[-1][0][0] > CHORD_MS:
            chords.append([])
        chords[-1].append(note)
    for chord in chords:
        longest = {note[1]: note for note in sorted(chord, key=lambda note: note[3])}
        first = chord[0][0]
        chord[:] = [(first, *longest[key][1:]) for key in sorted(longest)]
    return chords


def slow_and_made(seed: int, chords: int = 300) -> tuple[Ints, Tokens]:
    """A random piece's chords as rows (N, 4) of milliseconds and such, the slow way; and its tokens."""
    made = random_piece(seed, chords)
    return np.array([note for chord in chords_of(made) for note in chord]), encode(made)


def test_each_family_has_its_size_and_fits_a_byte() -> None:
    assert SIZES == (145, 88, 32, 95)
    assert max(SIZES) < 256
    assert (len(SHIFT_MS), HIGHEST_KEY - LOWEST_KEY + 1, len(VELOCITY), len(DURATION_MS)) == SIZES
    assert len(FAMILIES) == len(SIZES) == len(COLUMN)


def test_the_grids_reach_as_far_as_they_say_and_rise() -> None:
    assert (SHIFT_MS[0], SHIFT_MS[100], SHIFT_MS[120], SHIFT_MS[-1]) == (0, 1000, 2000, 8000)
    assert (DURATION_MS[0], DURATION_MS[29], DURATION_MS[-1]) == (10, 300, 16_000)
    assert all((np.diff(grid) > 0).all() for grid in (SHIFT_MS, DURATION_MS, VELOCITY))
    assert (DURATION_MS[30:] / DURATION_MS[29:-1] < 1.065).all()


def test_the_nearest_grid_value_is_found_and_the_lower_one_in_the_middle() -> None:
    values = np.arange(-50, 20_000)
    for grid in (SHIFT_MS, DURATION_MS):
        slow = np.abs(grid - values[:, None]).argmin(axis=1)  # the first of equals
        assert (nearest(grid, values) == slow).all()


@pytest.mark.parametrize("seed", range(5))
def test_each_chord_becomes_one_onset_with_its_keys_from_bass_to_top(seed: int) -> None:
    slow, made = slow_and_made(seed)
    assert made.shape == slow.shape
    assert (made[:, COLUMN.pitch] + LOWEST_KEY == slow[:, 1]).all()
    new_chord = np.diff(slow[:, 0], prepend=-1) > 0
    assert ((made[:, COLUMN.shift] > 0) == new_chord).all()


@pytest.mark.parametrize("seed", range(5))
def test_onsets_are_within_five_milliseconds_of_their_chords_first(seed: int) -> None:
    slow, made = slow_and_made(seed)
    assert np.abs(onsets_ms(made) - slow[:, 0]).max() <= 5


def test_onsets_do_not_drift_in_ten_thousand_notes() -> None:
    slow, made = slow_and_made(0, chords=5000)
    assert len(made) > 10_000
    assert np.abs(onsets_ms(made) - slow[:, 0]).max() <= 5
    regular = piece(*((onset, 60, 64, 100) for onset in range(0, 10_000 * 134, 134)))  # each gap would lose 4 ms
    assert abs(int(onsets_ms(encode(regular))[-1]) - 9_999 * 134) <= 5


@pytest.mark.parametrize("seed", range(5))
def test_each_duration_is_the_nearest_of_its_grid(seed: int) -> None:
    slow, made = slow_and_made(seed)
    missed = np.abs(DURATION_MS[made[:, COLUMN.duration]] - slow[:, 3])
    assert (missed == np.abs(DURATION_MS - slow[:, 3:]).min(axis=1)).all()


@pytest.mark.parametrize("seed", range(5))
def test_each_velocity_is_within_two(seed: int) -> None:
    slow, made = slow_and_made(seed)
    assert np.abs(VELOCITY[made[:, COLUMN.velocity]] - slow[:, 2]).max() == 2


@pytest.mark.parametrize("silence_ms", range(1001, 8000, 77))
def test_what_a_silence_is_off_is_made_up_for_by_a_tenth_of_each_gap_that_follows(silence_ms: int) -> None:
    onsets = np.array([0, *range(silence_ms, silence_ms + 1501, 300)])
    made = onsets_ms(encode(Piece.of(onsets, [60] * 7, [64] * 7, [100] * 7)))
    missed = np.abs(made - onsets)
    assert missed[1] <= (25 if silence_ms <= 2000 else 125)
    assert missed[-1] <= 5
    assert np.abs(np.diff(made[1:]) - 300).max() <= 35


def test_a_rhythm_after_a_silence_keeps_its_shape() -> None:
    onsets = [0, 2130, 2170, 2210, 3410]  # the silence becomes 2250 ms
    made = onsets_ms(encode(Piece.of(onsets, [60] * 5, [64] * 5, [20] * 5)))
    assert made.tolist() == [0, 2250, 2280, 2310, 3410]


def test_a_silence_above_eight_seconds_is_shortened_for_good() -> None:
    made = encode(piece((100, 60, 64, 50), (30_100, 62, 64, 50), (30_500, 64, 64, 50), (60_500, 65, 64, 50)))
    assert onsets_ms(made).tolist() == [100, 8100, 8500, 16_500]


def test_the_first_shift_counts_from_the_beginning() -> None:
    assert encode(piece((730, 60, 64, 50)))[0, COLUMN.shift] == 73
    assert encode(piece((4, 60, 64, 50)))[0, COLUMN.shift] == 0


def test_a_chord_is_what_is_struck_within_the_window_of_its_first_note() -> None:
    made = encode(piece((100, 72, 64, 50), (120, 60, 64, 50), (135, 67, 64, 50), (136, 48, 64, 50), (171, 50, 64, 50)))
    assert (made[:, COLUMN.pitch] + LOWEST_KEY).tolist() == [60, 67, 72, 48, 50]
    assert onsets_ms(made).tolist() == [100, 100, 100, 140, 140]


def test_a_key_struck_twice_in_a_chord_is_one_note_the_longer() -> None:
    made = encode(piece((0, 60, 10, 500), (20, 60, 90, 300), (20, 64, 50, 100)))
    assert made[:, COLUMN.pitch].tolist() == [60 - LOWEST_KEY, 64 - LOWEST_KEY]
    assert (DURATION_MS[made[0, COLUMN.duration]], VELOCITY[made[0, COLUMN.velocity]]) == (300, 90)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_notes_inside_a_chord_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    firsts = rng.integers(100, 900, 50).cumsum()
    keys = [60, 64, 67, 72]
    late_ms = [0, 8, 19, 35]

    def played() -> Tokens:
        onset_ms = [first + late for first in firsts for late in rng.permutation(late_ms)]
        return encode(Piece.of(onset_ms, keys * 50, [10, 20, 30, 40] * 50, [40, 50, 60, 70] * 50))

    assert np.array_equal(played(), played())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("gap_ms", [(CHORD_MS + 11, 1000), (CHORD_MS + 11, 200), (500, 8000)])
def test_what_was_decoded_is_encoded_to_the_same_tokens(seed: int, gap_ms: tuple[int, int]) -> None:
    made = encode(each_key_once(seed, gap_ms))
    again = encode(decode(made))
    assert len(made) == 88
    assert np.array_equal(made, again)


def test_tokens_are_decoded_to_the_middle_of_what_they_mean() -> None:
    some = np.array([[50, 39, 16, 29], [0, 43, 0, 94], [120, 87, 31, 0]], dtype=np.uint8)
    made = decode(some)
    assert made.onset_ms.tolist() == [500, 500, 2500]
    assert made.pitch.tolist() == [60, 64, 108]
    assert made.velocity.tolist() == [66, 2, 126]
    assert made.duration_ms.tolist() == [300, 16_000, 10]
    assert releases_ms(some).tolist() == [800, 16_500, 2510]


def test_a_key_struck_again_ends_its_note_when_decoded() -> None:
    again = np.array([[0, 39, 16, 94], [100, 39, 16, 29]], dtype=np.uint8)
    assert decode(again).duration_ms.tolist() == [1000, 300]


def test_one_seed_spreads_a_piece_in_one_way() -> None:
    some = encode(random_piece(0, 100))
    once, again, other = (decode(some, spread_seed=seed) for seed in (1, 1, 2))
    for column in ("onset_ms", "pitch", "velocity", "duration_ms"):
        assert np.array_equal(getattr(once, column), getattr(again, column))
    assert not np.array_equal(once.onset_ms, other.onset_ms)
    assert not np.array_equal(once.velocity, other.velocity)


def test_the_spread_delays_the_notes_above_a_chords_first_alone_and_keeps_releases() -> None:
    late_ms = []
    for seed in range(20):
        some = encode(each_key_once(seed, (100, 900)))
        plain, spread = decode(some), decode(some, spread_seed=seed)
        by_key, spread_by_key = plain.pitch.argsort(), spread.pitch.argsort()
        release = (plain.onset_ms + plain.duration_ms)[by_key]
        assert np.array_equal((spread.onset_ms + spread.duration_ms)[spread_by_key], release)
        late = spread.onset_ms[spread_by_key] - plain.onset_ms[by_key]
        above = np.isin(plain.pitch[by_key], some[1:][some[1:, COLUMN.shift] == 0][:, COLUMN.pitch] + LOWEST_KEY)
        assert not late[~above].any()
        late_ms += late[above].tolist()
    assert set(late_ms) == set(range(SPREAD_MS + 1))


def test_a_piece_that_begins_at_once_is_not_spread_at_its_first_note() -> None:
    chord = np.array([[0, 39, 16, 29], [0, 43, 16, 29]], dtype=np.uint8)
    spread = [decode(chord, spread_seed=seed).onset_ms.tolist() for seed in range(20)]
    assert {first for first, _ in spread} == {0}
    assert len({second for _, second in spread}) > 2


def test_spread_velocities_stay_in_their_step() -> None:
    loud, soft = (np.tile(np.array([[10, 39, step, 0]], dtype=np.uint8), (400, 1)) for step in (31, 0))
    assert set(decode(loud, spread_seed=0).velocity) == {124, 125, 126, 127}
    assert set(decode(soft, spread_seed=0).velocity) == {1, 2, 3}


def test_a_spread_chord_is_read_as_the_same_chord() -> None:
    for seed in range(20):
        some = encode(each_key_once(seed, (CHORD_MS + 11, 900)))
        again = encode(decode(some, spread_seed=seed))
        assert np.array_equal(some[:, :3], again[:, :3])


def test_a_piece_without_notes_has_no_tokens() -> None:
    none = encode(piece())
    assert none.shape == (0, 4)
    assert none.dtype == np.uint8
    assert (len(decode(none)), len(decode(none, spread_seed=1))) == (0, 0)


def test_tokens_are_bytes() -> None:
    assert encode(random_piece(0, 10)).dtype == np.uint8


@pytest.mark.parametrize("changed", ["SHIFT_MS", "DURATION_MS", "VELOCITY", "CHORD_MS", "LOWEST_KEY"])
def test_the_fingerprint_changes_with_the_meaning_of_a_token(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint()
    monkeypatch.setattr(tokens, changed, getattr(tokens, changed) + 1)
    assert fingerprint() != before


def test_the_fingerprint_is_sixteen_hex_digits_and_always_the_same() -> None:
    assert len(fingerprint()) == 16
    assert int(fingerprint(), 16)
    assert fingerprint() == fingerprint()


# ---- windows


def test_silence_and_ends_are_no_notes_and_every_note_is_one() -> None:
    some = encode(random_piece(0, 50))
    lowest, highest = [[0, 0, 0, 0]], [[size - 1 for size in SIZES]]
    rows = np.concatenate([SILENCE, some, lowest, highest, end_row(100), end_row(1e6), SILENCE])
    assert is_note(rows).tolist() == [False, *[True] * (len(some) + 2), False, False, False]
    windows = np.stack([rows, rows[::-1]])
    assert is_note(windows).shape == windows.shape[:-1]


@pytest.mark.parametrize(
    ("left_ms", "shift_ms"),
    [(0, 0), (0.5, 10), (10, 10), (1000, 1000), (1001, 1050), (7750.1, 8000), (8000, 8000), (60_000, 8000)],
)
def test_an_end_row_leads_to_the_first_place_on_the_grid_that_is_not_before_the_end(
    left_ms: float, shift_ms: int
) -> None:
    ((shift, *rest),) = end_row(left_ms).tolist()
    assert SHIFT_MS[shift] == shift_ms
    assert rest == [88, 32, 95]


def test_a_piece_on_the_grid_has_its_chords_together_and_all_on_the_grid() -> None:
    played = piece((203, 64, 65, 98), (184, 60, 63, 304), (1304, 60, 1, 4))
    once = on_grid(played)
    assert is_same(once, piece((180, 60, 62, 300), (180, 64, 66, 100), (1280, 60, 2, 10)))
    assert is_same(on_grid(once), once)
