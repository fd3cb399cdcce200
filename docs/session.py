"""Record the terminal session that README shows: ``python docs/session.py`` writes ``docs/session.svg`` anew."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

SESSION = (
    "emogen generate --emotion happy --seconds 20 --seed 7",
    "emogen render happy_20s_seed7.mid --wav --png --html",
)
WINDOW = {
    "FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm-256color", "TTY_INTERACTIVE": "0", "LINES": "32",
}  # fmt: skip
"""A window that shows colours, but no bars that move."""
WIDTH = 120
"""What emogen takes for the width where nobody tells, see ``emogen.cli.console``."""


def main() -> None:
    """Run the commands where nothing is in the way, and draw what they say."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with TemporaryDirectory() as folder:
        for line in SESSION:
            console.print(Text.assemble(("$ ", "bold green"), (line, "bold")))
            done = subprocess.run(  # noqa: S603 (the commands above)
                [sys.executable, "-m", "emogen", *shlex.split(line)[1:]],
                cwd=folder, env=os.environ | WINDOW, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, encoding="utf-8", check=True,
            )  # fmt: skip
            console.print(Text.from_ansi(done.stdout.rstrip()))
    svg = console.export_svg(title="emogen", unique_id="emogen")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # asks the network for a font
    Path(__file__).with_name("session.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
