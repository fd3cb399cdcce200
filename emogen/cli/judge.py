"""``emogen judge``: what the ear says of any MIDI file; and how an ear is fitted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from emogen.cli.console import console, echo, output, table
from emogen.cli.options import AsJson, refuse_existing, settings_options
from emogen.errors import UsageError
from emogen.settings import Settings


@settings_options("paths.home")
def judge(
    midi: Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="MIDI files.")] = None,
    ear: Annotated[Path | None, typer.Option(help="Your own ear, made by --fit (default: the bundled one).")] = None,
    fit: Annotated[Path | None, typer.Option(help="Fit an ear on a corpus's training songs; write it here.")] = None,
    data: Annotated[str, typer.Option(help="The prepared corpus to fit on (default: the last prepared).")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file that --fit names.")] = False,
    as_json: AsJson = False,
    *,
    settings: Settings,
) -> None:
    """Judge the emotion and the coherence of MIDI files.

    The judge is no network: it looks at musical features, and was fitted on the training songs of EMOPIA.
    It is right about four of five real clips that it has never heard; emogen evaluate prints its accuracy.
    """
    if (fit is None) == (not midi):
        raise UsageError("name MIDI files or --fit, one of the two", "emogen judge piece.mid")
    if fit:
        _fit(fit, data, force, settings)
        return
    from emogen.composing.piece import Piece
    from emogen.ear.fitted import BUNDLED, Ear

    files = midi or []
    opinions = Ear.load(ear or BUNDLED).opinions(map(Piece.read, files))
    rows = [
        {
            "file": str(file),
            "quadrant": heard.quadrant,
            "chance": {quadrant: round(p, 3) for quadrant, p in heard.chance.items()},
            "arousal": round(heard.arousal, 3),
            "valence": round(heard.valence, 3),
            "coherence": round(heard.coherence, 2),
        }
        for file, heard in zip(files, opinions, strict=True)
    ]
    if as_json:
        echo(json.dumps(rows, indent=2))
    else:
        output.print(_table(rows))
        console.print("chances of the quadrants; coherence: log odds of real music against disturbed")


def _fit(file: Path, data: str, force: bool, settings: Settings) -> None:
    from emogen.data import corpus
    from emogen.ear.fitted import Ear

    refuse_existing([file], force)
    prepared = corpus.open_corpus(settings.paths.data_home, data)
    console.print(f"fitting on the training songs of {escape(prepared.manifest.name)} ...")
    fitted = Ear.fit(prepared)
    fitted.save(file)
    scores = fitted.scores
    console.print(
        f"cross-validated by song: quadrant {scores.quadrant:.3f}, arousal {scores.arousal:.3f}, "
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
