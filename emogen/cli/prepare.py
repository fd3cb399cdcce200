"""``emogen prepare``: turn a dataset into data that training opens at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import DownloadColumn, MofNCompleteColumn
from rich.table import Table

from emogen.cli.console import bar, console, echo, table
from emogen.cli.options import AsJson, settings_options
from emogen.data.corpus import SPLITS, Manifest
from emogen.data.download import EMOPIA_LICENCE, fetch_emopia
from emogen.data.prepare import Report
from emogen.data.prepare import prepare as prepare_corpus
from emogen.errors import UsageError
from emogen.settings import Settings

FEWEST_SONGS = 3
"""With fewer, none is left to validate with: see ``split.split_songs``."""
SHOWN = 20
"""Largest number of left-out files that are printed; the manifest lists all."""


@settings_options("data", "paths.home")
def prepare(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE", help="EMOPIA, or folders named after emotions (or a .zip of them); or a .csv list."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the prepared corpus (default: the source's).")] = "",
    emotion: Annotated[
        str, typer.Option(metavar="none", help="none: take every MIDI file, without labels, for pre-training.")
    ] = "",
    download: Annotated[bool, typer.Option("--download", help="Fetch EMOPIA 2.2 and prepare it.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Prepare the source again even if nothing has changed.")
    ] = False,
    as_json: AsJson = False,
    *,
    settings: Settings,
) -> None:
    """Read a corpus of labelled MIDI files and make it ready for training.

    Labels come from EMOPIA's file names, from folders named after emotions,
    or from a CSV file with the columns path,emotion[,song].
    Songs stay whole: no song is in two splits.
    """
    if emotion not in ("", "none"):
        raise UsageError(f"--emotion {emotion}: prepare takes labels from the files", "--emotion none ignores them")
    if (source is None) == (not download):
        hint = "emogen prepare ./EMOPIA_1.0, or emogen prepare --download"
        raise UsageError("name a source or --download, one of the two", hint)
    data_home = settings.paths.data_home
    if source is None:
        console.print(EMOPIA_LICENCE)
        with bar("fetching EMOPIA 2.2", DownloadColumn(), say_once=True) as progress:
            source = fetch_emopia(data_home, progress)
    with bar("reading files", MofNCompleteColumn(), say_once=True) as progress:
        report = prepare_corpus(
            source, data_home, settings.data, name=name, unlabelled=emotion == "none", force=force, progress=progress
        )
    if as_json:
        facts = {"directory": str(report.directory), "already_there": report.already_there, "seconds": report.seconds}
        echo(json.dumps(facts | report.manifest.model_dump(), indent=2))
    else:
        _print_report(report)


def _print_report(report: Report) -> None:
    manifest = report.manifest
    if report.already_there:
        console.print(f"prepared already on {manifest.created_utc}; --force prepares it again")
    console.print(_table(manifest))
    for title, pairs in (("left out", manifest.left_out), ("remarked", manifest.remarks)):
        for path, reason in pairs[:SHOWN]:
            console.print(f"{title}: {escape(path)}: {escape(reason)}", soft_wrap=True)
        if len(pairs) > SHOWN:
            console.print(f"{title}: {len(pairs) - SHOWN} more, all in {escape(str(report.directory))}/manifest.json")
    console.print(f"{escape(manifest.name)} is ready in {escape(str(report.directory))} ({report.seconds:.1f} s)")
    if report.instead_of:
        instead_of = escape(report.instead_of)
        console.print(f"train and judge --fit take it from now on; before, {instead_of}: --data {instead_of}")
        console.print("evaluate takes the corpus on which a checkpoint was trained")
    if len(manifest.songs) >= FEWEST_SONGS:
        console.print("next: emogen train")
    else:
        console.print(f"training takes {FEWEST_SONGS} songs or more: add some")


def _table(manifest: Manifest) -> Table:
    """Clips, songs, notes and hours by split and emotion."""
    shown = table("split", "emotion", ">clips", ">songs", ">notes", ">hours")
    for split in (*SPLITS, "all"):
        rows = [row for row in manifest.counts if row["split"] == split]
        rows = rows[:1] if len(rows) == 2 else rows  # with one emotion, its row is the sum
        for row in rows:
            last = row is rows[-1]
            numbers = (f"{row['clips']:,}", f"{row['songs']:,}", f"{row['notes']:,}", f"{row['hours']:.2f}")
            first = split if row is rows[0] else ""
            shown.add_row(first, row["emotion"], *numbers, style="bold" if last else None, end_section=last)
    return shown
