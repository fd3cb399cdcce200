"""``emogen generate``: pieces for an emotion and an exact length, as MIDI files."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from emogen import __version__
from emogen.cli import outputs, provenance, terminal_roll
from emogen.cli.console import console, echo
from emogen.cli.options import check_range, settings_options
from emogen.emotion import EMOTIONS, parse_mixture
from emogen.errors import EmogenError, UnusableFile, UsageError
from emogen.settings import Settings

if TYPE_CHECKING:
    from emogen.composing.generate import Wish
    from emogen.model.checkpoint import Meta
    from emogen.music.notes import Piece
    from emogen.music.plan import PlanTable
    from emogen.music.tokens import Tokens

MOST_PIECES = 10_000
MODE_FIT = {"major": 0.2, "minor": -0.2}
"""The plan's entry for a mode, see ``musicality.mode_fit``: about the mean of clips that clearly have it."""


@settings_options("sample", "paths.runs", "paths.soundfont")
def generate(
    emotion: Annotated[
        str,
        typer.Option(
            "--emotion",
            "-e",
            help=f"{', '.join(EMOTIONS)}; q1..q4; a mixture (happy:0.7,calm:0.3); or all, one of each.",
        ),
    ],
    seconds: Annotated[float, typer.Option("--seconds", "-s", help="Length of each piece, 5 to 600.")] = 30.0,
    count: Annotated[int, typer.Option("--count", "-n", help="Pieces of each emotion.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .mid file for one piece, a folder for more (default: here).")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same piece (default: a new one, which is told).")
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            help="best or last of the newest run, RUN/best, a checkpoint's name, a folder, a file, or default, "
            "the bundled voice (default: best, where there is one; else default)."
        ),
    ] = "",
    prime: Annotated[Path | None, typer.Option(help="A MIDI file that the piece begins with and goes on from.")] = None,
    mode: Annotated[Literal["major", "minor"] | None, typer.Option(help="Major or minor.")] = None,
    key: Annotated[str | None, typer.Option(help='The key, as in "A minor", Am, Eb, "F# major".')] = None,
    density: Annotated[float | None, typer.Option(help="Notes per second, 0.5 to 30.")] = None,
    loudness: Annotated[float | None, typer.Option(help="Mean MIDI velocity, 1 to 127.")] = None,
    register: Annotated[float | None, typer.Option(help="Mean MIDI pitch, 21 to 108 (middle C is 60).")] = None,
    wav: outputs.Wav = False,
    ogg: outputs.Ogg = False,
    mp3: outputs.Mp3 = False,
    png: outputs.Png = False,
    html: outputs.Html = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
    *,
    settings: Settings,
) -> None:  # one parameter a flag
    """Compose pieces for an emotion and an exact length.

    The last note is released at the second asked for. Mode, key, density, loudness and register
    follow the emotion unless they are given. What made a file is written into it: emogen show FILE.
    With --emotion all and --html there is an index.html, on which every piece can be played.
    """
    names = EMOTIONS if emotion.strip().lower() == "all" else (emotion,)
    mixtures = [parse_mixture(name) for name in names]
    tonic, its_mode = _key(key, mode)
    pins = _pins(its_mode, density, loudness, register)
    check_range("--seconds", seconds, 5, 600)
    check_range("--count", count, 1, MOST_PIECES)
    if seed is None:
        seed = secrets.randbelow(2**31)
    check_range("--seed", seed, 0, 2**32 - count)
    seeds = [seed + number for number in range(count)]
    stems = [provenance.called(mixture, "{name}-{share:.2g}", "_") for mixture in mixtures]
    files = _files(out, [f"{stem}_{seconds:g}s_seed{one}.mid" for stem in stems for one in seeds], force)
    kinds = outputs.chosen(wav=wav, ogg=ogg, mp3=mp3, png=png, html=html)
    index = [files[0].with_name("index.html")] if html and len(mixtures) > 1 else []
    outputs.check([*outputs.beside(files, kinds), *index], kinds, settings.paths.soundfont, force)

    from emogen.model import checkpoint as checkpoints
    from emogen.training import shelf

    path = shelf.resolve(checkpoint, settings.paths.runs)
    meta = checkpoints.read_meta(path)
    plans = checkpoints.plans_of(path, meta)
    opening = _opening(prime, seconds)
    label = shelf.label(path, meta)
    console.print(f"composing with {escape(label)}, seed {seed}")

    from emogen.composing.generate import Wish  # imports torch: everything cheap is checked by now
    from emogen.music.midi import read_piece

    wishes = [Wish(mixture, seconds, one, pins, tonic=tonic) for mixture in mixtures for one in seeds]
    pieces = compose(path, meta, plans, wishes, settings, opening)
    rows = [
        _write(file, piece, wish, {"checkpoint": label, **_how(settings, prime)})
        for file, piece, wish in zip(files, pieces, wishes, strict=True)
    ]
    if not as_json:
        if len(files) == 1 and console.is_terminal and rows[0]["notes"]:
            console.print(terminal_roll.roll(read_piece(files[0]), console, beside_lines=4))
        _print_table(rows)
    for row, file in zip(rows, files, strict=True) if kinds else ():  # every MIDI file is written by now
        row["rendered"] = list(map(str, outputs.write(file, file, kinds, settings.paths.soundfont)))
    whole = all(len(row["rendered"]) == len(kinds) for row in rows if kinds)
    if index:
        whole &= outputs.write_index(index[0], rows)
    if as_json:
        echo(json.dumps(rows, indent=2))
    if not whole:
        raise typer.Exit(1)


def _key(key: str | None, mode: str | None) -> tuple[int | None, str | None]:
    """The tonic (0 is C) and the mode that are wanted; None is left open."""
    if key is None:
        return None, mode
    written = re.fullmatch(r"([A-G])([#b]?) *(major|maj|minor|min|m|)", key.strip(), re.IGNORECASE)
    if not written:
        raise UsageError(f"--key {key} is no key", 'keys are written "A minor", Am, Eb, "F# major"')
    letter, accidental, its_mode = written.groups()
    own = "minor" if its_mode.lower() in ("minor", "min", "m") else "major"
    if mode not in (None, own):
        raise UsageError(f"--key {key} is {own}, --mode is {mode}", "leave one of them out")
    return (
        dict(zip("CDEFGAB", (0, 2, 4, 5, 7, 9, 11), strict=True))[letter.upper()]
        + {"": 0, "#": 1, "b": -1}[accidental.lower()]
    ) % 12, own


def _pins(mode: str | None, density: float | None, loudness: float | None, register: float | None) -> dict[str, float]:
    """The plan's entries that are given, in the units of ``plan.ENTRIES``."""
    pins = {}
    if mode is not None:
        pins["mode"] = MODE_FIT[mode]
    if density is not None:
        check_range("--density", density, 0.5, 30)
        pins["density"] = math.log(density)
    if loudness is not None:
        check_range("--loudness", loudness, 1, 127)
        pins["velocity"] = loudness
    if register is not None:
        check_range("--register", register, 21, 108)
        pins["pitch"] = register
    return pins


def _files(out: Path | None, names: list[str], force: bool) -> list[Path]:
    """Where the pieces go; nothing that exists is replaced unasked, and nothing composed that could not be written."""
    if out is not None and out.suffix.lower() in (".mid", ".midi") and not out.is_dir():
        if len(names) > 1:
            raise UsageError(f"--out {out} is one file, and there are {len(names)} pieces", "give --out a folder")
        files = [out]
    else:
        files = [(out or Path()) / name for name in names]
    there = [file for file in files if file.exists()]
    if there and not force:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise EmogenError(f"{there[0]}{more} exists already", "--force replaces it, --out or --seed chooses another")
    folder = files[0].parent
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    if not existing.is_dir():
        raise EmogenError(f"{existing} is not a folder", "--out takes a .mid file or a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise EmogenError(f"{existing} cannot be written to", "--out chooses another folder")
    return files


def _opening(prime: Path | None, seconds: float) -> Tokens | None:
    """The tokens of a file to begin with; None without one."""
    if prime is None:
        return None
    from emogen.music.midi import read_piece
    from emogen.music.tokens import encode, releases_ms

    try:
        opening = encode(read_piece(prime, any_instrument=True))
    except UnusableFile as error:
        raise EmogenError(f"--prime {prime}: {error}", error.hint) from None
    end_s = releases_ms(opening).max() / 1000
    if end_s > seconds - 1:
        raise UsageError(
            f"--prime {prime} lasts {end_s:.1f} s of the {seconds:g} s asked for", "ask for more --seconds"
        )
    return opening


def compose(
    path: Path, meta: Meta, plans: PlanTable, wishes: list[Wish], settings: Settings, opening: Tokens | None
) -> Iterator[Piece]:  # six: the checkpoint in three parts, what is wished, how to draw, what to begin with
    """The pieces, some at a time, with a bar on a terminal."""
    from emogen.composing.parallel import generate_all
    from emogen.model.opening import open_to_compose

    model = open_to_compose(path, meta, settings.sample)
    bar = Progress(
        TextColumn("composing"), BarColumn(), TimeRemainingColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=sum(wish.seconds for wish in wishes))

        def tell(done_s: float) -> None:
            bar.update(task, completed=done_s)

        yield from generate_all(model, plans, wishes, settings.sample, opening, tell)


def _how(settings: Settings, prime: Path | None) -> dict[str, Any]:
    """How the pieces were drawn, for the manifest."""
    sample = settings.sample.model_dump(exclude={"device", "threads"})
    return sample | ({"prime": prime.name} if prime else {})


def _write(file: Path, piece: Piece, wish: Wish, how: dict[str, Any]) -> dict[str, Any]:
    """Write one piece with what made it; returns what the table and ``--json`` tell of it."""
    from emogen.music.measures import TONICS, measure
    from emogen.music.midi import write_piece

    wanted = {"emotion": dict(wish.emotion), "seconds": wish.seconds, "seed": wish.seed, "plan": dict(wish.pins)}
    if wish.tonic is not None:
        wanted["tonic"] = TONICS[wish.tonic]
    write_piece(piece, file, text=json.dumps({"emogen": __version__, **wanted, **how}))
    found = measure(piece)
    facts = {"length_s": found.length_s, "notes": found.notes, "notes_per_s": round(found.notes_per_s, 2)}
    return {"file": str(file), **wanted, **facts, "key": found.key}


def _print_table(rows: list[dict[str, Any]]) -> None:
    table = Table("file", "emotion", box=None, padding=(0, 2, 0, 0))
    for title in ("length", "notes", "notes/s"):
        table.add_column(title, justify="right")
    table.add_column("key")
    for row in rows:
        emotion = provenance.called(row["emotion"])
        numbers = (f"{row['length_s']:.1f} s", str(row["notes"]), f"{row['notes_per_s']:.1f}")
        table.add_row(escape(row["file"]), emotion, *numbers, row["key"])
    console.print(table)
