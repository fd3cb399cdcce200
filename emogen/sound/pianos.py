"""Which SoundFonts there are on this computer, the best piano first."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_data_path

KNOWN = ("salamander", "musescoregeneral", "msbasic", "fluidr3", "generaluser")
"""How the names of good pianos begin, the best first; what else a system carries may be anything, drums too."""
SUFFIXES = (".sf2", ".sf3")
SHARES = ("/usr/local/share", "/usr/share", "/opt/homebrew/share", "/home/linuxbrew/.linuxbrew/share")
"""Where programs put what they share, unless XDG_DATA_DIRS says otherwise; the last two are Homebrew's."""
WITHIN = ("sounds/sf2", "sounds/sf3", "soundfonts")
"""Where SoundFonts lie there: as Debian, and as Fedora and Arch have it."""


def own_folder() -> Path:
    """The folder for a person's own SoundFonts: any of them is preferred to those of the system."""
    return user_data_path("emogen", appauthor=False) / "soundfonts"


def installed() -> list[Path]:
    """SoundFonts to try, the best first: a person's own, then the known ones of the system; of one name the largest."""
    shares = os.environ.get("XDG_DATA_DIRS", "").split(os.pathsep) if os.environ.get("XDG_DATA_DIRS") else list(SHARES)
    if brew := os.environ.get("HOMEBREW_PREFIX"):
        shares.append(f"{brew}/share")
    folders = [Path(share, part) for share in (str(user_data_path()), *shares) if share for part in WITHIN]
    known = {font for folder in folders for font in _fonts(folder) if _rank(font) < len(KNOWN)}
    return list(dict.fromkeys(sorted(_fonts(own_folder()), key=_order) + sorted(known, key=_order)))


def _fonts(folder: Path) -> set[Path]:
    """The SoundFonts in a folder, by what links lead to; none where it is not there or cannot be read."""
    try:
        return {one.resolve() for one in folder.iterdir() if one.suffix.lower() in SUFFIXES and one.is_file()}
    except OSError:
        return set()


def _rank(font: Path) -> int:
    """The place of a name in KNOWN; its length if it is none of them."""
    name = "".join(filter(str.isalnum, font.stem.lower()))
    return next((place for place, one in enumerate(KNOWN) if name.startswith(one)), len(KNOWN))


def _order(font: Path) -> tuple[int, int, str]:
    return _rank(font), -font.stat().st_size, str(font)
