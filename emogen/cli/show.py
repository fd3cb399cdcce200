"""``emogen show``: what a MIDI file holds, and what made it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from emogen.cli.console import console, echo, output
from emogen.cli.provenance import manifest
from emogen.cli.terminal_roll import roll
from emogen.emotion import EMOTIONS, QUADRANT_OF
from emogen.errors import EmogenError, UnusableFile

if TYPE_CHECKING:
    from emogen.music.notes import Piece

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

HEARD_S = 600
"""How much of a piece the judge listens to: all that ``generate`` may compose; ten hours would take it a minute."""


def show(
    file: Annotated[Path, typer.Argument(help="A MIDI file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a MIDI file holds and how emogen made it.

    Above its facts stands its piano roll, coloured by loudness. What is heard in it is the opinion of the judge,
    which is right about four of five real clips: see emogen judge.
    """
    from emogen.music.measures import measure
    from emogen.music.midi import read_piece, read_text

    if not file.is_file():
        raise EmogenError(f"there is no file {file}", "emogen generate makes one")
    try:
        piece = read_piece(file, any_instrument=True)
        measures = asdict(measure(piece))
        made_by = manifest(read_text(file))
    except UnusableFile as error:
        raise EmogenError(f"{file}: {error}", error.hint) from None
    heard = _heard(piece)
    if as_json:
        report = {"file": str(file), "measures": measures, "heard": heard, "made_by": made_by}
        echo(json.dumps(report, indent=2))
        return
    table = Table("", "", show_header=False, box=None, padding=(0, 2, 0, 0))
    for column in table.columns:
        column.overflow = "fold"  # in a narrow window too, all is there to be read
    table.add_row("file", escape(str(file)))
    for name, words in SHOWN.items():
        table.add_row(name, words.format(**measures))
    likeliest = max(heard["chance"], key=heard["chance"].__getitem__)
    names = " or ".join(name for name in EMOTIONS if f"Q{QUADRANT_OF[name]}" == likeliest)
    table.add_row("heard as", f"{likeliest} ({names}) with a chance of {heard['chance'][likeliest]:.0%}")
    table.add_row("", f"arousal {heard['arousal']:.0%}, valence {heard['valence']:.0%}")
    for name, value in (made_by or {}).items():
        table.add_row(_printable(name), _printable(value))
    output.print(roll(piece, output, beside_lines=table.row_count + 2), "")
    output.print(table)
    if not made_by:
        console.print("nothing in it says that emogen made it")


def _heard(piece: Piece) -> dict[str, Any]:
    """What the judge says of a piece's first HEARD_S: chances of Q1..Q4, of high arousal and of positive valence."""
    from emogen.ear.fitted import Ear
    from emogen.ear.judge import arousal, valence
    from emogen.music.tokens import decode, encode

    chance = Ear.load().judge.probabilities([decode(encode(piece.crop(0, HEARD_S * 1000)))])[0]
    return {
        "chance": {f"Q{quadrant}": round(float(p), 3) for quadrant, p in enumerate(chance, 1)},
        "arousal": round(float(arousal(chance)), 3),
        "valence": round(float(valence(chance)), 3),
    }


def _printable(value: Any) -> str:
    """A value of a manifest for a table; whoever wrote the file cannot steer the terminal with it."""
    return escape(value if isinstance(value, str) and value.isprintable() else json.dumps(value))
