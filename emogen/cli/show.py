"""``emogen show``: what a MIDI file contains, and how it was made."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from emogen.cli import outputs
from emogen.cli.console import console, echo, output, table
from emogen.cli.options import AsJson
from emogen.cli.terminal_roll import roll
from emogen.emotion import EMOTIONS, QUADRANT_OF

if TYPE_CHECKING:
    from emogen.composing.piece import Piece
    from emogen.music.chart import Chart

SHOWN = {
    "length": "{length_s:.1f} s",
    "notes": "{notes}, {notes_per_s:.1f} per second",
    "key": "{key}, {scale_consistency:.0%} of the notes in one scale",
    "velocity": "{velocity:.0f} on average",
    "pitch": "{pitch:.0f} on average, over {pitch_range} semitones",
    "pitch classes": "{pitch_classes}, {pitch_class_entropy:.1f} bits",
    "onsets": "times between them vary by {ioi_variation:.0%}",
    "repetition": "{repetition:.0%} of its figures occurred before",
    "polyphony": "{polyphony:.1f} notes at once",
    "longest silence": "{longest_silence_s:.1f} s",
}
"""What people read of a piece's measures, see ``music.measures.Measures``."""


SHOWN_LINES = 16
"""How many lines of four bars of chords are shown; ``--json`` has all."""


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A MIDI file.")],
    as_json: AsJson = False,
) -> None:
    """Show what a MIDI file contains and how emogen made it.

    Its piano roll is coloured by loudness; its facts stand below. "Heard as" is the opinion of the judge,
    which is right in about three of four real clips: see emogen judge.
    """
    piece = outputs.read(file)
    measures, made_by, heard = asdict(piece.measures()), piece.made_by, _heard(piece)
    chart = piece.chart
    if as_json:
        report = {"file": str(file), "measures": measures, "chart": _charted(chart), "heard": heard, "made_by": made_by}
        echo(json.dumps(report, indent=2))
        return
    facts = table("", "", header=False)
    for column in facts.columns:
        column.overflow = "fold"  # nothing is cut off in a narrow window
    facts.add_row("file", escape(str(file)))
    for name, words in SHOWN.items():
        facts.add_row(name, words.format(**measures))
    pulse = f"{chart.clarity:.0%}, {'clear' if chart.is_clear else 'unclear: tempo and bars are a guess'}"
    facts.add_row("tempo", f"{chart.tempo_bpm:.0f} beats per minute, {chart.beats_per_bar}/4")
    facts.add_row("pulse", "tempo, bars and chords as composed" if piece.bars else pulse)
    facts.add_row("sections", chart.letters or "none")
    for number, line in enumerate(chart.lines()[:SHOWN_LINES]):
        facts.add_row("chords" if not number else "", escape(line))
    likeliest = max(heard["chance"], key=heard["chance"].__getitem__)
    names = " or ".join(name for name in EMOTIONS if f"Q{QUADRANT_OF[name]}" == likeliest)
    facts.add_row("heard as", f"{likeliest} ({names}) with a chance of {heard['chance'][likeliest]:.0%}")
    facts.add_row("", f"arousal {heard['arousal']:.0%}, valence {heard['valence']:.0%}")
    for name, value in (made_by or {}).items():
        facts.add_row(_printable(name), _printable(value))
    output.print(roll(piece, output, beside_lines=facts.row_count + 2), "")
    output.print(facts)
    if not made_by:
        console.print("it does not say that emogen made it")


def _charted(chart: Chart) -> dict[str, Any]:
    """What ``--json`` says of a chart: the times are those of beats, in seconds."""
    return {
        "tempo_bpm": round(chart.tempo_bpm, 2),
        "beats_per_bar": chart.beats_per_bar,
        "clarity": round(chart.clarity, 3),
        "clear": chart.is_clear,
        "beats_s": (chart.beats_ms / 1000).tolist(),
        "downbeats": [beat for beat, place in enumerate(chart.place.tolist()) if not place],
        "chords": chart.names(),
        "bars": [line.strip("| ") for line in chart.lines(1)],
        "sections": chart.letters,
    }


def _heard(piece: Piece) -> dict[str, Any]:
    """What the judge hears in a piece: chances of Q1..Q4, of high arousal and of positive valence."""
    heard = piece.judge()
    return {
        "chance": {quadrant: round(p, 3) for quadrant, p in heard.chance.items()},
        "arousal": round(heard.arousal, 3),
        "valence": round(heard.valence, 3),
    }


def _printable(value: Any) -> str:
    """A value of a manifest for a table; it cannot control the terminal."""
    return escape(value if isinstance(value, str) and value.isprintable() else json.dumps(value))
