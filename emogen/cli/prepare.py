"""``emogen prepare``: from a dataset as it comes to data that training opens at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Protocol

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from emogen.cli.console import console, echo
from emogen.cli.options import settings_options
from emogen.data.corpus import SPLITS, Manifest
from emogen.data.download import EMOPIA_LICENCE, fetch_emopia
from emogen.data.prepare import Report
from emogen.data.prepare import prepare as prepare_corpus
from emogen.errors import UsageError
from emogen.settings import Settings

FEWEST_SONGS = 3
"""With fewer, none is left to validate with: see ``split.split_songs``."""
SHOWN = 20
"""Files left out that are listed; the manifest lists all."""


@settings_options("data", "paths.home")
def prepare(
    source: Annotated[
        Path | None,
        typer.Argument(help="EMOPIA, a folder for each emotion, or any MIDI files: a folder or .zip; or a .csv list."),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the prepared corpus (default: the source's).")] = "",
    emotion: Annotated[
        str, typer.Option(metavar="none", help="'none' takes every MIDI file, without labels (for pre-training).")
    ] = "",
    download: Annotated[bool, typer.Option("--download", help="Fetch EMOPIA 2.2 and prepare it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Prepare again what is prepared already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
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
        with _progress("fetching EMOPIA 2.2", DownloadColumn()) as progress:
            source = fetch_emopia(data_home, progress)
    with _progress("reading files", MofNCompleteColumn()) as progress:
        report = prepare_corpus(
            source, data_home, settings.data, name=name, unlabelled=emotion == "none", force=force, progress=progress
        )
    if as_json:
        facts = {"directory": str(report.directory), "already_there": report.already_there, "seconds": report.seconds}
        echo(json.dumps(facts | report.manifest.model_dump(), indent=2))
    else:
        _print_report(report)


class _Step(Protocol):
    def __call__(self, done: int, total: int) -> None: ...


@contextmanager
def _progress(what: str, amount: ProgressColumn) -> Iterator[_Step]:
    """A function that shows how much of something is done: a bar on a terminal, one line elsewhere.

    Nothing is shown before the first step (there may be none), and the bar's thread starts after the workers.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(what)
    began = False

    def step(done: int, total: int) -> None:
        nonlocal began
        bar.update(task, completed=done, total=total or None)
        if not began and console.is_terminal:
            bar.start()
        elif not began:
            console.print(f"{what} ...")
        began = True

    try:
        yield step
    finally:
        if began and console.is_terminal:
            bar.stop()


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
    if len(manifest.songs) >= FEWEST_SONGS:
        console.print("next: emogen train")
    else:
        console.print(f"training takes {FEWEST_SONGS} songs or more: add some")


def _table(manifest: Manifest) -> Table:
    """Clips, songs, notes and hours by split and emotion."""
    table = Table("split", "emotion", box=None, padding=(0, 2, 0, 0))
    for measure in ("clips", "songs", "notes", "hours"):
        table.add_column(measure, justify="right")
    for split in (*SPLITS, "all"):
        rows = [row for row in manifest.counts if row["split"] == split]
        rows = rows[:1] if len(rows) == 2 else rows  # the sum of one emotion says nothing new
        for row in rows:
            last = row is rows[-1]
            numbers = (f"{row['clips']:,}", f"{row['songs']:,}", f"{row['notes']:,}", f"{row['hours']:.2f}")
            first = split if row is rows[0] else ""
            table.add_row(first, row["emotion"], *numbers, style="bold" if last else None, end_section=last)
    return table
