"""``emogen judge``: judges any MIDI file; and fits the judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from emogen.cli import outputs
from emogen.cli.console import console, echo, output, table
from emogen.cli.options import AsJson, refuse_existing, settings_options
from emogen.errors import EmogenError, UsageError
from emogen.settings import Settings

if TYPE_CHECKING:
    from emogen.ear.fitted import Opinion


@settings_options("paths.home")
def judge(
    midi: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="MIDI files, or folders of them.")
    ] = None,
    ear: Annotated[Path | None, typer.Option(help="Your own ear, made by --fit (default: the bundled one).")] = None,
    fit: Annotated[
        Path | None, typer.Option(help="Fit the judges on a corpus's training songs, and write them to this file.")
    ] = None,
    data: Annotated[str, typer.Option(help="The prepared corpus to fit on (default: the last prepared).")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file that --fit names.")] = False,
    as_json: AsJson = False,
    *,
    settings: Settings,
) -> None:
    """Judge the emotion and the coherence of MIDI files.

    The judge is not the network: it looks at musical features, and was fitted on the training songs of
    EMOPIA. It names the right quadrant in about three of four real clips that it has never heard; emogen
    evaluate prints its accuracy. A file that cannot be read is reported, and the others are judged all the same.
    """
    if (fit is None) == (not midi):
        raise UsageError("name MIDI files or --fit, one of the two", "emogen judge piece.mid")
    if fit:
        _fit(fit, data, force, settings)
        return
    from emogen.ear.fitted import BUNDLED, Ear

    listener = Ear.load(ear or BUNDLED)
    rows, whole = [], True

    def failed(error: EmogenError) -> None:
        nonlocal whole
        outputs.say_error(str(error), error.hint)
        whole = False

    for file in _files(midi or [], failed):
        try:
            (heard,) = listener.opinions([outputs.read(file)])
        except EmogenError as error:
            failed(error)
        else:
            rows.append(_row(file, heard))
    if as_json:
        echo(json.dumps(rows, indent=2))
    else:
        if rows:
            output.print(_table(rows))
            console.print("probabilities of the quadrants; coherence: log odds of real music against disturbed copies")
    if not whole:
        raise typer.Exit(1)


def _files(named: list[Path], failed: Callable[[EmogenError], None]) -> Iterator[Path]:
    """The files, and the MIDI files in the folders; ``failed`` hears of folders that hold none."""
    from emogen.data.sources import find

    for path in named:
        try:
            yield from (path / file.name for file in find(path, unlabelled=True).files) if path.is_dir() else (path,)
        except EmogenError as error:
            failed(error)


def _row(file: Path, heard: Opinion) -> dict[str, Any]:
    return {
        "file": str(file),
        "quadrant": heard.quadrant,
        "chance": {quadrant: round(p, 3) for quadrant, p in heard.chance.items()},
        "arousal": round(heard.arousal, 3),
        "valence": round(heard.valence, 3),
        "coherence": round(heard.coherence, 2),
    }


def _fit(file: Path, data: str, force: bool, settings: Settings) -> None:
    from emogen.data import corpus
    from emogen.ear.fitted import Ear

    refuse_existing([file], force)
    prepared = corpus.open_corpus(settings.paths.data_home, data)
    console.print(f"fitting on the training songs of {escape(prepared.manifest.name)} ...")
    fitted = Ear.fit(prepared)
    fitted.save(file)
    for name, scores in (("", fitted.scores), ("the second judge, ", fitted.second_scores)):
        console.print(
            f"{name}cross-validated by song: quadrant {scores.quadrant:.3f}, arousal {scores.arousal:.3f}, "
            f"valence {scores.valence:.3f}"
        )
    told = ", ".join(f"{name} {value:.3f}" for name, value in fitted.coherence.aucs.items())
    console.print(f"coherence, AUC by song: {told}")
    console.print(escape(f"{file}: {file.stat().st_size / 1e6:.2f} MB"))


def _table(rows: list[dict[str, Any]]) -> Table:
    shown = table("file", "heard", ">Q1", ">Q2", ">Q3", ">Q4", ">arousal", ">valence", ">coherence")
    for row in rows:
        chances = (f"{p:.0%}" for p in row["chance"].values())
        numbers = (*chances, f"{row['arousal']:.0%}", f"{row['valence']:.0%}", f"{row['coherence']:.1f}")
        shown.add_row(escape(row["file"]), row["quadrant"], *numbers)
    return shown
