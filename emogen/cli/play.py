"""``emogen play``: MIDI files on a page in the browser."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from emogen.cli import outputs
from emogen.cli.console import console
from emogen.cli.options import settings_options
from emogen.settings import Settings


@settings_options("paths.soundfont")
def play(
    midi: Annotated[list[Path], typer.Argument(metavar="FILE...", help="MIDI files.")],
    *,
    settings: Settings,
) -> None:
    """Open a page that plays MIDI files, without writing beside them.

    The page shows the piano roll and needs no network. It is a temporary file, as are the pages of several pieces and
    their index; emogen render --html writes a page to keep. A file that cannot be read is reported, and the others
    are played all the same.
    """
    outputs.check_sound(settings.paths.soundfont)
    folder = Path(tempfile.mkdtemp(prefix="emogen-play-"))
    rows = []
    for number, file in enumerate(midi, 1):
        target = folder / f"{number:03}-{file.stem}.mid"
        if outputs.write(file, target, ("html",), settings.paths.soundfont):
            shutil.copyfile(file, target)
            rows.append({"file": str(target), "rendered": [str(target.with_suffix(".html"))]})
    if not rows:
        shutil.rmtree(folder)
        raise typer.Exit(1)
    page = Path(rows[0]["rendered"][0])
    if len(rows) > 1 and outputs.write_index(folder / "index.html", rows):
        page = folder / "index.html"
    outputs.open_page(page)
    console.print(escape(f"playing {page}"), soft_wrap=True)
    if len(rows) < len(midi):
        raise typer.Exit(1)
