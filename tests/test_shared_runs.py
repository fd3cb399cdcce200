from __future__ import annotations

import numpy as np
import pytest

from emogen.data.shared_runs import (
    COPY_NOTES,
    MELODY_MS,
    MELODY_NOTES,
    MELODY_SEMITONES,
    MOST_PLACES,
    Melodies,
    Memory,
    melody,
    melody_runs,
    note_runs,
)
from emogen.music.notes import Ints, Piece
from emogen.music.tokens import COLUMN, Tokens, decode, encode, onsets_ms
from tests.music import corpus_of, random_piece, random_tokens

TRAIN, VALID, TEST = range(3)


def sung(pitch: Ints, gap_ms: int = MELODY_MS + 100) -> Piece:
    """Single notes, each so far from the next that all are melody."""
    return Piece.of(np.arange(len(pitch)) * gap_ms, pitch, np.full(len(pitch), 60), np.full(len(pitch), 200))


def song(seed: int, notes: int = 40) -> Ints:
    """Pitches of a melody in the middle of the piano, whose steps are up to an octave wide."""
    return np.random.default_rng(seed).integers(60, 84, notes)


def music(seed: int, notes: int) -> Tokens:
    return random_tokens(np.random.default_rng(seed), notes)


def figures(seed: int, notes: int) -> Tokens:
    """Music of so few pitches and gaps that its runs come again and again."""
    found = music(seed, notes)
    rng = np.random.default_rng(seed)
    found[:, COLUMN.shift] = np.where(rng.random(notes) < 0.1, 40, 20)
    found[:, COLUMN.pitch] = 40 + (np.arange(notes) + (rng.random(notes) < 0.1).cumsum()) % 3
    return found


def moved(notes: Tokens, family: int, by: int) -> Tokens:
    """The notes with one family's ids moved."""
    changed = notes.copy()
    changed[:, family] += np.uint8(by)
    return changed


def remembered(*clips: Tokens) -> Memory:
    return Memory.training(corpus_of(list(clips), emotion=-1))


# ---- melodies


def test_a_melody_is_found_in_any_key_octave_tempo_and_loudness() -> None:
    known = Melodies.held_out(corpus_of([encode(sung(song(0))), encode(sung(song(1)))], -1, [VALID, TEST]))
    for name, pitch in (("0.mid", song(0)), ("1.mid", song(1))):
        piece = sung(pitch)
        loud = Piece.of(piece.onset_ms, pitch, piece.velocity + 40, piece.duration_ms * 2)
        for other in (piece, piece.transpose(5), piece.transpose(-12), piece.transpose(12), piece.stretch(1.3), loud):
            assert known.find(encode(other)) == name
    assert known.find(encode(sung(song(2)))) == ""


def test_a_melody_is_found_above_another_accompaniment_and_within_a_longer_piece() -> None:
    known = Melodies.held_out(corpus_of([encode(sung(song(0)))], -1, TEST))
    tune = sung(np.concatenate([song(5), song(0)[:MELODY_NOTES], song(6)]))
    low = Piece.of(tune.onset_ms + 250, 60 - song(7, len(tune)) // 3, tune.velocity, tune.duration_ms)
    chords = (np.concatenate([one, two]) for one, two in zip(_columns(tune), _columns(low), strict=True))
    both = encode(Piece.of(*chords))
    assert len(both) == 2 * len(tune)
    assert known.find(both) == "0.mid"


def _columns(piece: Piece) -> tuple[Ints, ...]:
    return piece.onset_ms, piece.pitch, piece.velocity, piece.duration_ms


def test_one_note_less_than_a_run_is_no_melody_in_common() -> None:
    known = Melodies.held_out(corpus_of([encode(sung(song(0)))], -1, TEST))
    for shared, name in ((MELODY_NOTES, "0.mid"), (MELODY_NOTES - 1, "")):
        assert known.find(encode(sung(np.concatenate([song(5), song(0)[:shared], song(6)])))) == name


@pytest.mark.parametrize(
    "pitch",
    [
        np.full(40, 60),
        np.arange(40, 80),
        np.array([60, 62] * 20),
        np.array([60, 64, 67] * 13),
        np.cumsum([40, *[2, 2, 1, 2, 2, 2, 1] * 5]),
        np.concatenate([np.arange(60, 73), np.arange(72, 59, -1)]),
    ],
    ids=["a repeated note", "a chromatic scale", "a trill", "a broken triad", "a major scale", "up and down"],
)
def test_figures_that_anybody_plays_are_no_melody(pitch: Ints) -> None:
    assert len(melody(encode(sung(pitch)))) == len(pitch) > MELODY_NOTES
    assert len(melody_runs(encode(sung(pitch)))) == 0


@pytest.mark.parametrize("notes", [0, 1, MELODY_NOTES - 1, MELODY_NOTES, MELODY_NOTES + 3])
def test_music_of_few_notes_has_as_many_melody_runs_as_fit(notes: int) -> None:
    assert len(melody_runs(encode(sung(song(0, notes))))) == max(0, notes - MELODY_NOTES + 1)


def test_the_melody_is_what_its_rule_says() -> None:
    for seed in range(20):
        notes = encode(random_piece(seed, 60, gap_ms=(40, 400)))
        onset_ms = onsets_ms(notes).tolist()
        tops: dict[int, int] = {}
        for at_ms, key in zip(onset_ms, notes[:, COLUMN.pitch].tolist(), strict=True):
            tops[at_ms] = max(key, tops.get(at_ms, 0))
        slow = [
            key
            for at_ms, key in tops.items()
            if key + MELODY_SEMITONES >= max(near for when, near in tops.items() if abs(when - at_ms) <= MELODY_MS)
        ]
        assert melody(notes).tolist() == slow
        assert 10 < len(slow) < len(tops)


def test_only_valid_and_test_songs_are_held_out() -> None:
    clips = [encode(sung(song(seed))) for seed in range(3)]
    known = Melodies.held_out(corpus_of(clips, -1, [TRAIN, VALID, TEST]))
    assert [known.find(clip) for clip in clips] == ["", "1.mid", "2.mid"]


def test_a_corpus_without_held_out_songs_shares_no_melody() -> None:
    clip = encode(sung(song(0)))
    assert Melodies.held_out(corpus_of([clip], -1, TRAIN)).find(clip) == ""


# ---- runs of notes


@pytest.mark.parametrize("notes", [0, 1, COPY_NOTES - 1, COPY_NOTES, COPY_NOTES + 5])
def test_every_note_that_so_many_follow_begins_a_run(notes: int) -> None:
    assert len(note_runs(music(0, notes))) == max(0, notes - COPY_NOTES + 1)


def test_a_run_is_the_same_in_any_key_loudness_and_articulation() -> None:
    notes = music(0, 200)
    notes[:, 1:] //= 2
    for family, by in ((COLUMN.pitch, 7), (COLUMN.velocity, 9), (COLUMN.duration, 20)):
        assert np.array_equal(note_runs(notes), note_runs(moved(notes, family, by)))


def test_a_run_says_nothing_of_the_notes_around_it() -> None:
    notes = music(0, 100)
    for first, last in ((0, 50), (1, 100), (17, 60), (40, 40 + COPY_NOTES)):
        assert np.array_equal(note_runs(notes[first:last]), note_runs(notes)[first : last - COPY_NOTES + 1])


def test_a_run_of_simple_rhythm_is_the_same_in_any_tempo() -> None:
    rng = np.random.default_rng(0)
    onset_ms = rng.choice([160, 320, 640], 100).cumsum()
    piece = Piece.of(onset_ms, song(0, 100), rng.integers(1, 128, 100), np.full(100, 100))
    for factor in (0.5, 0.7, 0.92, 1.08, 1.37, 2.0):
        assert np.array_equal(note_runs(encode(piece)), note_runs(encode(piece.stretch(factor))))


def test_of_runs_of_free_rhythm_most_stay_in_another_tempo_but_not_all() -> None:
    pieces = [decode(encode(random_piece(seed, 100, gap_ms=(60, 400)))) for seed in range(10)]
    for factor in (0.92, 1.08):
        kept = [remembered(encode(piece)).share(encode(piece.stretch(factor))) for piece in pieces]
        assert 0.7 < np.mean(kept) < 0.99


def test_a_run_with_another_rhythm_or_a_broken_chord_is_another_run() -> None:
    notes = music(0, COPY_NOTES)
    notes[:, COLUMN.shift] = [0, 20, 20, 20, 0, 20, 20, 20, 20, 20, 20, 20]
    for at, shift in ((6, 40), (6, 10), (4, 20), (1, 0)):
        changed = notes.copy()
        changed[at, COLUMN.shift] = shift
        assert note_runs(changed) != note_runs(notes)


def test_a_wrong_note_is_in_as_many_runs_as_a_run_has_notes() -> None:
    notes = music(0, 100)
    wrong = notes.copy()
    wrong[50, COLUMN.pitch] ^= 1
    changed = np.flatnonzero(note_runs(notes) != note_runs(wrong))
    assert changed.tolist() == list(range(50 - COPY_NOTES + 1, 51))


def test_different_runs_have_different_hashes() -> None:
    runs = np.concatenate([note_runs(music(seed, 2000)) for seed in range(10)])
    assert len(np.unique(runs)) == len(runs)


# ---- memory


def test_of_a_piece_all_is_in_a_memory_of_itself_and_of_another_nothing() -> None:
    memory = remembered(music(0, 300), music(1, 300))
    for known in (music(0, 300), music(1, 300)[50:]):
        assert memory.share(known) == 1
    assert memory.share(music(2, 300)) == 0


def test_the_share_is_of_the_runs_of_the_piece() -> None:
    half = np.concatenate([music(0, 300)[100:200], music(1, 100)])
    assert remembered(music(0, 300)).share(half) == (100 - COPY_NOTES + 1) / (200 - COPY_NOTES + 1)
    twice = np.concatenate([music(0, 300)[100:200], music(1, 20), music(0, 300)[100:200]])
    assert remembered(music(0, 300)).share(twice) == 2 * (100 - COPY_NOTES + 1) / (220 - COPY_NOTES + 1)


@pytest.mark.parametrize("notes", [0, 1, COPY_NOTES - 1])
def test_what_is_too_short_for_a_run_is_no_copy(notes: int) -> None:
    memory = remembered(music(0, 300))
    assert memory.share(music(0, 300)[:notes]) == 0
    assert memory.longest(music(0, 300)[:notes]) == (0, -1)


@pytest.mark.parametrize("clips", [[], [music(0, COPY_NOTES - 1)], [music(0, 0), music(1, 3)]])
def test_nothing_is_remembered_of_no_music(clips: list[Tokens]) -> None:
    memory = remembered(*clips)
    assert memory.share(music(0, 100)) == 0
    assert memory.longest(music(0, 100)) == (0, -1)


@pytest.mark.parametrize("notes", [COPY_NOTES, COPY_NOTES + 1, 40, 150])
@pytest.mark.parametrize("clip", [0, 1, 2])
def test_a_planted_copy_is_found_with_its_length_and_its_clip(notes: int, clip: int) -> None:
    clips = [music(seed, 200) for seed in range(3)]
    copied = clips[clip][30 : 30 + notes].copy()
    copied[:, COLUMN.pitch] //= 2  # room for another key
    clips[clip][30 : 30 + notes] = copied
    planted = np.concatenate([music(10, 50), moved(copied, COLUMN.pitch, 9), music(11, 50)])
    assert remembered(*clips).longest(planted) == (notes, clip)


def test_a_copy_one_note_short_of_a_run_is_none() -> None:
    planted = np.concatenate([music(10, 50), music(0, 200)[30 : 30 + COPY_NOTES - 1], music(11, 50)])
    assert remembered(music(0, 200)).longest(planted) == (0, -1)


def test_only_training_clips_are_remembered_under_their_number_in_the_corpus() -> None:
    clips = [music(seed, 100) for seed in range(4)]
    memory = Memory.training(corpus_of(clips, -1, [VALID, TRAIN, TEST, TRAIN]))
    assert [memory.longest(clip) for clip in clips] == [(0, -1), (100, 1), (0, -1), (100, 3)]


def test_stretches_of_two_clips_or_of_two_places_are_not_joined() -> None:
    one, two = music(0, 200), music(1, 200)
    memory = remembered(one, two)
    assert memory.longest(np.concatenate([one[50:80], two[80:120]])) == (40, 1)
    assert memory.longest(np.concatenate([one[50:90], two[90:120]])) == (40, 0)
    assert memory.longest(np.concatenate([one[100:130], one[20:60]])) == (40, 0)
    assert memory.longest(np.concatenate([one[20:60], one[61:91]])) == (40, 0)
    whole, begun, ended = (music(seed, 80) for seed in (2, 3, 4))  # one clip breaks off what the other goes on with
    begun[:40], ended[29:] = whole[:40], whole[29:]
    assert remembered(begun, ended).longest(whole) == (51, 1)


def test_the_longest_stretch_is_the_one_that_comparing_note_by_note_finds() -> None:
    lengths = []
    for seed in range(30):
        clips = [figures(3 * seed, 70), figures(3 * seed + 1, 70)]
        piece = figures(3 * seed + 2, 60)
        own = note_runs(piece)
        best, where = 0, -1
        for number, clip in enumerate(clips):
            theirs = note_runs(clip)
            for i in range(len(own)):
                for j in range(len(theirs)):
                    length = 0
                    while i + length < len(own) and j + length < len(theirs) and own[i + length] == theirs[j + length]:
                        length += 1
                    if length > best:
                        best, where = length, number
        lengths.append(best)
        assert remembered(*clips).longest(piece) == (best + COPY_NOTES - 1 if best else 0, where)
    assert len(set(lengths)) > 5


def test_a_figure_found_everywhere_takes_bounded_time_and_is_told_too_short() -> None:
    figure = np.tile(np.array([[20, 40, 16, 20]], dtype=np.uint8), (5000, 1))
    memory = remembered(figure)
    assert memory.longest(figure) == (MOST_PLACES + COPY_NOTES - 1, 0)
    assert memory.share(figure) == 1
