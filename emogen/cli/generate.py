"""``emogen generate``: pieces for an emotion and an exact length, as MIDI files."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from emogen import moods
from emogen.cli import outputs, takes
from emogen.cli.console import Step, bar, console
from emogen.cli.options import M_SS, AsJson, Force, seconds_of, settings_options
from emogen.composing import provenance
from emogen.emotion import EMOTIONS, mixture_at, parse_mixture
from emogen.errors import UsageError, check_range
from emogen.settings import SampleSettings, Settings

if TYPE_CHECKING:
    from emogen.composing.piece import Piece
    from emogen.composing.voice import Voice
    from emogen.composing.wish import Wish
    from emogen.music.chart import Chart
    from emogen.music.notes import Piece as Notes

MOST_PIECES, MOST_TAKES = 10_000, 16
EMOTION_HELP = (
    f"{', '.join(EMOTIONS)}; a word for a mood; q1..q4; a mixture (happy:0.7,calm:0.3); passages "
    "(sad 0:00, calm 0:30); an even path (tense > calm); or all, one of each."
)
MOST_OF_NAME = 120
"""Characters of a file's name that tell the emotions: names have 255 bytes at most."""


@settings_options("sample", "paths.runs", "paths.soundfont")
def generate(
    emotion: Annotated[
        str,
        typer.Option(
            "--emotion",
            "-e",
            help=EMOTION_HELP,
        ),
    ] = "",
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", "-s", help="Length of each piece, 5 to 600; or 1:30.", parser=seconds_of, metavar=M_SS
        ),
    ] = 30.0,
    count: Annotated[int, typer.Option("--count", "-n", help="Pieces of each emotion.")] = 1,
    best_of: Annotated[
        int, typer.Option(help="Compose this many takes of each piece, 1 to 16, and keep the best by ear.")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A file for one piece, .mid or .wav, a folder for more (default: here)."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same piece (default: a random one, which is printed).")
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            help="best or last of the newest run, RUN/best, a checkpoint's name, a folder, a file, default (the "
            "bundled voice), or open, from MIT-licensed music alone (default: best, where that is better than default)."
        ),
    ] = "",
    valence: Annotated[
        float | None, typer.Option(help="Instead of --emotion: from unpleasant, -1, to pleasant, 1.")
    ] = None,
    arousal: Annotated[float | None, typer.Option(help="With --valence: from sleepy, -1, to aroused, 1.")] = None,
    cut: Annotated[bool, typer.Option("--cut", help="Passages change at once, not over a few seconds.")] = False,
    marker: Annotated[
        list[float] | None,
        typer.Option(
            help="A time with a bar line and a sound, such as 0:42.5; any number.", parser=seconds_of, metavar=M_SS
        ),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="The end of each piece leads into its beginning.")] = False,
    prime: Annotated[Path | None, typer.Option(help="A MIDI file whose music the piece continues.")] = None,
    prime_from: Annotated[
        float | None, typer.Option(help="Where the part to continue begins.", parser=seconds_of, metavar=M_SS)
    ] = None,
    prime_to: Annotated[float | None, typer.Option(help="Where it ends.", parser=seconds_of, metavar=M_SS)] = None,
    mode: Annotated[Literal["major", "minor"] | None, typer.Option(help="Major or minor.")] = None,
    key: Annotated[str | None, typer.Option(help='The key, such as "A minor", Am, Eb, "F# major".')] = None,
    density: Annotated[float | None, typer.Option(help="Notes per second, 0.5 to 30.")] = None,
    loudness: Annotated[float | None, typer.Option(help="Mean MIDI velocity, 1 to 127.")] = None,
    register: Annotated[float | None, typer.Option(help="Mean MIDI pitch, 21 to 108 (middle C is 60).")] = None,
    tempo: Annotated[float | None, typer.Option(help="Beats per minute, 30 to 240, within a few per cent.")] = None,
    meter: Annotated[str | None, typer.Option(help="4/4 or 3/4.")] = None,
    chords: Annotated[
        str | None, typer.Option(help='A chord per bar, "Am F C G"; bars apart by |; numerals in the key, "i VI"; N.')
    ] = None,
    form: Annotated[str | None, typer.Option(help="The sections, such as AABA (default: by length).")] = None,
    returns: Annotated[
        float | None, typer.Option("--return", help="How strongly a section is heard again, 0 to 1 (default: 0.5).")
    ] = None,
    chart_from: Annotated[Path | None, typer.Option(help="A MIDI file whose tempo, bars and chords to follow.")] = None,
    midi_format: outputs.Format = "1",
    pedal: outputs.Pedal = "none",
    wav: outputs.Wav = False,
    ogg: outputs.Ogg = False,
    mp3: outputs.Mp3 = False,
    png: outputs.Png = False,
    html: outputs.Html = False,
    dry: outputs.Dry = False,
    tail: outputs.Tail = False,
    verbose: outputs.Verbose = False,
    open_it: outputs.Open = False,
    force: Force = False,
    as_json: AsJson = False,
    *,
    settings: Settings,
) -> None:  # one parameter per flag
    """Compose pieces for an emotion and an exact length.

    The last note is released at exactly --seconds. Mode, key, density, loudness, register, tempo, meter, chords
    and form follow the emotion unless they are given. How a file was made is written into it: see emogen show
    FILE. With several pieces, --html also writes an index.html on which to hear and compare them.
    """
    from emogen.composing.wish import Wish

    names = _feelings(emotion, valence, arousal)
    check_range("--count", count, 1, MOST_PIECES)
    check_range("--best-of", best_of, 1, MOST_TAKES)
    if seed is None:
        seed = secrets.randbelow(2**31)
    check_range("--seed", seed, 0, 2**32 - count)
    wanted: Any = {"key": key, "mode": mode, "density": density, "loudness": loudness, "register": register}
    wanted |= {"cut": cut, "markers": marker or (), "loop": loop}
    wanted |= {"tempo": tempo, "meter": meter, "chords": chords, "form": form, "returns": returns}
    if prime is None and not (prime_from is prime_to is None):
        raise UsageError(
            "--prime-from and --prime-to are of a --prime", "emogen generate --prime FILE.mid --prime-to 0:10"
        )
    if chart_from is not None:
        wanted["chart"] = _chart(chart_from, seconds)
    wishes = [Wish.of(name, seconds, seed=seed + number, **wanted) for name in names for number in range(count)]
    kinds = outputs.chosen(wav=wav, ogg=ogg, mp3=mp3, png=png, html=html or open_it)
    kinds += tuple({outputs.named(out)} - {"", "mid", *kinds})
    names_of_files = [_name(wish, best_of) for wish in wishes]
    files = takes.files(out, names_of_files, kinds, settings.paths.soundfont, force, verbose)

    from emogen.composing.piece import Piece
    from emogen.composing.varying import part
    from emogen.composing.voice import Voice  # imports numpy: whatever needs neither it nor a checkpoint is checked
    from emogen.training.shelf import unasked

    voice = Voice.open(checkpoint, settings.paths.runs)
    opening = (
        prime if prime is None or prime_from is prime_to is None else part(Piece.read(prime), prime_from, prime_to)
    )
    pieces = _chosen(voice, wishes, best_of, settings.sample, opening)
    why = f" {unasked(settings.paths.runs)[1]}".rstrip() if not checkpoint else ""
    for word, mixture in _readings(emotion, wishes[0]):
        console.print(escape(f"{word} is read as {provenance.called(mixture)}"), soft_wrap=True)
    console.print(escape(f"composing with {voice.label}{why}, seed {seed}"), soft_wrap=True)
    if settings.sample.threads > (cores := os.cpu_count() or 1):
        console.print(
            f"this computer has {cores} cores, fewer than --threads {settings.sample.threads}: it uses {cores}"
        )
    shape = outputs.shape(midi_format, pedal)
    takes.deliver(files, pieces, kinds, settings.paths.soundfont, as_json, open_it, shape, dry=dry, tail=tail)


def _feelings(emotion: str, valence: float | None, arousal: float | None) -> Sequence[str | dict[str, float]]:
    """What each piece shall feel like, as ``Wish.of`` takes it."""
    if (valence is None) != (arousal is None):
        raise UsageError("--valence and --arousal go together", "give both, -1 to 1")
    if valence is not None and arousal is not None:
        if emotion:
            raise UsageError("--emotion and --valence say the same", "give one of them")
        return [mixture_at(valence, arousal)]
    if not emotion.strip():
        raise UsageError("no emotion was given", f"--emotion takes {', '.join(EMOTIONS)}, a word for a mood, or more")
    return EMOTIONS if emotion.strip().lower() == "all" else (emotion,)


def _readings(emotion: str, wish: Wish) -> list[tuple[str, Mapping[str, float]]]:
    """Each word that is no emotion's name, with the mixture that it was read as."""
    if not emotion:
        return [("this place on the plane", wish.emotion)]
    words = re.findall(r"[a-z][a-z -]*[a-z]", emotion.lower())
    known = {word.strip() for word in words}
    return [(word, parse_mixture(word)) for word in sorted(known - {*EMOTIONS, "all"}) if moods.place(word)]


def _chart(file: Path, seconds: float) -> Chart:
    """The bars of a MIDI file, as they fill some seconds."""
    from emogen.composing.form import like
    from emogen.composing.piece import Piece

    check_range("--seconds", seconds, 5, 600)
    return like(Piece.read(file).chart, seconds)


def _chosen(
    voice: Voice, wishes: list[Wish], best_of: int, sample: SampleSettings, opening: Notes | Path | None
) -> Iterator[Piece]:
    """The piece for each wish: the only take, or the best of some."""
    if best_of == 1:
        return compose(voice, wishes, sample, opening)
    from emogen.ear.fitted import Ear
    from emogen.evaluation.choosing import best_of as chosen
    from emogen.evaluation.choosing import takes as takes_of

    every = [take for wish in wishes for take in takes_of(wish, best_of)]
    return chosen(compose(voice, every, sample, opening), wishes, best_of, Ear.load())


def _name(wish: Wish, best_of: int) -> str:
    """The name of the file for a wish."""
    feelings = [provenance.called(one.emotion, "{name}-{share:.2g}", "_") for one in wish.path]
    chosen = f"_best{best_of}" if best_of > 1 else ""
    return f"{'_to_'.join(feelings)[:MOST_OF_NAME]}_{wish.seconds:g}s_seed{wish.seed}{chosen}.mid"


def compose(
    voice: Voice, wishes: list[Wish], sample: SampleSettings, prime: Notes | Path | None = None
) -> Iterator[Piece]:
    """The pieces, in batches, with a progress bar on a terminal."""
    in_all_s = sum(wish.seconds for wish in wishes)
    step: Step
    pieces = voice.pieces(wishes, sample, prime=prime, tell=lambda done_s: step(done_s, in_all_s))

    def beside_a_bar() -> Iterator[Piece]:
        nonlocal step
        with bar("composing") as step:
            yield from pieces

    return beside_a_bar()
