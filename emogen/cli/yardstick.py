"""The yardstick on a terminal: one column per system, beside real clips and what disturbing them does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from emogen.cli import outputs
from emogen.cli.console import bar, console, output, table
from emogen.cli.options import refuse_existing
from emogen.errors import UsageError
from emogen.settings import Settings

if TYPE_CHECKING:
    from emogen.data.corpus import Corpus
    from emogen.evaluation.systems import System

SUFFIXES = (".html", ".json", ".tex")
BESIDE = (
    "second_quadrant", "second_arousal", "second_valence", "agreement", "pulse", "returns", "chords_per_bar", "triads",
    "sevenths", "altered", "suspended", "dominants", "steps", "repeats", "leaps",
)  # fmt: skip
"""The rows that stand on the page of a checkpoint, which has its own tables of the others."""
COLUMNS = 3
LISTED = 5
"""Files left out that are named per folder; the reports name all."""


def check_reports(out: list[Path], force: bool, soundfont: Path | None) -> None:
    """Refuse what cannot be written, before any work is done.

    Raises:
        UsageError: a suffix that is no report's.
        EmogenError: one of the files exists, without ``force``.
    """
    for file in out:
        if file.suffix not in SUFFIXES:
            raise UsageError(f"--out {file}: no such report", f"its name ends in {', '.join(SUFFIXES)}")
    refuse_existing(out, force)
    if any(file.suffix == ".html" for file in out):
        outputs.check_sound(soundfont)


def measured(
    pieces: list[str], prepared: Corpus, seconds: float, baselines: int, settings: Settings
) -> tuple[dict[str, Any], list[System]]:
    """The report of some ``NAME=FOLDER``, with ``baselines`` pieces of each emotion by the voice, and the systems."""
    from emogen.ear.fitted import Ear
    from emogen.evaluation import beside, systems, yardstick

    some = beside.gathered(systems.named(pieces), seconds)
    for system in some:
        say(system)
    ear = Ear.load()
    if ear.knows(prepared):
        console.print("careful: the judges were fitted on some of these test songs")
    with bar("composing") as step:
        if baselines:
            some += beside.references(
                prepared, seconds, baselines, settings.sample, lambda share: step(share, 1.0, "composing")
            )
        report = yardstick.compare(some, prepared, ear, seconds, lambda share: step(share, 1.0, "listening"))
    return report, some


def say(system: System) -> None:
    """What people should know about a folder."""
    from emogen.music.midi_events import count_of

    told = ", ".join(f"{count} of {name}" for name, count in system.quadrants.items())
    console.print(
        escape(f"{system.name}: {count_of(len(system), 'piece')} ({told}) in {system.folder}"), soft_wrap=True
    )
    for remark in system.remarks:
        mark = "warning: " if remark.startswith("fewer") else ""
        console.print(escape(f"{mark}{system.name}: {remark}"), soft_wrap=True)
    if system.left_out:
        console.print(escape(f"{system.name}: {count_of(len(system.left_out), 'file')} left out"), soft_wrap=True)
        for name, why in system.left_out[:LISTED]:
            console.print(escape(f"  {name}: {why}"), soft_wrap=True)
        if len(system.left_out) > LISTED:
            console.print(f"  and {len(system.left_out) - LISTED} more")


def write(out: list[Path], report: dict[str, Any], some: list[System], soundfont: Path | None) -> None:
    """Write the reports that are asked for."""
    from emogen.evaluation import report as reports

    for file in out:
        if file.suffix == ".html":
            console.print("recording samples ...")
        reports.write(file, report, some, soundfont)
        console.print(escape(f"wrote {file}"), soft_wrap=True)


def show(report: dict[str, Any]) -> None:
    """Print the page: at most COLUMNS systems beside each other."""
    from emogen.evaluation.rows import NEEDS_A_MODEL, ROWS

    output.print(f"first {report['seconds']:g} s of each piece, quadrants counting the same; * differs from real, 95 %")
    real, *names = report["systems"]
    for few in (names[at : at + COLUMNS] for at in range(0, len(names), COLUMNS)):
        part = report | {"systems": {name: report["systems"][name] for name in (real, *few)}}
        shown = page(part, [row.name for row in ROWS])
        systems = part["systems"].values()
        shown.add_row("longest copied run of notes", *_spread([str(one["longest_run"]) for one in systems], ""))
        ratios = [one["variety"].values() for one in systems]
        shown.add_row(
            "variety, of real", *_spread([f"{sum(one) / len(one):.2f}" if one else "-" for one in ratios], "")
        )
        for title in NEEDS_A_MODEL:
            shown.add_row(title, *_spread(["-"] * len(systems), ""))
        output.print(shown)
        output.print()
    for pair in _between(report):
        output.print(pair)
        output.print()


def page(report: dict[str, Any], chosen: Sequence[str]) -> Table:
    """Some rows of a report, by name, and told apart; a column for real clips, them disturbed, and each system."""
    from emogen.evaluation.rows import ROWS
    from emogen.evaluation.systems import TEST

    names = list(report["systems"])
    shown = table("", *(f">{escape(name)}" for name in (TEST, "disturbed", *names[1:])))
    unlike = {one["other"]: one["rows"] for one in report["differences"] if one["one"] == TEST}
    for row in (row for row in ROWS if row.name in chosen):
        cells = [_cell(report["systems"][name]["rows"][row.name], row.form) for name in names]
        for at, name in enumerate(names[1:], 1):
            found = unlike[name][row.name]
            cells[at] += " *" if found and (found["low"] > 0 or found["high"] < 0) else ""
        after = report["disturbed"].get(row.name)
        shown.add_row(row.title, *_spread(cells, f"{after['mean']:{row.form}}" if after else ""))
    told = [report["systems"][name]["told_apart"] for name in names]
    cells = [f"{one['share']:.2f} ±{(one['high'] - one['low']) / 2:.2f}" if one else "-" for one in told]
    after = report["disturbed"].get("told_apart")
    shown.add_row("told apart from real", *_spread(cells, f"{after['share']:.2f}" if after else ""))
    return shown


def _spread(cells: list[str], disturbed: str) -> list[str]:
    """Cells of the real clips and of the systems, with that of disturbed clips between; room for stars behind them."""
    return [cells[0], disturbed, *(cell if cell.endswith("*") else f"{cell}  " for cell in cells[1:])]


def _cell(found: dict[str, float] | None, form: str) -> str:
    """A mean, and half of its interval."""
    return f"{found['mean']:{form}} ±{(found['high'] - found['low']) / 2:{form}}" if found else "-"


def _between(report: dict[str, Any]) -> Iterator[Table]:
    """The differences between the systems of folders, one table per pair."""
    from emogen.evaluation.rows import ROWS

    own = {name for name, system in report["systems"].items() if system["folder"]}
    for one in (one for one in report["differences"] if {one["one"], one["other"]} <= own):
        title = f">{escape(one['one'])} less {escape(one['other'])}{', paired by file names' * one['paired']}"
        shown = table("difference, with its 95 % interval", title)
        for row in ROWS:
            found, form = one["rows"][row.name], f"+{row.form}"
            cell = f"{found['mean']:{form}} ({found['low']:{form}}..{found['high']:{form}})" if found else "-"
            shown.add_row(row.title, cell)
        yield shown
