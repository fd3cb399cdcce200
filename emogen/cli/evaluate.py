"""``emogen evaluate``: one page that says how well a checkpoint obeys, how musical it is and whether it copies."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from emogen.cli import yardstick
from emogen.cli.console import bar, console, echo, output, table
from emogen.cli.options import M_SS, AsJson, Force, seconds_of, settings_options
from emogen.errors import EmogenError, UsageError, check_range
from emogen.settings import Settings

SHOWN = {
    "notes_per_s": "notes/s", "velocity": "velocity", "pitch": "pitch", "pitch_range": "pitch range",
    "pitch_classes": "pitch classes", "polyphony": "polyphony", "ioi_variation": "onset variation",
    "scale_consistency": "in one scale", "pitch_class_entropy": "entropy, bits", "longest_silence_s": "silence, s",
    "repetition": "repetition",
}  # fmt: skip
"""The printed name of each of ``sections.MEASURES``."""


@settings_options("sample", "paths.runs", "paths.home", "paths.soundfont")
def evaluate(
    checkpoint: Annotated[
        str, typer.Option(help="As for emogen generate (default: best, where that is better than the bundled voice).")
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            help="Name or folder of a prepared, labelled corpus (default: that of the checkpoint, or the last)."
        ),
    ] = "",
    count: Annotated[int, typer.Option(help="Pieces of each emotion, 2 to 1000.")] = 40,
    seconds: Annotated[
        float, typer.Option(help="Length of each piece, 10 to 180.", parser=seconds_of, metavar=M_SS)
    ] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of the pieces; the same gives the same page.", min=0)] = 0,
    pieces: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Measure a folder of labelled MIDI files, not a checkpoint; repeat the flag for several systems.",
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="With --pieces: the baselines and the bundled voice beside them.")
    ] = False,
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", "-o", help="With --pieces: write a report, .html, .json or .tex; may be repeated."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    *,
    settings: Settings,
) -> None:
    """Measure a checkpoint, or any system's pieces: obedience, musicality, memory, coherence.

    Pieces are compared with real clips of songs that were not trained on (the corpus's test songs). With --pieces
    they come from folders: labelled by EMOPIA's file names, by folders called happy or Q1 and so on, or by a CSV file.
    """
    check_range("--count", count, 2, 1000)
    check_range("--seconds", seconds, 10, 180)
    if pieces and checkpoint:
        raise UsageError("--pieces and --checkpoint exclude each other", "--pieces measures files, whoever made them")
    if (out or baselines) and not pieces:
        raise UsageError(
            "--out and --baselines need --pieces", "emogen evaluate --pieces mine=./folder --out report.html"
        )
    if pieces:
        _folders(pieces, data, seconds, count if baselines else 0, out or [], force, as_json, settings)
        return
    from emogen.composing.voice import Voice
    from emogen.data import corpus
    from emogen.ear.fitted import Ear

    voice = Voice.open(checkpoint, settings.paths.runs)
    own = corpus.with_fingerprint(settings.paths.data_home, voice.meta.dataset.fingerprint)
    prepared = corpus.open_corpus(settings.paths.data_home, data or own)
    if not (prepared.emotion[prepared.clips("test")] >= 0).any():
        raise EmogenError(
            f"{prepared.manifest.name} has no labelled test clips to compare with", "prepare EMOPIA, or choose --data"
        )
    ear = Ear.load()
    console.print(f"evaluating {escape(voice.label)} beside {escape(prepared.manifest.name)}, seed {seed}")
    trained_on = {facts.fingerprint for facts in (*voice.meta.ancestors, voice.meta.dataset)}
    if prepared.manifest.fingerprint not in trained_on:
        console.print("careful: the model was trained on other splits, and may know these test songs")
    if ear.knows(prepared):
        console.print("careful: the judges were fitted on some of these test songs")
    from emogen.evaluation.evaluate import evaluate as measure  # imports torch: everything cheap is checked by now

    with bar("composing") as step:
        report = measure(
            voice, prepared, ear, settings.sample, count=count, seconds=seconds, seed=seed,
            tell=lambda what, share: step(share, 1.0, what),
        )  # fmt: skip
    report = {"checkpoint": voice.label, "data": prepared.manifest.name, "count": count, "seconds": seconds,
              "seed": seed, "sample": settings.sample.model_dump(mode="json"), **report}  # fmt: skip
    if as_json:
        echo(json.dumps(report, indent=2))
    else:
        for title, section in _page(report):
            output.print(title, style="bold", highlight=False)
            output.print(section)
            output.print()


def _folders(
    pieces: list[str],
    data: str,
    seconds: float,
    baselines: int,
    out: list[Path],
    force: bool,
    as_json: bool,
    settings: Settings,
) -> None:  # eight: the flags that count with --pieces
    """Measure folders; ``baselines`` is the number of pieces of each emotion by the voice, 0 for no baselines."""
    yardstick.check_reports(out, force, settings.paths.soundfont)
    from emogen.evaluation import beside

    prepared = beside.reference(settings.paths.data_home, data)
    report, some = yardstick.measured(pieces, prepared, seconds, baselines, settings)
    yardstick.write(out, report, some, settings.paths.soundfont)
    if as_json:
        echo(json.dumps(report, indent=2))
    else:
        yardstick.show(report)


def _page(report: dict[str, Any]) -> list[tuple[str, Table]]:
    """The report as titled tables."""
    obeys = report["obedience"]
    return [
        ("likelihood: nats per note on the test songs", _likelihood(report["likelihood"])),
        ("obedience: what the judge hears, with 95 % intervals", _obedience(obeys)),
        ("quadrants intended (rows) and heard: generated, real test clips", _confusion(obeys)),
        ("steering: plan entries, asked for and obtained; length", _steering(report["steering"], report["length"])),
        ("music: mean generated / real, and overlap; last column: overlap of real test and training clips",
         _music(report["music"])),
        ("craft, a second judge, told apart: means ± half of the 95 % interval; real clips disturbed",
         yardstick.page(report["yardstick"], yardstick.BESIDE)),
        ("the rest", _rest(report)),
    ]  # fmt: skip


def _numbers(title: str, *columns: str) -> Table:
    """A table with names on the left and numbers in all other columns."""
    return table(title, *(f">{column}" for column in columns))


def _likelihood(found: dict[str, Any]) -> Table:
    families = [name for name in found["with_emotion"] if name != "all"]
    shown = _numbers(f"{found['notes']:,} notes", "all", *families)
    for name, key in (("emotion known", "with_emotion"), ("emotion hidden", "without_emotion")):
        shown.add_row(name, *(f"{found[key][one]:.3f}" for one in ("all", *families)))
    for name, nats in found["by_emotion"].items():
        shown.add_row(f"{name} clips", f"{nats['with']:.3f}", f"(hidden {nats['without']:.3f})")
    return shown


def _obedience(found: dict[str, Any]) -> Table:
    shown = _numbers("", "quadrant", "arousal", "valence")
    for name, key in (("generated", "generated"), ("real test clips", "real")):
        cells = (found[key][one] for one in ("quadrant", "arousal", "valence"))
        shown.add_row(name, *(f"{cell['share']:.2f} ({cell['low']:.2f}..{cell['high']:.2f})" for cell in cells))
    judge = found["judge"]
    shown.add_row("judge, cross-validated", *(f"{judge[one]:.2f}" for one in ("quadrant", "arousal", "valence")))
    return shown


def _confusion(found: dict[str, Any]) -> Table:
    names = ("Q1", "Q2", "Q3", "Q4")
    shown = _numbers("", *names, "", *names)
    rows = zip(found["generated"]["confusion"], found["real"]["confusion"], strict=True)
    for name, (generated, real) in zip(names, rows, strict=True):
        shown.add_row(name, *map(str, generated), name, *map(str, real))
    return shown


def _steering(found: dict[str, Any], lengths: dict[str, Any]) -> Table:
    shown = _numbers("plan entry", "correlation", "error (SD)", "length", "median error", "worst")
    entries = [(name, f"{one['correlation']:.2f}", f"{one['error']:.3g}") for name, one in found.items()]
    rows = [(f"{name} s", f"{one['median']:.3f} s", f"{one['worst']:.3f} s") for name, one in lengths.items()]
    for left, right in zip_longest(entries, rows, fillvalue=("", "", "")):
        shown.add_row(*left, *right)
    return shown


def _music(found: dict[str, Any]) -> Table:
    shown = _numbers("", *found, "real")
    for key, name in SHOWN.items():
        measures = [quadrant[key] for quadrant in found.values()]
        cells = (f"{one['generated']:.3g} / {one['real']:.3g}  {one['overlap']:.2f}" for one in measures)
        shown.add_row(name, *cells, f"{sum(one['overlap_of_real'] for one in measures) / len(measures):.2f}")
    return shown


def _rest(report: dict[str, Any]) -> Table:
    shown = table("", "", header=False)
    broken, memory, coherence = report["breakage"], report["memory"], report["coherence"]
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in broken.items() if name != "pieces")
    source = memory["longest_run_from"] or "nowhere"
    shown.add_row("breakage", f"of {broken['pieces']} pieces {told}")
    shown.add_row(
        "memory",
        f"{memory['generated']:.2%} of runs of 12 notes occur in the training songs (real {memory['real']:.2%}); "
        f"longest {memory['longest_run']} notes (real {memory['longest_run_of_real']}), from {escape(source)}",
    )
    aucs = ", ".join(f"{name} {value:.2f}" for name, value in coherence["auc"].items())
    shown.add_row(
        "coherence",
        f"median at the {coherence['median']:.0f}th percentile of real test clips, quartiles "
        f"{coherence['lower_quartile']:.0f} to {coherence['upper_quartile']:.0f}; the score's AUC: {aucs}",
    )
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in report["variety"].items())
    shown.add_row("variety", f"distance between pieces, generated over real: {ratios}")
    return shown
