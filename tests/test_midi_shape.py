"""One track and the pedal: other files, the same piece."""

from __future__ import annotations

import io
from pathlib import Path

import mido
import pytest

from emogen.composing.piece import Piece
from emogen.music.midi import midi_bytes, read_bars, read_piece, read_text
from emogen.music.midi_shape import shaped
from emogen.music.notes import Piece as Notes
from tests.music import random_piece
from tests.test_midi_bars import chart


def pedals(data: bytes) -> list[list[tuple[int, int]]]:
    """Of each track that has any, when the pedal moves, in ticks, and where to."""
    found = []
    for track in mido.MidiFile(file=io.BytesIO(data)).tracks:
        now, moves = 0, []
        for message in track:
            now += message.time
            if message.type == "control_change" and message.control == 64:
                moves.append((now, message.value))
        found += [moves] if moves else []
    return found


@pytest.mark.parametrize("on_bars", [True, False])
@pytest.mark.parametrize("single_track", [True, False])
@pytest.mark.parametrize("pedal", [True, False])
def test_a_file_of_any_shape_holds_the_same_piece(on_bars: bool, single_track: bool, pedal: bool) -> None:
    for seed in range(5):
        piece = random_piece(seed, 60)
        data = shaped(midi_bytes(piece, "what made it", chart() if on_bars else None), single_track, pedal)
        assert read_piece(data) == piece
        assert read_text(data) == "what made it"
        assert (read_bars(data) is not None) == on_bars
        file = mido.MidiFile(file=io.BytesIO(data))
        assert (file.type == 0) == single_track == (len(file.tracks) == 1)
        assert pedal or not pedals(data)


def test_the_pedal_is_down_under_held_chords_and_up_where_they_are_released() -> None:
    piece = Notes.of([0, 0, 1000, 2000], [48, 60, 64, 67], [60] * 4, [2000, 2000, 1000, 300])
    ((down, up),) = pedals(shaped(midi_bytes(piece), pedal=True))
    assert down[1] == 127
    assert 0 < down[0] < 100
    assert up == (2000, 0)


def test_pedal_and_format_are_asked_for_by_name(tmp_path: Path) -> None:
    piece = Piece.of([0, 0], [48, 60], [60, 60], [2000, 2000])
    piece.save(tmp_path / "a.mid", single_track=True, pedal=True)
    data = (tmp_path / "a.mid").read_bytes()
    assert mido.MidiFile(file=io.BytesIO(data)).type == 0
    assert len(pedals(data)) == 1
    assert Piece.read(tmp_path / "a.mid") == piece
