"""``emogen listening-test``: a page on which people judge pieces without knowing their origin, and its score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from emogen.cli import outputs
from emogen.cli.console import console, echo, output, table
from emogen.cli.options import M_SS, AsJson, refuse_existing, seconds_of, settings_options
from emogen.emotion import EMOTIONS
from emogen.errors import UsageError, check_range
from emogen.settings import SampleSettings, Settings

if TYPE_CHECKING:
    from emogen.composing.voice import Voice
    from emogen.music.notes import Piece

KEY_SUFFIX = ".key.json"
REAL = "real music"
"""The origin of the pieces of --real."""
SHOWN = {
    "emotion": ("emotion heard", "{:.0%}"), "quadrant": ("quadrant heard", "{:.0%}"), "valence": ("valence", "{:+.2f}"),
    "arousal": ("arousal", "{:+.2f}"), "musicality": ("musicality", "{:.2f}"),
}  # fmt: skip
"""For each of ``listening.MEASURES``, the title of its row and the format of its numbers."""


@settings_options("sample", "paths.runs", "paths.soundfont")
def listening_test(
    answers: Annotated[
        list[Path] | None, typer.Argument(metavar="ANSWERS...", help="With --score: the files that listeners saved.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="A checkpoint, as for emogen generate; repeat the flag for several.")
    ] = None,
    real: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Real music to hide among the pieces: a folder (or .zip) as for prepare."),
    ] = None,
    pieces: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Any system's labelled MIDI files, as for emogen evaluate; repeat the flag for several.",
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Pieces of each emotion and origin, 1 to 50.")] = 1,
    seconds: Annotated[
        float, typer.Option(help="Length of each piece, 5 to 60.", parser=seconds_of, metavar=M_SS)
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the pieces and of the choice of clips.", min=0)] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page; its key is written beside it.")] = Path(
        "listening-test.html"
    ),
    score: Annotated[bool, typer.Option("--score", help="Print what the listeners said, with 95 % intervals.")] = False,
    key: Annotated[
        Path | None, typer.Option(help="The key for --score (default: listening-test.key.json beside the answers).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing page and key.")] = False,
    as_json: AsJson = False,
    *,
    settings: Settings,
) -> None:  # one parameter per flag
    """Write a blind listening test, and score its answers.

    Every listener hears the same pieces in another order, says which emotion each of them expresses and how
    pleasant, lively and musical it is, and saves the answers as a file. The page holds no names: keep the key to
    yourself.
    """
    if score != bool(answers):
        raise UsageError(
            "--score and files of answers must be given together", "emogen listening-test --score answers_*.json"
        )
    if answers:
        _score(answers, key or answers[0].with_name("listening-test" + KEY_SUFFIX), as_json)
        return
    check_range("--count", count, 1, 50)
    check_range("--seconds", seconds, 5, 60)
    if not (checkpoint or real or pieces):
        raise UsageError("nothing to listen to", "emogen listening-test --checkpoint best --checkpoint default")
    if real and len(real) > 1:
        raise UsageError("--real was given twice", "name further folders: --pieces theirs=./folder")
    key_file = out.with_suffix(KEY_SUFFIX)
    refuse_existing([out, key_file], force, "; answers to it can then not be scored")
    outputs.check_sound(settings.paths.soundfont)
    from emogen.evaluation import listening, systems

    folders = systems.named(pieces or [])
    voices = _voices(checkpoint or [], settings)
    if twice := ({*voices, REAL} & folders.keys()):
        raise UsageError(f"two of the origins are called '{min(twice)}'", "give the folder another name")
    heard = [(REAL, *one) for source in real or [] for one in listening.real_pieces(source, count, seconds, seed)]
    for name, folder in folders.items():
        found = systems.find(folder)
        heard += [(name, *one) for one in listening.chosen_pieces(found, folder, count, seconds, seed)]
    for label, voice in voices.items():
        console.print(f"composing with {escape(label)} ...")
        heard += [(label, *one) for one in _composed(voice, count, seconds, seed, settings.sample)]
    _write(out, key_file, heard, seed, settings.paths.soundfont)
    minutes = len(heard) * (seconds + 15) / 60
    console.print(escape(f"{out}: {len(heard)} pieces, {out.stat().st_size / 1e6:.1f} MB, about {minutes:.0f} minutes"))
    console.print(escape(f"{key_file}: which piece is whose; keep it to yourself"))


def _voices(names: list[str], settings: Settings) -> dict[str, Voice]:
    """The voices by their labels, or by their paths where two are labelled alike."""
    from emogen.composing.voice import Voice

    voices = [Voice.open(name, settings.paths.runs) for name in names]
    for named in ({voice.label: voice for voice in voices}, {str(voice.path.resolve()): voice for voice in voices}):
        if len(named) == len(voices):
            return named
    raise UsageError("two of the checkpoints are the same", "compare different ones")


def _composed(
    voice: Voice, count: int, seconds: float, seed: int, sample: SampleSettings
) -> list[tuple[str, str, Piece]]:
    """Emotion, seed and piece; every voice gets the same wishes."""
    from emogen.cli.generate import compose
    from emogen.composing.wish import Wish

    wishes = [Wish({name: 1.0}, seconds, seed + number) for name in EMOTIONS for number in range(count)]
    made = compose(voice, wishes, sample)
    return [(next(iter(wish.emotion)), f"seed {wish.seed}", piece) for wish, piece in zip(wishes, made, strict=True)]


def _write(
    out: Path, key_file: Path, pieces: list[tuple[str, str, str, Piece]], seed: int, soundfont: Path | None
) -> None:
    """Record all pieces (origin, wanted emotion, source, music) in the same way, and write the page and its key."""
    from emogen.evaluation import listening
    from emogen.sound.render import audio, small_mp3

    console.print(f"recording {len(pieces)} pieces ...")
    trials = [
        listening.Trial(origin, wanted, source, small_mp3(audio(piece, soundfont)))
        for origin, wanted, source, piece in pieces
    ]
    listening.write_test(out, key_file, trials, seed)


def _score(answers: list[Path], key: Path, as_json: bool) -> None:
    from emogen.evaluation import listening

    rows = listening.score(answers, key)
    if as_json:
        echo(json.dumps(rows, indent=2))
        return
    output.print(_table(rows))
    console.print(
        "mean (95 % interval). Emotion and quadrant: answers that name the intended one (chance 17 %, 28 %); valence "
        "and arousal: difference, on a scale of 1 to 5, between pieces intended high and low; musicality: 1 to 5"
    )


def _table(rows: list[dict[str, Any]]) -> Table:
    """One column per origin."""
    shown = table("", *(f">{escape(row['origin'])}" for row in rows))
    for name in ("pieces", "listeners", "answers"):
        shown.add_row(name, *(str(row[name]) for row in rows))
    for name, (title, written) in SHOWN.items():
        both = f"{written} ({written}..{written})"
        cells = (
            both.format(row[name]["mean"], row[name]["low"], row[name]["high"]) if row[name] else "-" for row in rows
        )
        shown.add_row(title, *cells)
    return shown
