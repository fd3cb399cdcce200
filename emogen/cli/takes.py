"""Takes: how pieces that were just composed are written, told of and shown."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from emogen.cli import outputs, terminal_roll
from emogen.cli.console import console, echo, table
from emogen.cli.options import refuse_existing
from emogen.composing import provenance
from emogen.errors import UsageError

if TYPE_CHECKING:
    from emogen.composing.piece import Piece

NAMED = 6
"""Most files that the last line names."""
WANTED = (
    "emotion", "passages", "change", "seconds", "seed", "plan", "tonic", "tempo", "meter", "chords", "form", "returns",
    "chart", "markers", "loop",
)  # fmt: skip
"""What ``--json`` tells of a piece's ``made_by``."""


def files(
    out: Path | None,
    names: Sequence[str],
    kinds: Sequence[str],
    soundfont: Path | None,
    force: bool,
    verbose: bool = False,
) -> list[Path]:  # six: where what is written, and how
    """The MIDI files of the pieces, in a folder or as the one that is named; checked before composing.

    Raises:
        EmogenError: one exists, without ``force``, or cannot be written; or one of those beside them.
    """
    if out is not None and (named := outputs.named(out)):
        if len(names) > 1:
            raise UsageError(f"--out {out} is one file, and there are {len(names)} pieces", "give --out a folder")
        found = [out if named == "mid" else out.with_suffix(".mid")]
    else:
        found = [(out or Path()) / name for name in names]
    refuse_existing(found, force, ", --out or --seed chooses another")
    index = [found[0].with_name("index.html")] if "html" in kinds and len(found) > 1 else []
    outputs.check([*found, *outputs.beside(found, kinds), *index], kinds, soundfont, force, verbose)
    return found


def deliver(
    files: Sequence[Path],
    pieces: Iterable[Piece],
    kinds: Sequence[str],
    soundfont: Path | None,
    as_json: bool,
    open_it: bool,
    shape: Mapping[str, bool],
    **how: bool,
) -> None:  # seven: what is written where, in which kinds, and how it is told
    """Write each piece to its file as soon as it is there, then what else is asked for; say what was made.

    Raises:
        typer.Exit: something could not be written, which was said.
    """
    from emogen.composing.piece import Piece

    rows = [_write(file, piece, shape) for file, piece in zip(files, pieces, strict=True)]
    if not as_json:
        if len(files) == 1 and console.is_terminal and rows[0]["notes"]:
            console.print(terminal_roll.roll(Piece.read(files[0]), console, beside_lines=4))
        _print_table(rows)
    for row, file in zip(rows, files, strict=True) if kinds else ():  # all MIDI files are written by now
        row["rendered"] = list(map(str, outputs.write(file, file, kinds, soundfont, **how)))
    whole = all(len(row["rendered"]) == len(kinds) for row in rows if kinds)
    page = files[0].with_suffix(".html")
    if "html" in kinds and len(files) > 1:
        page = files[0].with_name("index.html")
        whole &= outputs.write_index(page, rows)
    if open_it and page.exists():
        outputs.open_page(page)
    if as_json:
        echo(json.dumps(rows, indent=2))
    elif whole:
        console.print(escape(f"next: {_next(files, page if 'html' in kinds else None)}"), soft_wrap=True)
    if not whole:
        raise typer.Exit(1)


def _next(files: Sequence[Path], page: Path | None) -> str:
    """What to do with what was made: hear it, or choose."""
    if page:
        return f"open {page} in a browser"
    return f"emogen play {shlex.join(map(str, files[:NAMED]))}"


def _write(file: Path, piece: Piece, shape: Mapping[str, bool]) -> dict[str, Any]:
    """Write one piece with its provenance; returns its facts for the table and ``--json``."""
    from emogen.composing.piece import write

    write(piece, file, single_track=shape["single_track"], pedal=shape["pedal"])
    made_by, found = piece.made_by or {}, piece.measures()
    wanted = {name: value for name, value in made_by.items() if name in WANTED}
    facts = {"length_s": found.length_s, "notes": found.notes, "notes_per_s": round(found.notes_per_s, 2)}
    tempo = {"tempo_bpm": round(piece.bars.tempo_bpm, 2)} if piece.bars else {}
    unmet = provenance.unmet(made_by, found, piece.bars.tempo_bpm if piece.bars else None) if made_by else []
    return {"file": str(file), **wanted, **facts, "key": found.key, **tempo, **({"unmet": unmet} if unmet else {})}


def _coloured(row: dict[str, Any]) -> str:
    """The feeling of a piece in the colour of its strongest emotion."""
    from emogen.sound.picture import EMOTION_COLOURS

    colour = EMOTION_COLOURS[max(row["emotion"], key=row["emotion"].__getitem__)]
    return f"[rgb({','.join(map(str, colour))})]{escape(provenance.feeling(row))}[/]"


def _print_table(rows: list[dict[str, Any]]) -> None:
    written = table("file", "emotion", ">length", ">notes", ">notes/s", "key")
    for row in rows:
        emotion = _coloured(row)
        numbers = (f"{row['length_s']:.1f} s", str(row["notes"]), f"{row['notes_per_s']:.1f}")
        written.add_row(escape(row["file"]), emotion, *numbers, row["key"])
    console.print(written)
    for row in rows:
        for one in row.get("unmet", ()):
            console.print(escape(f"{Path(row['file']).name}: {one}"), soft_wrap=True)
