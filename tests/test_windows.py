from __future__ import annotations

import numpy as np
import pytest

from emogen.ear.windows import chord_starts, windows
from emogen.music.notes import Piece


def beats(seconds: float, from_ms: int = 0) -> Piece:
    """A chord of two notes each quarter of a second, the last one at ``seconds``; velocities count the chords."""
    onset_ms = np.repeat(np.arange(0, round(1000 * seconds) + 1, 250), 2)
    number = onset_ms // 250
    return Piece.of(onset_ms + from_ms, np.tile([60, 64], len(number) // 2), 1 + number, np.full(len(number), 200))


@pytest.mark.parametrize(
    ("seconds", "every_s", "starts_s"),
    [
        (1, 4, [0]),
        (7.75, 4, [0]),
        (8, 4, [0, 0.001]),  # the last onset belongs to a window too
        (11, 4, [0, 3.001]),
        (12, 4, [0, 2.0, 4.001]),
        (20, 8, [0, 6.0, 12.001]),
        (23.75, 8, [0, 7.875, 15.751]),
    ],
)
@pytest.mark.parametrize("from_ms", [0, 2000])
def test_windows_are_evenly_spread_from_the_first_onset_to_the_last(
    seconds: float, every_s: float, starts_s: list[float], from_ms: int
) -> None:
    piece = beats(seconds, from_ms)
    cut = list(windows(piece, 8, every_s))
    assert len(cut) == len(starts_s)
    for window, start_s in zip(cut, starts_s, strict=True):
        first = int(np.ceil(start_s / 0.25))  # the first chord that begins within the window
        assert window.velocity[0] == 1 + first
        assert window.onset_ms[0] == pytest.approx(1000 * (0.25 * first - start_s), abs=1)
        assert window.onset_ms[-1] < 8000
    assert cut[-1].velocity[-1] == piece.velocity[-1]


def test_chords_begin_with_their_lowest_note() -> None:
    piece = Piece.of([0, 0, 0, 500, 900, 900], [60, 64, 67, 62, 55, 59], [64] * 6, [100] * 6)
    assert chord_starts(piece).tolist() == [0, 3, 4]
    assert chord_starts(piece.crop(400, 2000)).tolist() == [0, 1]
