"""Sound, picture and page of a MIDI file: the flags for them, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from emogen.cli.console import console
from emogen.cli.options import refuse_existing
from emogen.emotion import QUADRANTS
from emogen.errors import EmogenError
from emogen.system.files import shown

if TYPE_CHECKING:
    from emogen.composing.piece import Piece
    from emogen.sound.page import Entry

Wav = Annotated[bool, typer.Option("--wav", help="Write the sound, as WAV.")]
Ogg = Annotated[bool, typer.Option("--ogg", help="Write the sound, as OGG (a tenth of the size).")]
Mp3 = Annotated[bool, typer.Option("--mp3", help="Write the sound, as MP3.")]
Png = Annotated[bool, typer.Option("--png", help="Write a picture, the piano roll.")]
Html = Annotated[bool, typer.Option("--html", help="Write a page that shows and plays it in any browser.")]
Open = Annotated[bool, typer.Option("--open", help="Write the page and open it in the browser.")]

Dry = Annotated[bool, typer.Option("--dry", help="Sound without a room around the piano.")]
Tail = Annotated[bool, typer.Option("--tail", help="Sound that rings on after the end (default: exactly as long).")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say which piano plays.")]

Format = Annotated[Literal["0", "1"], typer.Option("--format", help="MIDI of format 1, or 0: all on one track.")]
Pedal = Annotated[
    Literal["write", "none"],
    typer.Option("--pedal", help="Write the sustain pedal, too; the lengths of notes hold it."),
]


def shape(midi_format: str, pedal: str) -> dict[str, bool]:
    """What the flags say of MIDI files, as ``composing.piece.write`` takes it."""
    return {"single_track": midi_format == "0", "pedal": pedal == "write"}


KINDS = ("wav", "ogg", "mp3", "png", "html")
"""What is written beside MIDI files."""
WITHOUT_SOUND = {"png"}
"""The kinds that need no sound."""


def chosen(**flags: bool) -> tuple[str, ...]:
    """The kinds of file that are asked for; each is a suffix."""
    return tuple(kind for kind, wanted in flags.items() if wanted)


def named(out: Path | None) -> str:
    """The kind of the file that --out names: one of KINDS, or mid; empty for a folder, or for nothing."""
    kind = "" if out is None or out.is_dir() else out.suffix.lower().removeprefix(".")
    return "mid" if kind == "midi" else kind if kind in ("mid", *KINDS) else ""


def beside(targets: Sequence[Path], kinds: Sequence[str]) -> list[Path]:
    """The files of some kinds beside MIDI files: the same names with other suffixes."""
    return [target.with_suffix(f".{kind}") for target in targets for kind in kinds]


def check(
    files: Sequence[Path], kinds: Sequence[str], soundfont: Path | None, force: bool, verbose: bool = False
) -> None:
    """Refuse what cannot be written, before any work is done.

    Raises:
        EmogenError: one of the files exists, without ``force``; or the given SoundFont cannot be played.
    """
    refuse_existing(files, force, ", --out chooses another folder")
    if set(kinds) - WITHOUT_SOUND:
        check_sound(soundfont, verbose)


def check_sound(soundfont: Path | None, verbose: bool = False) -> None:
    """Find what will make the sound, and warn where it will be poor; with ``verbose`` say what it is.

    Raises:
        EmogenError: a SoundFont was named and cannot be played.
    """
    from emogen.sound.render import engine_for

    engine = engine_for(soundfont)
    played = f"the piano is {engine.name}{f' ({engine.font})' if engine.font else ''}" if verbose else ""
    for kind, text in (("warning: ", engine.warning), ("", played), ("note: ", engine.advice)):
        if text:
            console.print(escape(kind + text), soft_wrap=True)


def read(file: Path) -> Piece:
    """The piece in a MIDI file; warnings say what was mended in it.

    Raises:
        EmogenError: there is no such file, or it holds no MIDI notes that a piano could play.
    """
    from emogen.composing.piece import Piece

    piece = Piece.read(file)
    for remark in piece.remarks:
        console.print(escape(f"warning: {file}: {remark}"), soft_wrap=True)
    return piece


def write(midi: Path, target: Path, kinds: Sequence[str], soundfont: Path | None, **how: bool) -> list[Path]:
    """Write what is asked for of a MIDI file, under the name ``target`` with other suffixes.

    ``how`` are ``dry`` and ``tail`` of ``render.audio``. Returns what was written. What could not be written is
    reported, and stops nothing else.
    """
    from emogen.composing.piece import sound_of, write

    try:
        piece = read(midi)
    except EmogenError as error:
        say_error(str(error), error.hint)
        return []
    written = []
    sound = cache(lambda: sound_of(piece, soundfont, **how))  # once for all kinds
    for file in beside([target], kinds):
        try:
            write(piece, file, sound, midi.read_bytes())
        except (EmogenError, OSError, MemoryError, ImportError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            say_error(f"{file} was not written: {reason}", getattr(error, "hint", ""))
        else:
            written.append(file)
            console.print(escape(f"wrote {file}"), soft_wrap=True)
    return written


def write_index(file: Path, rows: Sequence[dict[str, Any]]) -> bool:
    """Write the index of the pages in ``rows`` (as in ``emogen generate --json``); False if it was not written."""
    from emogen.sound import page

    entries = [_entry(row, Path(name)) for row in rows for name in row["rendered"] if name.endswith(".html")]
    if not entries:
        return False
    try:
        page.write_index(file, entries)
    except OSError as error:
        say_error(f"{file} was not written: {error.strerror or error}")
        return False
    console.print(escape(f"all on one page: {file}"), soft_wrap=True)
    return True


def _entry(row: dict[str, Any], its_page: Path) -> Entry:
    """A piece on an index: of a row with ``file`` and ``rendered``, and perhaps the ``emotion`` that was wanted."""
    from emogen.composing.piece import Piece
    from emogen.composing.provenance import clock, emotion_of, feeling
    from emogen.sound import page

    piece = Piece.read(row["file"])
    heard, found = piece.judge(), piece.measures()
    wanted = emotion_of(piece.made_by)
    name = feeling(piece.made_by or {}) if wanted else Path(row["file"]).stem
    tempo = row.get("tempo_bpm") or piece.chart.tempo_bpm
    facts = [clock(found.length_s), f"{tempo:.0f} bpm" if tempo else "no beat", f"{found.notes_per_s:.1f} notes/s"]
    if made := piece.made_by:
        facts += [f"seed {shown(str(made['seed']))}"] if "seed" in made else []
    return page.Entry(
        page=its_page.name,
        piece=piece,
        emotion=max(wanted, key=wanted.__getitem__) if wanted else QUADRANTS[int(heard.quadrant[1])][0],
        title=f"{name[:1].upper()}{name[1:]} - {found.key}",
        facts=", ".join(facts),
        valence=heard.valence,
        arousal=heard.arousal,
        files=[Path(name).name for name in (row["file"], *row["rendered"]) if not name.endswith((".html", ".png"))],
    )


def open_page(page: Path) -> None:
    """Open a page in the browser, or say where it is."""
    import webbrowser

    if not webbrowser.open(page.absolute().as_uri()):
        console.print(escape(f"no browser could be opened here: open {page}"), soft_wrap=True)


def say_error(message: str, hint: str = "") -> None:
    """Report an error that stops nothing."""
    console.print(escape(f"error: {message}" + (f"\nhint: {hint}" if hint else "")), soft_wrap=True)
