"""``emogen render``: sound and pictures of MIDI files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from emogen.cli.console import console
from emogen.cli.made_by import manifest, title
from emogen.cli.options import settings_options
from emogen.errors import EmogenError, UnusableFile, UsageError
from emogen.settings import Settings

if TYPE_CHECKING:
    from emogen.notes import Piece

SOUNDS = ("wav", "ogg", "mp3")
Wav = Annotated[bool, typer.Option("--wav", help="Write the sound, as WAV.")]
Ogg = Annotated[bool, typer.Option("--ogg", help="Write the sound, as OGG (a tenth of the size).")]
Mp3 = Annotated[bool, typer.Option("--mp3", help="Write the sound, as MP3.")]
Png = Annotated[bool, typer.Option("--png", help="Write a picture, the piano roll.")]


@settings_options("paths.soundfont")
def render(
    midi: Annotated[list[Path], typer.Argument(metavar="FILE...", help="MIDI files.")],
    wav: Wav = False,
    ogg: Ogg = False,
    mp3: Mp3 = False,
    png: Png = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder (default: beside each file).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
    *,
    settings: Settings,
) -> None:  # one parameter a flag
    """Write sound and pictures of MIDI files.

    The piano is that of a SoundFont, which comes with emogen's libraries; --soundfont names a better one.
    A file that cannot be read or rendered is told of, and the others are rendered all the same.
    """
    kinds = chosen(wav=wav, ogg=ogg, mp3=mp3, png=png)
    if not kinds:
        raise UsageError("say what to write", "--wav, --ogg, --mp3, --png, or several")
    check_soundfont(kinds, settings.paths.soundfont)
    targets = [(out or file.parent) / file.name for file in midi]
    if len({target.with_suffix("") for target in targets}) < len(targets):
        raise UsageError("two of the files would be written to one place", "render them apart, with another --out each")
    check_free(targets, kinds, force)

    from emogen.midi import read_piece, read_text

    rows = []
    for file, target in zip(midi, targets, strict=True):
        try:
            piece = read_piece(file, any_instrument=True)
            above = title(manifest(read_text(file)), file.stem)
        except UnusableFile as error:
            say_error(f"{file}: {error}", error.hint)
            rows.append({"file": str(file), "written": []})
            continue
        written = write_extras(target, piece, above, kinds, settings.paths.soundfont)
        rows.append({"file": str(file), "written": list(map(str, written))})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    if any(len(row["written"]) < len(kinds) for row in rows):
        raise typer.Exit(1)


def chosen(**flags: bool) -> tuple[str, ...]:
    """The kinds of file that are asked for."""
    return tuple(kind for kind, wanted in flags.items() if wanted)


def check_soundfont(kinds: Sequence[str], soundfont: Path | None) -> None:
    """Refuse a SoundFont that was named and cannot be played, before there is anything to lose.

    Raises:
        EmogenError: it cannot be played.
    """
    if soundfont and set(kinds) & set(SOUNDS):
        from emogen.render import engine_for

        engine_for(soundfont)


def check_free(targets: Sequence[Path], kinds: Sequence[str], force: bool) -> None:
    """Refuse to replace what stands beside MIDI files, in the kinds that are to be written.

    Raises:
        EmogenError: there is such a file, and no ``force``.
    """
    beside = [target.with_suffix(f".{kind}") for target in targets for kind in kinds]
    there = [file for file in beside if file.exists()]
    if there and not force:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise EmogenError(f"{there[0]}{more} exists already", "--force replaces it, --out chooses another folder")


def write_extras(target: Path, piece: Piece, above: str, kinds: Sequence[str], soundfont: Path | None) -> list[Path]:
    """Write sound and pictures of a piece, under the name of a MIDI file with their own suffixes.

    Returns those that were written. What could not be is told, and costs nothing else.
    """
    from emogen import render as rendering

    sound: Any = None
    written = []
    for kind in kinds:
        file = target.with_suffix(f".{kind}")
        try:
            if kind in SOUNDS and sound is None:
                sound = rendering.audio(piece, soundfont)
                if sound.warning:
                    console.print(escape(f"warning: {sound.warning}"), soft_wrap=True)
            if kind in SOUNDS:
                rendering.write_sound(file, sound)
            else:
                rendering.write_picture(file, piece, above)
        except (EmogenError, OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "out of memory"
            say_error(f"{file} was not written: {reason}", getattr(error, "hint", ""))
        else:
            written.append(file)
            console.print(escape(f"wrote {file}"), soft_wrap=True)
    return written


def say_error(message: str, hint: str = "") -> None:
    """Tell of an error that is not the end."""
    console.print(escape(f"error: {message}" + (f"\nhint: {hint}" if hint else "")), soft_wrap=True)
