from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from emogen.cli.terminal_roll import ASCII_HALVES, HALVES, roll
from emogen.errors import EmogenError
from emogen.music.notes import Piece

PIECE = Piece.of([0, 5000], [60, 71], [30, 110], [5000, 5000])


class Window(io.TextIOWrapper):
    """A stream that says whether it is a terminal, and in which encoding it writes."""

    def __init__(self, terminal: bool, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="backslashreplace")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def console(width: int = 80, height: int = 40, terminal: bool = True, encoding: str = "utf-8", **more: Any) -> Console:
    window = Window(terminal, encoding)
    return Console(file=window, width=width, height=height, color_system="truecolor" if terminal else None, **more)


def plain(piece: Piece, on: Console, beside_lines: int = 0) -> list[str]:
    return roll(piece, on, beside_lines).plain.splitlines()


def printed(piece: Piece, on: Console) -> str:
    on.print(roll(piece, on))
    on.file.flush()
    assert isinstance(on.file, Window)
    content = on.file.buffer
    assert isinstance(content, io.BytesIO)
    return content.getvalue().decode(on.encoding)


def test_notes_are_where_their_key_and_time_are() -> None:
    lines = plain(PIECE, console(terminal=False))
    (row,) = [line for line in lines if line.startswith("C4")]
    assert row == "C4  " + "▄" * 36 + " " * 39
    (other,) = [line for line in lines if line.strip(" ▀") == "" and "▀" in line]
    assert other == " " * 41 + "▀" * 37 + " "
    assert lines.index(row) - lines.index(other) == 5  # 60 lies below 61, 71 above 70: five pairs of keys between


def test_a_key_struck_again_is_seen_to_be() -> None:
    lines = plain(Piece.of([0, 5000], [60, 60], [80, 80], [5000, 5000]), console(terminal=False))
    (row,) = [line for line in lines if "▄" in line]
    assert len(row.split("▄ ▄")) == 2


def test_seconds_stand_below() -> None:
    marks = plain(PIECE, console())[-1]
    assert marks.split() == ["0", "2", "4", "6", "8", "s"]
    assert [marks.index(mark) for mark in ["0", "2", "4", "6", "8"]] == [4, 19, 34, 49, 64]


@pytest.mark.parametrize("width", [1, 5, 20, 29, 30, 80, 500])
@pytest.mark.parametrize("height", [1, 10, 24, 100])
def test_it_fits_the_window(width: int, height: int) -> None:
    wide = Piece.of([0, 100], [21, 108], [80, 80], [36_000_000, 100])
    for piece in (PIECE, wide):
        lines = plain(piece, console(width, height), beside_lines=4)
        assert max(map(len, lines)) < max(width, 2)
        assert len(lines) <= max(7, height - 4)


def test_a_narrow_window_has_no_names_of_octaves() -> None:
    assert any("C4" in line for line in plain(PIECE, console(30)))
    assert not any("C" in line for line in plain(PIECE, console(29)))


def test_louder_notes_have_another_colour() -> None:
    out = printed(PIECE, console())
    assert "\x1b[38;2;" in out
    soft, loud = (printed(Piece.of([0], [60], [velocity], [500]), console()) for velocity in (20, 120))
    assert soft != loud


def test_two_keys_of_a_character_have_a_colour_each() -> None:
    out = printed(Piece.of([0, 0], [60, 61], [20, 120], [500, 500]), console())
    assert ";48;2;" in out or "\x1b[38;2;70" in out
    assert "▀" in out
    assert "█" not in out


@pytest.mark.parametrize("on", [console(no_color=True), console(terminal=False)], ids=["NO_COLOR", "no terminal"])
def test_without_colour_the_shape_remains(on: Console) -> None:
    out = printed(Piece.of([0, 0, 0], [60, 61, 63], [20, 120, 60], [500, 500, 500]), on)
    assert "38;2" not in out
    assert "█" in out
    assert "▀" in out


def test_in_ascii_the_shape_remains() -> None:
    out = printed(Piece.of([0, 0, 0, 0], [60, 61, 63, 64], [20, 120, 60, 60], [500] * 4), console(encoding="ascii"))
    assert out.isascii()
    assert "\\u" not in out
    assert not set(HALVES[1:]) & set(out)
    assert {mark for mark in ASCII_HALVES if mark in out} == set(ASCII_HALVES)


def test_a_piece_without_notes_has_no_roll() -> None:
    with pytest.raises(EmogenError, match="without notes"):
        roll(Piece.of([], [], [], []), console())
