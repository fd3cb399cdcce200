"""``emogen show``: what a MIDI file holds, and what made it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from emogen.cli.console import console, output
from emogen.errors import EmogenError, UnusableFile

SHOWN = {
    "length": "{length_s:.1f} s",
    "notes": "{notes}, {notes_per_s:.1f} a second",
    "key": "{key}, {scale_consistency:.0%} of the notes in one scale",
    "velocity": "{velocity:.0f} on average",
    "pitch": "{pitch:.0f} on average, over {pitch_range} semitones",
    "pitch classes": "{pitch_classes}, {pitch_class_entropy:.1f} bits",
    "onsets": "times between them vary by {ioi_variation:.0%}",
    "repetition": "{repetition:.0%} of its turns were heard before",
    "polyphony": "{polyphony:.1f} notes at once",
    "longest silence": "{longest_silence_s:.1f} s",
}
"""What people read of a piece's measures, see ``musicality.Measures``."""


def show(
    file: Annotated[Path, typer.Argument(help="A MIDI file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a MIDI file holds and how emogen made it."""
    from emogen.midi import read_piece, read_text
    from emogen.musicality import measure

    if not file.is_file():
        raise EmogenError(f"there is no file {file}", "emogen generate makes one")
    try:
        measures = asdict(measure(read_piece(file, any_instrument=True)))
        made_by = _manifest(read_text(file))
    except UnusableFile as error:
        raise EmogenError(f"{file}: {error}", error.hint) from None
    if as_json:
        typer.echo(json.dumps({"file": str(file), "measures": measures, "made_by": made_by}, indent=2))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("file", escape(str(file)))
    for name, words in SHOWN.items():
        table.add_row(name, words.format(**measures))
    for name, value in (made_by or {}).items():
        table.add_row(_printable(name), _printable(value))
    output.print(table)
    if not made_by:
        console.print("nothing in it says that emogen made it")


def _manifest(text: str) -> dict[str, Any] | None:
    """What ``emogen generate`` wrote into a file; None where it wrote nothing."""
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):  # other people's words
        return None
    return manifest if isinstance(manifest, dict) and "emogen" in manifest else None


def _printable(value: Any) -> str:
    """A value of a manifest for a table; whoever wrote the file cannot steer the terminal with it."""
    return escape(value if isinstance(value, str) and value.isprintable() else json.dumps(value))
