from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from emogen.music.recall import BUCKET, BUCKETS, LONGEST, Recall, matches


def matches_slowly(pitch: list[int]) -> tuple[list[int], list[int]]:
    """The longest earlier match of each note by trying all of them; of equally long ones the latest."""
    ends, lengths = [], []
    for note in range(len(pitch)):
        best, best_end = 0, -1
        for end in range(note):
            length = 0
            while length < LONGEST and length <= end and pitch[end - length] == pitch[note - length]:
                length += 1
            if length and length >= best:
                best, best_end = length, end
        ends.append(best_end)
        lengths.append(best)
    return ends, lengths


def melody(kind: str) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(0)
    tune = rng.integers(0, 88, 60)
    return {
        "nothing": np.zeros(0, dtype=np.int64),
        "one note": np.array([40]),
        "one key": np.full(50, 40),
        "few keys": rng.integers(0, 4, 120),
        "a tune that returns": np.concatenate([tune, rng.integers(0, 88, 9), tune, tune[:30]]),
    }[kind]


KINDS = ("nothing", "one note", "one key", "few keys", "a tune that returns")


@pytest.mark.parametrize("kind", KINDS)
def test_matches_are_those_found_by_trying_all(kind: str) -> None:
    pitch = melody(kind)
    end, length = matches(pitch)
    assert (end.tolist(), length.tolist()) == matches_slowly(pitch.tolist())


def test_a_tune_that_returns_is_matched_to_its_first_time() -> None:
    end, length = matches(melody("a tune that returns"))
    assert end[69 + 40] == 40
    assert length[69 + 40] == LONGEST


@pytest.mark.parametrize("kind", KINDS[1:])
def test_pieces_that_grow_find_the_same_matches(kind: str) -> None:
    pitch = melody(kind)
    other = np.roll(pitch, 1)
    expected = [matches(pitch), matches(other)]
    growing = Recall(2)
    for note in range(len(pitch)):
        growing.add(np.array([pitch[note], other[note]]))
        end, length = growing.latest()
        assert end.tolist() == [one[0][note] for one in expected]
        assert length.tolist() == [one[1][note] for one in expected]


def test_a_piece_that_leaves_does_not_disturb_the_others() -> None:
    pitch = melody("few keys")
    growing = Recall(3)
    for note in range(60):
        growing.add(np.array([0, pitch[note], note % 88]))
    growing.keep(np.array([1]))
    for note in range(60, len(pitch)):
        growing.add(pitch[note : note + 1])
    end, length = matches(pitch)
    assert growing.latest()[0].tolist() == [end[-1]]
    assert growing.latest()[1].tolist() == [length[-1]]


def test_longer_pieces_than_the_first_room_are_kept_whole() -> None:
    tune = np.random.default_rng(1).integers(0, 88, 400)
    growing = Recall(1)
    for key in [*tune, *tune[:20]]:
        growing.add(np.array([key]))
    assert [one.tolist() for one in growing.latest()] == [[19], [20]]


def test_lengths_have_thirteen_classes() -> None:
    expected = [*range(9), *4 * [9], *4 * [10], *8 * [11], *8 * [12]]
    assert BUCKET.tolist() == expected
    assert max(expected) + 1 == BUCKETS
