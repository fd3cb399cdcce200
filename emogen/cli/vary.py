"""``emogen vary``: variations of a MIDI file, in whole or in part."""

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
def vary(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A MIDI file of any origin.")],
    amount: Annotated[float, typer.Option(help="How much changes: 0 nothing, 1 every note is free.")] = 0.5,
    section: Annotated[str | None, typer.Option(help="Only where this section is, such as B.")] = None,
    start: Annotated[
        float | None, typer.Option("--from", help="Only from this time on.", parser=seconds_of, metavar=M_SS)
    ] = None,
    end: Annotated[
        float | None, typer.Option("--to", help="Only until this time.", parser=seconds_of, metavar=M_SS)
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", help="Number of variations.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .mid file for one, a folder for more (default: here).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed makes the same variation.")] = None,
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
    """Compose a piece again on its own bars and chords: all of it, a section, or some seconds.

    Of a file that emogen wrote, bars and chords are those it was composed on; of another they are heard in it. With
    --section, --from and --to, notes outside stay as they are.
    """
    check_range("--count", count, 1, 1000)
    check_range("--amount", amount, 0, 1)
    if seed is None:
        seed = secrets.randbelow(2**31)
    check_range("--seed", seed, 0, 2**32 - count)
    kinds = outputs.chosen(wav=wav, ogg=ogg, mp3=mp3, png=png, html=html or open_it)
    kinds += tuple({outputs.named(out)} - {"", "mid", *kinds})
    piece = outputs.read(file)
    names = [f"{file.stem}_vary_seed{seed + number}.mid" for number in range(count)]
    files = takes.files(out, names, kinds, settings.paths.soundfont, force, verbose)
    from emogen.composing.varying import windows
    from emogen.composing.voice import Voice

    windows(piece, section, start, end)
    voice = Voice.open(checkpoint, settings.paths.runs)
    console.print(escape(f"varying {file} with {voice.label}, seed {seed}"), soft_wrap=True)
    sample = settings.sample.model_dump()
    made = voice.vary(piece, amount=amount, section=section, start=start, end=end, count=count, seed=seed, **sample)
    shape = outputs.shape(midi_format, pedal)
    takes.deliver(files, made, kinds, settings.paths.soundfont, as_json, open_it, shape, dry=dry, tail=tail)
