"""A piece as users handle it: notes and their provenance, to save, show, measure and judge.

The program computes with notes alone, ``music.notes.Piece``. This one is such a piece, so it goes wherever notes go;
what it does with files, sound and the judge lives here, above them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from emogen.composing.provenance import UNTRUSTED, below, emotion_of, facts, feeling, manifest, title
from emogen.errors import EmogenError, UnusableFile, UsageError
from emogen.music import midi
from emogen.music.chart import Chart
from emogen.music.measures import Measures, measure
from emogen.music.midi_events import bytes_of
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY
from emogen.music.notes import Piece as Notes
from emogen.system.files import whole

if TYPE_CHECKING:
    import pretty_midi

    from emogen.ear.fitted import Ear, Opinion
    from emogen.sound.render import Sound


SUFFIXES = (".mid", ".musicxml", ".wav", ".ogg", ".mp3", ".png", ".html")
"""What a piece can be saved as (``.midi`` is ``.mid``)."""

HEARD_S = 600
"""Seconds of a piece that are judged: ten hours would take a minute."""


RANGES = {
    "onset_ms": (0, midi.MAX_MS),
    "pitch": (LOWEST_KEY, HIGHEST_KEY),
    "velocity": (1, 127),
    "duration_ms": (1, midi.MAX_MS),
}
"""The fields of a note, and what each may be, both ends included."""


@dataclass(frozen=True, eq=False, repr=False)  # eq is that of notes
class Piece(Notes):
    """A piece of piano music, and what made it.

    ``Voice.compose`` and ``Piece.read`` give one; ``Piece.of`` makes one of your own notes. It does not change:
    ``transpose``, ``stretch`` and ``crop`` give new pieces, which no longer say what made them. ``len(piece)`` is the
    number of notes. Pieces with the same notes are equal.

    Attributes:
        onset_ms, pitch, velocity, duration_ms: int64 arrays (N,), see ``notes``.
        made_by: the version of emogen, emotion, seconds, seed, checkpoint and settings, as JSON has them; None for
            music from elsewhere. ``save`` writes it into the MIDI file, and ``read`` finds it there.
        remarks: what ``read`` mended in a damaged file or left out, in plain words.
        bars: the chart that it was composed on, by which ``save`` writes tempo and bars and which ``read`` finds
            again; None for other music.
    """

    made_by: dict[str, Any] | None = None
    remarks: tuple[str, ...] = ()
    bars: Chart | None = None

    def __post_init__(self) -> None:
        for (name, (low, high)), column in zip(RANGES.items(), self.columns, strict=True):
            if len(column) and not low <= column.min() <= column.max() <= high:
                found = column.min() if column.min() < low else column.max()
                raise UsageError(f"{name} {found} is not from {low} to {high}", "times are in ms; middle C is pitch 60")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Piece:
        """The piano music of a MIDI file, of other instruments where there is no piano; the pedal lengthens notes.

        Raises:
            EmogenError: there is no such file, or it holds no MIDI notes that a piano could play.
        """
        file = Path(path)
        try:
            if not file.exists() or file.is_dir():
                raise EmogenError(f"there is no file {file}", f"looked for {file.absolute()}")
            data = bytes_of(file)
            notes, remarks = midi.read_midi(data, any_instrument=True)
            known = manifest(midi.read_text(data))
            return cls(*notes.columns, known, remarks, midi.read_bars(data) if known else None)
        except UnusableFile as error:
            raise EmogenError(f"{file}: {error}", error.hint) from None

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        soundfont: str | os.PathLike[str] | None = None,
        dry: bool = False,
        tail: bool = False,
        single_track: bool = False,
        pedal: bool = False,
    ) -> None:
        """Write the piece as its suffix says: .mid, a .musicxml score, .wav, .ogg or .mp3 sound, .png or .html.

        A .png is a picture, an .html a page that plays. A score is written by partitura, which must be installed.

        The file appears whole or not at all. A file of that name is replaced; a folder that is missing is made.

        Args:
            path: where to.
            soundfont: the .sf2 or .sf3 file whose piano is heard; None is the best that is installed.
            dry: sound without a room around the piano.
            tail: sound that rings on after the end of the piece; without, it is exactly as long as the piece.
            single_track: a MIDI file of format 0, with one track; without, each hand has one where there are bars.
            pedal: a MIDI file with the sustain pedal as controller 64, where it lengthens no note.

        Raises:
            EmogenError: another suffix, a file that cannot be written, a SoundFont that cannot be played, or no notes
                to hear or see.
        """

        file, font = Path(path), None if soundfont is None else Path(soundfont)
        try:
            sound = partial(sound_of, self, font, dry=dry, tail=tail)
            write(self, file, sound, single_track=single_track, pedal=pedal)
        except OSError as error:
            raise EmogenError(f"{file} cannot be written: {error.strerror or error}", "save it elsewhere") from None

    @property
    def notes(self) -> npt.NDArray[np.void]:
        """The notes as a structured array (N,), ordered by onset, then pitch; a copy.

        Fields, all int64: ``onset_ms`` from the beginning, ``pitch`` (MIDI, 21 to 108; 60 is middle C),
        ``velocity`` (1 to 127), ``duration_ms`` (1 or more). ``pandas.DataFrame(piece.notes)`` makes a table of it.
        """
        table = np.empty(len(self), dtype=[(name, np.int64) for name in RANGES])
        for name, column in zip(RANGES, self.columns, strict=True):
            table[name] = column
        return table

    @property
    def seconds(self) -> float:
        """When the last note is released, in s; 0 without notes."""
        return self.end_ms / 1000

    @cached_property
    def chart(self) -> Chart:
        """Beats, bars, chords and sections, heard from the notes: ``chart.lines()``, ``.tempo_bpm``, ``.letters``.

        Of a piece that emogen composed, those it was composed on; ``Chart.of(piece)`` hears those too.
        """
        return self.bars or Chart.of(self)

    def measures(self) -> Measures:
        """Length, notes per second, key, loudness, range and more, each with its unit in the docstring of its field."""
        return measure(self)

    def judge(self) -> Opinion:
        """What the bundled judge hears in the first ten minutes: quadrant, arousal, valence, coherence.

        It is a small classifier of musical features, fitted on EMOPIA's training songs, and knows nothing of what was
        asked for. In real clips that it has never heard it names the right quadrant in about three of four.
        """
        return bundled_ear().opinions([self.crop(0, HEARD_S * 1000)])[0]

    def to_pretty_midi(self) -> pretty_midi.PrettyMIDI:
        """The piece as ``pretty_midi`` has it: one piano, times in s, ``made_by`` as its first text event."""
        return midi.to_pretty_midi(self, self._text())

    def _text(self) -> str:
        """The manifest for a MIDI file; empty if the provenance is unknown."""
        return json.dumps(self.made_by) if self.made_by else ""

    def __repr__(self) -> str:
        found, made = measure(self), self.made_by or {}
        parts = [f"{found.length_s:.1f} s", f"{found.notes} notes", found.key]
        with suppress(*UNTRUSTED):
            parts = [feeling(made), *parts, f"seed {made['seed']}"]
        words = "".join(one if one.isprintable() else "?" for one in ", ".join(filter(None, parts)))
        return f"<Piece {words}>"

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        """What a notebook shows: the piano roll, a player and the facts, in HTML that needs nothing from elsewhere."""
        kinds = {"text/plain": self.__repr__, **({"text/html": self._html} if _shows_html() else {})}
        return {
            kind: make() for kind, make in kinds.items() if kind in (include or kinds) and kind not in (exclude or ())
        }

    def _html(self) -> str:
        from emogen.sound import page, render

        found = measure(self)
        heading, told = title(self.made_by, found, "Piece"), facts(self.made_by, found)
        try:
            return page.inline(self, heading, told, render.small_mp3(sound_of(self)))
        except EmogenError as error:  # without notes, or too long for sound
            return page.inline(self, heading, told | {"Sound": f"none: {error}"})


def write(
    piece: Piece,
    file: Path,
    sound: Callable[[], Sound] | None = None,
    original: bytes = b"",
    *,
    single_track: bool = False,
    pedal: bool = False,
) -> None:  # six: what is written where, and how the kinds are made
    """Write a piece as the suffix of a file says, whole or not at all; a file of that name is replaced.

    Args:
        piece: what to write.
        file: where to; one of SUFFIXES.
        sound: gives its sound, where that is wanted (default: by the best SoundFont that is installed).
        original: the MIDI file to offer on a page (default: that of the piece).
        single_track: see ``midi_shape.shaped``.
        pedal: the same.

    Raises:
        UsageError: another suffix.
        EmogenError: there is nothing to hear or to see, or the sound cannot be made.
        OSError: the file cannot be written.
    """
    from emogen.sound import page, render

    suffix, sound = file.suffix.lower(), sound or (lambda: sound_of(piece))
    found, wanted = measure(piece), emotion_of(piece.made_by)
    heading, seed = title(piece.made_by, found, file.stem), below(piece.made_by)
    emotion = max(wanted, key=wanted.__getitem__) if wanted else ""
    if suffix in (".mid", ".midi"):
        _write_midi(piece, file, single_track, pedal)
    elif suffix == ".musicxml":
        from emogen.music.score import musicxml  # imports mido, which reading never needs

        with whole(file) as draft:
            draft.write_bytes(musicxml(piece, piece.chart, heading))
    elif suffix == ".png":
        render.write_picture(file, piece, heading, seed, emotion)
    elif suffix == ".html":
        chart = piece.chart
        page.write_page(
            file,
            piece,
            heading,
            facts(piece.made_by, found),
            render.small_mp3(sound()),
            original or midi.midi_bytes(piece, piece._text(), piece.bars),
            below=seed,
            emotion=emotion,
            chart=chart if piece.bars or chart.is_clear else None,
        )
    elif suffix in render.SOUND_FORMATS:
        render.write_sound(file, sound())
    else:
        raise UsageError(f"{file} has no suffix that a piece can be saved as", f"it may end with {', '.join(SUFFIXES)}")


def _write_midi(piece: Piece, file: Path, single_track: bool, pedal: bool) -> None:
    if not (single_track or pedal):
        midi.write_piece(piece, file, piece._text(), piece.bars)
        return
    from emogen.music.midi_shape import shaped

    with whole(file) as draft:
        draft.write_bytes(shaped(midi.midi_bytes(piece, piece._text(), piece.bars), single_track, pedal))


def sound_of(piece: Piece, soundfont: Path | None = None, *, dry: bool = False, tail: bool = False) -> Sound:
    """The sound of a piece, see ``render.audio``; what rings after the end of a loop is heard at its beginning."""
    from emogen.sound import render

    if (piece.made_by or {}).get("loop"):
        return render.folded(render.audio(piece, soundfont, dry=dry, tail=True), piece.end_ms)
    return render.audio(piece, soundfont, dry=dry, tail=tail)


def _shows_html() -> bool:
    """Whether the running IPython shows HTML: in a terminal nobody waits for sound. Without IPython somebody asked."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is None or "text/html" in shell.display_formatter.active_types


@cache
def bundled_ear() -> Ear:
    """The bundled judge."""
    from emogen.ear.fitted import Ear

    return Ear.load()
