"""Remake what the documentation shows, each part by a command of emogen.

``python docs/make.py`` remakes all parts; ``python docs/make.py hear settings`` only some of them:

- ``session``: ``session.svg``, a terminal session
- ``hear``: two pages with sound, ``hear/*.html``, and the piano roll ``happy.png``
- ``scenarios``: the pieces and pages of ``scenarios.md``
- ``settings``: ``settings.md``, from ``emogen/settings.py``
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from pydantic.fields import FieldInfo
from rich.console import Console
from rich.text import Text

from emogen.settings import OPTIONS, Settings, flag, variable

DOCS = Path(__file__).parent

SESSION = (
    "emogen generate --emotion happy --seconds 20 --seed 7",
    "emogen render happy_20s_seed7.mid --wav --png --html",
)
WINDOW = {
    "FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color", "TTY_INTERACTIVE": "0", "LINES": "32",
}  # fmt: skip
"""A window that shows colours, but no bars that move."""
WIDTH = 120
"""The width that emogen assumes outside a terminal, see ``emogen.cli.console``."""

HEAR = {
    "calm": "emogen generate --emotion calm --seconds 20 --seed 4 --html",
    "happy": "emogen generate --emotion happy --seconds 20 --seed 7 --html --png",
}
"""The command behind each page of ``hear/``."""
SCENARIOS = {
    "film-cue": 'emogen generate --emotion "tense 0:00, sad 0:42.5" --cut --marker 0:42.5 --seconds 60 --seed 3 --html',
    "tense-to-calm": 'emogen generate --emotion "tense > calm" --seconds 180 --seed 5 --html',
    "game-menu": "emogen generate --emotion happy --tempo 120 --meter 4/4 --loop --seconds 64 --seed 4 --html",
}
"""The command behind each piece of ``scenarios/``."""


def emogen(command: str, folder: Path) -> str:
    """Run a command line of emogen in a folder; returns what it printed."""
    done = subprocess.run(  # noqa: S603 (the commands above)
        [sys.executable, "-m", "emogen", *shlex.split(command)[1:]],
        cwd=folder, env=os.environ | WINDOW, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    return done.stdout.replace(str(Path.home()), "~")  # nobody's own folder


def session() -> None:
    """Run the commands of ``SESSION`` in an empty folder, and draw what they print."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with TemporaryDirectory() as folder:
        for line in SESSION:
            console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
            console.print(Text.from_ansi(emogen(line, Path(folder)).rstrip()))
    svg = console.export_svg(title="emogen", unique_id="emogen")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # would fetch a font from the network
    (DOCS / "session.svg").write_text(svg, encoding="utf-8")


def hear() -> None:
    """Compose the pieces of ``HEAR``, and keep their pages and the one piano roll."""
    (DOCS / "hear").mkdir(exist_ok=True)
    for name, command in HEAR.items():
        with TemporaryDirectory() as folder:
            emogen(command, Path(folder))
            for made in Path(folder).iterdir():
                if made.suffix in (".html", ".png"):
                    to = DOCS / ("hear" if made.suffix == ".html" else "") / f"{name}{made.suffix}"
                    to.write_bytes(made.read_bytes())


def scenarios() -> None:
    """Compose the pieces of ``SCENARIOS``, and keep their files and pages."""
    (DOCS / "scenarios").mkdir(exist_ok=True)
    for name, command in SCENARIOS.items():
        with TemporaryDirectory() as folder:
            emogen(command, Path(folder))
            for made in Path(folder).iterdir():
                (DOCS / "scenarios" / f"{name}{made.suffix}").write_bytes(made.read_bytes())


def settings() -> None:
    """Write ``settings.md``."""
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")


def settings_page() -> str:
    """The page of all settings, section by section: flag, default, allowed values and meaning."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by `python docs/make.py settings` from emogen/settings.py: change that file, not this page. -->",
        "",
        "Every option can be given in four places. From the strongest to the weakest:",
        "",
        "1. a flag: `emogen train --epochs 20`",
        f"2. an environment variable: `{variable('train.epochs')}=20 emogen train`",
        "3. a line in `./emogen.toml`, below the name of its section: `epochs = 20` below `[train]`",
        "4. the same line in your user configuration, which holds in every folder",
        "",
        "`emogen config show` prints each value and where it comes from; `emogen config init` writes a commented",
        "`./emogen.toml`, and with `--user` your user configuration. `EMOGEN_HOME` is short for",
        f"`{variable('paths.home')}`. A misspelt option is an error wherever it stands.",
    ]
    for section, part in Settings.model_fields.items():
        lines += ["", f"## `[{section}]`", "", str(type(part.default).__doc__), ""]
        lines += ["| option | flag | default | values | meaning |", "|---|---|---|---|---|"]
        for option, field in OPTIONS.items():
            if option.startswith(f"{section}."):
                name = option.partition(".")[2]
                cells = (f"`{name}`", f"`{flag(option)}`", _default(field), _values(field), str(field.description))
                lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    """A default as the page shows it: empty where there is none."""
    value = {True: "yes", False: "no"}.get(field.default, field.default) if field.annotation is bool else field.default
    return "" if value in (None, "") else f"`{value}`"


def _values(field: FieldInfo) -> str:
    """Which values a field takes: its choices, or its type and limits."""
    kinds = [one for one in (*get_args(field.annotation), field.annotation) if one is not type(None)]
    if choices := [one for one in kinds if isinstance(one, str)]:
        return ", ".join(f"`{choice}`" for choice in choices)
    kind = {bool: "yes or no", int: "whole number", float: "number", str: "text", Path: "path"}[kinds[0]]
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    limits = [
        f"{sign} {getattr(rule, name):g}" if getattr(rule, name) < 1e6 else f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join([kind, *limits])


PARTS = {"session": session, "hear": hear, "scenarios": scenarios, "settings": settings}


def main() -> None:
    """Remake the parts named on the command line, or all of them."""
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
