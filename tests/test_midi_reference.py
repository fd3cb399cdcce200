"""Notes as independent readers have them: symusic, and miditoolkit on a few, on the real music and on our own cases.

Compared is what the files say, before the pedal is folded in (neither reader folds it) and before a struck key ends
the note that it still sounds: onsets, releases, pitches and velocities. Both readers drop notes that are never
released; ours are left out of the comparison and counted. symusic gives ticks and the tempo changes; its own seconds
take the first of two tempos at one tick where players take the last, so seconds are worked out here.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import miditoolkit
import numpy as np
import numpy.typing as npt
import pytest
import symusic

from emogen.music.midi import _Clock, read_piece
from emogen.music.midi_events import read_events
from emogen.music.midi_notes import NEVER, Notes
from emogen.settings import TEST_DATA
from tests.test_midi import rows

SHARED = Path(os.environ.get(TEST_DATA, Path(__file__).parents[2] / "shared"))
CASES = SHARED / "cases"
FILES = 40
"""So many of each pack, chosen by a fixed seed. All 6,168 files (9.1 million notes) were compared once: all equal."""

Table = npt.NDArray[np.float64]


def ours(data: bytes) -> tuple[Table, int]:
    """Onset, release (ms), pitch, velocity (N, 4) of a file's notes, sorted, and how many are never released."""
    events = read_events(data)
    notes = Notes.of(events)
    notes = notes.only(notes.release != NEVER)
    clock = _Clock(events)
    columns = (clock.ms(notes.onset), clock.ms(notes.release), notes.pitch, notes.velocity)
    return in_order(np.stack(columns, 1)), int((Notes.of(events).release == NEVER).sum())


def in_order(table: npt.ArrayLike) -> Table:
    """Rows sorted by pitch, then onset: times that differ by rounding do not change the order."""
    rows_ = np.asarray(table, dtype=np.float64).reshape(-1, 4)
    return rows_[np.lexsort((rows_[:, 1], rows_[:, 0], rows_[:, 2]))]


def by_symusic(data: bytes) -> Table:
    score: Any = symusic.Score.from_midi(data)
    tick, at_ms, ms_per_tick = [0], [0.0], [500 / score.ticks_per_quarter]
    for change in score.tempos:
        if not change.mspq:
            continue  # no player stands still
        at_ms.append(at_ms[-1] + (change.time - tick[-1]) * ms_per_tick[-1])
        tick.append(change.time)
        ms_per_tick.append(change.mspq / 1000 / score.ticks_per_quarter)

    def ms(ticks: npt.NDArray[np.int64]) -> Table:
        segment = np.searchsorted(tick, ticks, side="right") - 1
        return np.array(at_ms)[segment] + (ticks - np.array(tick)[segment]) * np.array(ms_per_tick)[segment]

    parts = [np.zeros((0, 4))]
    for notes in (part.notes.numpy() for part in score.tracks):
        start = notes["time"].astype(np.int64)
        release = start + notes["duration"]
        parts.append(np.stack([ms(start), ms(release), notes["pitch"], notes["velocity"]], 1))
    return in_order(np.concatenate(parts))


def by_miditoolkit(data: bytes) -> Table:
    file = miditoolkit.MidiFile(file=io.BytesIO(data))
    ms = 1000 * file.get_tick_to_time_mapping()
    notes = [note for part in file.instruments for note in part.notes]
    return in_order([(ms[note.start], ms[note.end], note.pitch, note.velocity) for note in notes])


def sample(pack: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of some files of a pack."""
    rng = np.random.default_rng(13)
    if pack == "EMOPIA":
        paths = sorted((SHARED / "EMOPIA_1.0" / "midis").glob("*.mid"))
        for path in rng.choice(np.array(paths), FILES, replace=False):
            yield path.name, path.read_bytes()
        return
    with zipfile.ZipFile(SHARED / "pretrain" / f"{pack}.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".mid", ".midi")))
        for name in rng.choice(np.array(names), FILES, replace=False):
            yield name, archive.read(str(name))


@pytest.mark.skipif(not (SHARED / "pretrain").is_dir(), reason=f"the music is not there: {SHARED}")
@pytest.mark.parametrize("pack", ["EMOPIA", "pop909", "pop1k7", "supra"])
def test_notes_of_real_music_are_symusics(pack: str) -> None:
    hanging = 0
    for name, data in sample(pack):
        notes, more = ours(data)
        np.testing.assert_allclose(notes, by_symusic(data), rtol=0, atol=1, err_msg=name)
        assert len(notes) > 20
        hanging += more
    assert hanging == {"EMOPIA": 0, "pop909": 0, "pop1k7": 0, "supra": 0}[pack]


@pytest.mark.skipif(not (SHARED / "EMOPIA_1.0").is_dir(), reason=f"EMOPIA is not there: {SHARED}")
def test_notes_of_emopia_are_miditoolkits() -> None:
    for name, data in list(sample("EMOPIA"))[:10]:
        np.testing.assert_allclose(ours(data)[0], by_miditoolkit(data), rtol=0, atol=1, err_msg=name)


@pytest.mark.skipif(not CASES.is_dir(), reason=f"the cases are not there: {CASES}")
def test_the_cases_are_read_as_they_should_be() -> None:
    expected = json.loads((CASES / "expected.json").read_text())
    for name, notes in expected.items():
        piece = read_piece(CASES / "midi" / name, any_instrument=True)
        assert rows(piece) == sorted(map(tuple, notes)), name
    assert len(expected) > 20


@pytest.mark.skipif(not CASES.is_dir(), reason=f"the cases are not there: {CASES}")
def test_notes_of_the_cases_are_symusics_where_it_reads_them() -> None:
    compared = []
    for path in sorted((CASES / "midi").iterdir()):
        try:
            theirs = by_symusic(path.read_bytes())
        except RuntimeError:  # damage that it does not take
            continue
        if path.name in ("no_tracks_promised.mid", "all_notes_off_123.mid"):
            continue  # it believes the header, and does not know what silences a channel
        np.testing.assert_allclose(ours(path.read_bytes())[0], theirs, rtol=0, atol=1, err_msg=path.name)
        compared.append(path.name)
    assert len(compared) > 15
