"""``emogen render``: sound, pictures and pages of MIDI files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from emogen.cli import outputs
from emogen.cli.console import echo
from emogen.cli.options import AsJson, Force, settings_options
from emogen.errors import UsageError
from emogen.settings import Settings


@settings_options("paths.soundfont")
def render(
    midi: Annotated[list[Path], typer.Argument(metavar="FILE...", help="MIDI files.")],
    wav: outputs.Wav = False,
    ogg: outputs.Ogg = False,
    mp3: outputs.Mp3 = False,
    png: outputs.Png = False,
    html: outputs.Html = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A folder, or for one file its name, cue.wav (default: beside each file)."),
    ] = None,
    dry: outputs.Dry = False,
    tail: outputs.Tail = False,
    verbose: outputs.Verbose = False,
    force: Force = False,
    as_json: AsJson = False,
    *,
    settings: Settings,
) -> None:  # one parameter per flag
    """Write sound, pictures and pages of MIDI files.

    The piano comes from the best SoundFont that is installed, or from your own (--soundfont).
    A file that cannot be read or rendered is reported; the others are rendered all the same.
    """
    kinds = outputs.chosen(wav=wav, ogg=ogg, mp3=mp3, png=png, html=html)
    named = outputs.named(out)
    if named == "mid":
        raise UsageError(f"render writes no MIDI files: --out {out}", "--out cue.wav, or a folder")
    if named and len(midi) > 1:
        raise UsageError(f"--out {out} is one file, and there are {len(midi)} to render", "give --out a folder")
    kinds += (named,) * bool(named and named not in kinds)
    if not kinds:
        raise UsageError("nothing to write was asked for", "--wav, --ogg, --mp3, --png, --html, or several")
    targets = [out] if out and named else [(out or file.parent) / file.name for file in midi]
    if len({target.with_suffix("") for target in targets}) < len(targets):
        raise UsageError(
            "two of the files would be written to the same place", "render them separately, each with another --out"
        )
    outputs.check(outputs.beside(targets, kinds), kinds, settings.paths.soundfont, force, verbose)
    rows = []
    for file, target in zip(midi, targets, strict=True):
        written = outputs.write(file, target, kinds, settings.paths.soundfont, dry=dry, tail=tail)
        rows.append({"file": str(file), "written": list(map(str, written))})
    if as_json:
        echo(json.dumps(rows, indent=2))
    if any(len(row["written"]) < len(kinds) for row in rows):
        raise typer.Exit(1)
