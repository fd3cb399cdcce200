"""Pages that play anywhere: a piece with its picture, sound and MIDI file in one HTML file, and an index of many.

A page makes no network requests, and tells the browser to allow none (Content-Security-Policy), so it opens from a
disk, a memory stick or a mail as well as from a server. The templates are in ``pages/``; ``{{name}}`` marks the place
of a value.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from emogen import __version__
from emogen.emotion import QUADRANTS
from emogen.music.measures import TONICS
from emogen.music.midi import midi_bytes
from emogen.music.notes import Piece
from emogen.sound.picture import piano_roll, png
from emogen.system.files import write_text

TEMPLATES = Path(__file__).with_name("pages")
SOUND_TYPE = "audio/mpeg"
"""MP3: the one format that every browser plays (Safari took OGG only in 2025)."""
WIDE = "display: block; width: 100%; height: auto"
"""The style of pictures as wide as a notebook's cell."""
PLAYER = "display: block; width: 100%"
"""The style of a player; with a height it could vanish."""
PLANE = {
    2: "Q2: unpleasant and lively",
    1: "Q1: pleasant and lively",
    3: "Q3: unpleasant and quiet",
    4: "Q4: pleasant and quiet",
}
"""The quadrants as the plane shows them, row by row, with their names for screen readers."""


class Entry(NamedTuple):
    """One piece of an index."""

    page: str
    """The file name of its page, in the index's folder."""
    emotion: str
    """One of ``EMOTIONS``."""
    facts: str
    """A few words beside its number."""


def write_page(file: Path, piece: Piece, title: str, facts: Mapping[str, str], sound: bytes, midi: bytes = b"") -> None:
    """Write a page that shows and plays a piece, whole or not at all; an existing page is replaced.

    Args:
        file: where; the MIDI file inside is offered under its name.
        facts: what stands below the player, by label.
        sound: an MP3 file of the piece, such as ``render.small_mp3`` makes.
        midi: the MIDI file to download (default: one made from the piece).
    """
    rows = "\n".join(f"    <dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items())
    text = fill(
        "piece.html",
        title=html.escape(title),
        described=html.escape(_described(piece)),
        end_s=f"{piece.end_ms / 1000:.3f}",
        facts=rows,
        midi_name=html.escape(f"{file.stem}.mid"),
        midi=as_text(midi or midi_bytes(piece)),
        notes=as_json(np.stack(piece.columns, axis=1).tolist()),
        sound_type=SOUND_TYPE,
        sound=as_text(sound),
    )
    write_text(file, text)


def inline(piece: Piece, title: str, facts: Mapping[str, str], sound: bytes = b"") -> str:
    """A piece as part of another page, such as a notebook: picture, player and facts, without a script.

    Args:
        piece: its notes are drawn; without notes there is no picture.
        title: the heading.
        facts: each label with its text.
        sound: an MP3 file of the piece; without it there is no player.
    """
    parts = [f"<strong>{html.escape(title)}</strong>"]
    if len(piece):
        picture = as_text(png(piano_roll(piece, title)))
        parts.append(
            f'<img alt="{html.escape(_described(piece))}" src="data:image/png;base64,{picture}" style="{WIDE}">'
        )
    if sound:
        parts.append(f'<audio controls src="data:{SOUND_TYPE};base64,{as_text(sound)}" style="{PLAYER}"></audio>')
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in facts.items())
    return f'<div style="max-width: 50em">{"".join(parts)}<table>{rows}</table></div>'


def write_index(file: Path, entries: Sequence[Entry], title: str = "Pieces by emotion") -> None:
    """Write a page that lays pieces out on the plane of valence and arousal and plays them where they stand.

    It shows the pieces' own pages, which must stay in its folder, in a frame: so each sound is stored once, and
    an index of hundreds opens at once. Browsers let a page from the disk frame its neighbours, but not read them.
    """
    places = "\n".join(_quadrant(quadrant, entries) for quadrant in PLANE)
    write_text(file, fill("index.html", title=html.escape(title), quadrants=places))


def _quadrant(quadrant: int, entries: Sequence[Entry]) -> str:
    """A quadrant's emotions, the livelier above, each with its pieces."""
    parts = []
    for name in reversed(QUADRANTS[quadrant]):
        pieces = [entry for entry in entries if entry.emotion == name]
        items = "\n".join(
            f'<li><button type="button" aria-pressed="false" aria-label="{name} {number}">▶</button>'
            f'<a href="{quote(entry.page)}">{number}<small>{html.escape(entry.facts)}</small></a></li>'
            for number, entry in enumerate(pieces, 1)
        )
        parts.append(f"<div><h2>{name}</h2><ul>\n{items}\n</ul></div>")
    return f'<section class="quadrant" aria-label="{PLANE[quadrant]}">{"".join(parts)}</section>'


def _described(piece: Piece) -> str:
    """The picture in words."""
    if not len(piece):
        return "Piano roll without notes"
    lowest, highest = (f"{TONICS[pitch % 12]}{pitch // 12 - 1}" for pitch in (piece.pitch.min(), piece.pitch.max()))
    return f"Piano roll: {len(piece)} notes from {lowest} to {highest} in {piece.end_ms / 1000:.1f} seconds"


def fill(template: str, **values: str) -> str:
    """A template with its places filled. Values are HTML already; ``{{name}}`` within a value is left as it is."""
    values = {"version": __version__, "style": (TEMPLATES / "style.css").read_text(encoding="utf-8"), **values}
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values[place[1]], text)


def as_json(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def as_text(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")
