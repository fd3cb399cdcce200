"""``emogen extend``: a MIDI file that goes on."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from emogen.cli import outputs, takes
from emogen.cli.console import console
from emogen.cli.options import M_SS, AsJson, Force, seconds_of, settings_options
from emogen.errors import check_range
from emogen.settings import Settings


@settings_options("sample", "paths.runs", "paths.soundfont")
def extend(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A MIDI file of any origin.")],
    seconds: Annotated[
        float, typer.Option("--seconds", "-s", help="The whole length, up to 600.", parser=seconds_of, metavar=M_SS)
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .mid file, or a folder (default: here).")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same piece.")] = None,
    checkpoint: Annotated[str, typer.Option(help="As for emogen generate.")] = "",
    midi_format: outputs.Format = "1",
    pedal: outputs.Pedal = "none",
    wav: outputs.Wav = False,
    ogg: outputs.Ogg = False,
    mp3: outputs.Mp3 = False,
    png: outputs.Png = False,
    html: outputs.Html = False,
    open_it: outputs.Open = False,
    dry: outputs.Dry = False,
    tail: outputs.Tail = False,
    verbose: outputs.Verbose = False,
    force: Force = False,
    as_json: AsJson = False,
    *,
    settings: Settings,
) -> None:  # one parameter per flag
    """Let a piece go on in its manner, to a length.

    All of its notes stay as they are; what follows has its emotion, its plan, and its bars and chords going round.
    """
    if seed is None:
        seed = secrets.randbelow(2**31)
    check_range("--seed", seed, 0, 2**32 - 1)
    check_range("--seconds", seconds, 5, 600)
    kinds = outputs.chosen(wav=wav, ogg=ogg, mp3=mp3, png=png, html=html or open_it)
    kinds += tuple({outputs.named(out)} - {"", "mid", *kinds})
    piece = outputs.read(file)
    name = f"{file.stem}_{seconds:g}s_seed{seed}.mid"
    files = takes.files(out, [name], kinds, settings.paths.soundfont, force, verbose)
    from emogen.composing.voice import Voice

    voice = Voice.open(checkpoint, settings.paths.runs)
    console.print(escape(f"extending {file} with {voice.label}, seed {seed}"), soft_wrap=True)
    made = voice.extend(piece, seconds, seed=seed, **settings.sample.model_dump())
    shape = outputs.shape(midi_format, pedal)
    takes.deliver(files, [made], kinds, settings.paths.soundfont, as_json, open_it, shape, dry=dry, tail=tail)
