from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emogen.errors import EmogenError
from emogen.music.notes import Piece
from emogen.sound.picture import (
    BLACK_KEY_ROW,
    EMOTION_COLOURS,
    HEIGHT,
    INK,
    PAPER,
    SOFT_TO_LOUD,
    WIDTH,
    Sheet,
    clock,
    density,
    key_range,
    piano_roll,
    time_ticks,
    velocity_colour,
)  # fmt: skip
from emogen.sound.render import write_picture

LEFT, RIGHT, TOP, BOTTOM = 120, WIDTH - 40, 210, HEIGHT - 70
"""Where the roll lies."""
Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def draw(piece: Piece, tmp_path: Path, title: str = "happy, 10 s, seed 1") -> Pixels:
    write_picture(tmp_path / "roll.png", piece, title)
    with Image.open(tmp_path / "roll.png") as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def place(piece: Piece, time_s: float, key: int) -> tuple[int, int]:
    """Row and column of the middle of a key at a time."""
    low, high = key_range(piece)
    x = LEFT + time_s / (piece.end_ms / 1000) * (RIGHT - LEFT)
    y = BOTTOM - (key - low + 0.5) * (BOTTOM - TOP) / (high - low + 1)
    return int(y), int(x)


def close(pixel: object, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.asarray(pixel, dtype=int) - colour).max() <= 3)


PIECE = Piece.of([0, 2000, 6000, 6000], [60, 64, 72, 43], [20, 64, 100, 127], [2000, 2000, 4000, 1000])


def test_a_picture_has_the_size_of_a_slide(tmp_path: Path) -> None:
    assert draw(PIECE, tmp_path).shape == (900, 1600, 3)


@pytest.mark.parametrize("note", range(4))
def test_a_note_is_drawn_at_its_key_and_time_in_the_colour_of_its_velocity(note: int, tmp_path: Path) -> None:
    pixels = draw(PIECE, tmp_path)
    begin, key = PIECE.onset_ms[note] / 1000, int(PIECE.pitch[note])
    end = begin + PIECE.duration_ms[note] / 1000
    colour = velocity_colour(int(PIECE.velocity[note]))
    for time_s in (begin + 0.05, begin + 0.55, end - 0.05):
        assert close(pixels[place(PIECE, time_s, key)], colour)
    for time_s, other in ((begin - 0.1, key), (end + 0.1, key), (begin + 0.55, key + 1), (end - 0.1, key - 1)):
        if 0 <= time_s < 10:
            seen = pixels[place(PIECE, time_s, other)]
            assert close(seen, PAPER) or close(seen, BLACK_KEY_ROW)


def test_notes_that_touch_are_told_apart(tmp_path: Path) -> None:
    pixels = draw(Piece.of([0, 5000], [60, 60], [80, 80], [5000, 5000]), tmp_path)
    row, middle = place(Piece.of([0], [60], [80], [10_000]), 5, 60)
    assert any(close(pixels[row, column], PAPER) for column in range(middle - 3, middle + 3))


def test_every_one_of_many_notes_is_seen(tmp_path: Path) -> None:
    keys = np.arange(21, 109)
    piece = Piece.of(np.arange(88) * 40_000, keys, np.full(88, 127), np.full(88, 10))  # an hour of specks
    pixels = draw(piece, tmp_path)
    for at_s, key in zip((piece.onset_ms / 1000).tolist(), keys.tolist(), strict=True):
        row, column = place(piece, at_s, key)
        assert pixels[row, column : column + 2].sum(axis=1).min() < 530


def test_the_title_is_drawn_and_cut_where_it_is_too_long(tmp_path: Path) -> None:
    def inked(title: str) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        return np.flatnonzero((draw(PIECE, tmp_path, title)[:80, :1230] < 100).all(axis=2).any(axis=0))

    short, long = inked("calm"), inked("a very long title " * 30)
    assert short.min() < 60
    assert short.max() < 200
    assert 1000 < long.max() < 1225
    assert (inked("\n\x1b[2J") < 200).any()


def test_octaves_are_marked_on_the_left(tmp_path: Path) -> None:
    pixels = draw(PIECE, tmp_path)
    words = pixels[TOP:BOTTOM, 30:66].min(axis=2) < 160
    for key in (48, 60, 72):
        row, _ = place(PIECE, 0, key)
        assert words[row - TOP - 8 : row - TOP + 8].any()
        assert not words[row - TOP - 60 : row - TOP - 20].any()


def test_black_keys_are_drawn_where_they_are(tmp_path: Path) -> None:
    pixels = draw(PIECE, tmp_path)
    for key in range(48, 60):
        row, _ = place(PIECE, 0, key)
        assert close(pixels[row, LEFT - 35], INK) == (key % 12 in (1, 3, 6, 8, 10))


def test_the_curve_above_is_high_where_there_are_many_notes(tmp_path: Path) -> None:
    onset = np.concatenate([np.arange(0, 10_000, 100), np.arange(10_000, 20_000, 1000)])
    piece = Piece.of(onset, np.resize([60, 62, 64], len(onset)), np.full(len(onset), 80), np.full(len(onset), 90))
    found = density(piece, 100)
    assert found[5:45] == pytest.approx(10, abs=2)
    assert found[55:95] == pytest.approx(1, abs=1)
    pixels = draw(piece, tmp_path)
    shaded = (pixels[92:190] < 250).any(axis=2).sum(axis=0)
    assert shaded[LEFT + 100 : LEFT + 600].min() > 3 * shaded[LEFT + 900 : LEFT + 1400].max()


def test_a_piece_without_notes_has_no_picture() -> None:
    with pytest.raises(EmogenError, match="without notes"):
        piano_roll(Piece.of([], [], [], []), "")


@pytest.mark.parametrize(
    ("pitches", "expected"),
    [([60], (48, 83)), ([21, 108], (21, 108)), ([108], (72, 108)), ([21], (21, 59)), ([50, 70], (36, 71))],
)
def test_whole_octaves_around_the_music_are_drawn(pitches: list[int], expected: tuple[int, int]) -> None:
    low, high = key_range(Piece.of([0] * len(pitches), pitches, [64] * len(pitches), [100] * len(pitches)))
    assert (low, high) == expected


@pytest.mark.parametrize("end_s", [0.05, 1, 9.9, 30, 119, 600, 3_599, 36_000, 1e6, 1e9])
def test_a_time_axis_of_any_length_has_some_marks_and_not_too_many(end_s: float) -> None:
    ticks = time_ticks(end_s)
    assert 1 <= len(ticks) <= 17
    assert ticks[0][0] == 0
    assert ticks[-1][0] <= end_s
    assert len({words for _, words in ticks}) == len(ticks)
    if 1 <= end_s < 1e5:
        assert len(ticks) > 4


def test_times_are_written_as_clocks_write_them() -> None:
    assert [clock(2.5, 30), clock(65, 600), clock(3905, 7200)] == ["2.5", "1:05", "1:05:05"]


def luminance(colour: tuple[int, int, int]) -> float:
    """As WCAG 2 defines it, 0 to 1."""
    parts = np.array(colour) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_louder_is_darker() -> None:
    light = np.array([luminance(velocity_colour(velocity)) for velocity in range(1, 128)])
    assert np.diff(light).max() < 0.002
    assert light[0] > 2 * light[-1]
    assert velocity_colour(1) == SOFT_TO_LOUD[0]
    assert velocity_colour(127) == SOFT_TO_LOUD[-1]


@pytest.mark.parametrize("colour", [*SOFT_TO_LOUD, *EMOTION_COLOURS.values()])
def test_every_colour_is_seen_on_white_and_on_black(colour: tuple[int, int, int]) -> None:
    black = luminance((22, 23, 28))
    assert 1.05 / (luminance(colour) + 0.05) > 3
    assert (luminance(colour) + 0.05) / (black + 0.05) > 3


def test_a_box_is_never_too_small_to_be_seen() -> None:
    sheet = Sheet(10, 10)
    sheet.box(5, 5, 5, 5, INK)
    assert (np.asarray(sheet.image()) < 255).any()
