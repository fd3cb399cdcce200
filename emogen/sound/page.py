"""Pages that play anywhere: a piece with its picture, sound and MIDI file in one HTML file, and an index of many.

A page makes no network requests, and tells the browser to allow none (Content-Security-Policy), so it opens from a
disk, a memory stick or a mail as well as from a server. The templates are in ``pages/``; ``{{name}}`` marks the place
of a value.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from emogen import __version__
from emogen.music.chart import Chart
from emogen.music.measures import TONICS
from emogen.music.midi import midi_bytes
from emogen.music.notes import HIGHEST_KEY, Piece
from emogen.sound.picture import EMOTION_COLOURS, SOFT_TO_LOUD, Colour, piano_roll, png
from emogen.system.files import write_text

TEMPLATES = Path(__file__).with_name("pages")
SOUND_TYPE = "audio/mpeg"
"""MP3: the one format that every browser plays (Safari took OGG only in 2025)."""
WIDE = "display: block; width: 100%; height: auto"
"""The style of pictures as wide as a notebook's cell."""
PLAYER = "display: block; width: 100%"
"""The style of a player; with a height it could vanish."""
THUMB_COLUMNS, THUMB_ROWS = 120, 44
"""Cells of a thumbnail: as many columns as it has pixels, and two keys per row."""
BOX = f"0 0 {THUMB_COLUMNS} {THUMB_ROWS}"

MOST_ODDS = 5.0
"""Log odds, in nats, at the edge of the plane: a chance of 99.3 %."""


class Entry(NamedTuple):
    """One piece of an index."""

    page: str
    """The file name of its page, in the index's folder."""
    piece: Piece
    emotion: str
    """One of ``EMOTIONS``, whose colour it has."""
    title: str
    facts: str
    """A few words below its title."""
    valence: float
    """0..1, as heard; where it stands."""
    arousal: float
    files: Sequence[str] = ()
    """The names of files to download, in the index's folder."""


def write_page(
    file: Path,
    piece: Piece,
    title: str,
    facts: Mapping[str, str],
    sound: bytes,
    midi: bytes = b"",
    *,
    below: str = "",
    emotion: str = "",
    chart: Chart | None = None,
) -> None:  # nine: what it is, how it is called, and the files inside
    """Write a page that shows and plays a piece, whole or not at all; an existing page is replaced.

    Args:
        file: where; the files inside are offered under its name.
        facts: what stands below the player, by label.
        sound: an MP3 file of the piece, such as ``render.small_mp3`` makes.
        midi: the MIDI file to download (default: one made from the piece).
        below: a line below the title.
        emotion: one of ``EMOTIONS``, whose colour the page has; or none.
        chart: its bars and chords are shown above the roll.
    """
    rows = "\n".join(f"    <dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in facts.items())
    text = fill(
        "piece.html",
        title=html.escape(title),
        below=html.escape(below),
        feeling=css(EMOTION_COLOURS[emotion]) if emotion else "transparent",
        described=html.escape(_described(piece)),
        end_s=f"{piece.end_ms / 1000:.3f}",
        facts=rows,
        name=html.escape(file.stem),
        midi=as_text(midi or midi_bytes(piece)),
        notes=as_json(np.stack(piece.columns, axis=1).tolist()),
        chart=as_json(_beats(chart)),
        velocities=as_json(SOFT_TO_LOUD),
        sound_type=SOUND_TYPE,
        sound=as_text(sound),
    )
    write_text(file, text)


def _beats(chart: Chart | None) -> list[tuple[int, int, str, str]]:
    """The beats of a chart: when, place in the bar, chord, and section; empty without one."""
    if chart is None or not len(chart):
        return []
    letters = (chr(ord("A") + section) for section in chart.section.tolist())
    return list(zip(chart.beats_ms.tolist(), chart.place.tolist(), chart.names(), letters, strict=True))


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


def write_index(file: Path, entries: Sequence[Entry], title: str = "Takes") -> None:
    """Write a page on which pieces stand where they are heard on the plane of valence and arousal, beside their facts.

    It plays the pieces' own pages, which must stay in its folder, in a frame: so each sound is stored once, and
    an index of hundreds opens at once. Browsers let a page from the disk frame its neighbours, but not read them.
    """
    takes = "\n".join(_take(number, entry) for number, entry in enumerate(entries, 1))
    cards = "\n".join(_card(number, entry) for number, entry in enumerate(entries, 1))
    write_text(file, fill("index.html", title=html.escape(title), takes=takes, cards=cards))


def _take(number: int, entry: Entry) -> str:
    """A piece on the plane: a button with its thumbnail."""
    x, y = (place(value) for value in (entry.valence, 1 - entry.arousal))
    return (
        f'<button type="button" class="take" data-x="{x}" data-y="{y}" aria-pressed="false" '
        f'style="left:{x}%;top:{y}%;{_feeling(entry)}" aria-label="Play {number}: {html.escape(entry.title)}">'
        f'<svg class="roll" viewBox="{BOX}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="trace" id="roll-{number}" d="{thumbnail(entry.piece)}"/></svg>'
        f'<b aria-hidden="true">{number}</b></button>'
    )


def place(chance: float) -> float:
    """Where a chance from 0 to 1 stands, in per cent of the plane: by its log odds, which spread out what is sure."""
    odds = math.log((chance + 1e-6) / (1 - chance + 1e-6))
    return round(50 + 50 * min(max(odds / MOST_ODDS, -1.0), 1.0), 1)


def _card(number: int, entry: Entry) -> str:
    """A piece in the list: thumbnail, facts, and what can be done with it."""
    name, link = html.escape(entry.title), quote(entry.page)
    files = "".join(
        f'<a download href="{quote(one)}">{html.escape(one.rpartition(".")[2].upper())}</a>' for one in entry.files
    )
    return (
        f'<li class="card" style="{_feeling(entry)}">'
        f'<svg class="roll picture" viewBox="{BOX}" preserveAspectRatio="none" '
        f'aria-hidden="true"><use href="#roll-{number}"/></svg>'
        f'<div class="words"><strong>{number}. {name}</strong><small>{html.escape(entry.facts)}</small></div>'
        f'<div class="links"><a class="page" href="{link}">page</a>{files}</div>'
        f'<button type="button" class="play" aria-pressed="false" aria-label="Play {number}">▶</button>'
        f'<button type="button" class="star" aria-pressed="false" aria-label="Star {number}">☆</button></li>'
    )


def _feeling(entry: Entry) -> str:
    return f"--feeling:{css(EMOTION_COLOURS[entry.emotion])}"


def css(colour: Colour) -> str:
    """A colour as pages write it."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def thumbnail(piece: Piece) -> str:
    """The roll of a piece as the path of an SVG of THUMB_COLUMNS by THUMB_ROWS: one stroke per run of cells."""
    grid = np.zeros((THUMB_ROWS, THUMB_COLUMNS), dtype=bool)
    end_ms = max(piece.end_ms, 1)
    left = np.minimum(piece.onset_ms * THUMB_COLUMNS // end_ms, THUMB_COLUMNS - 1)
    right = np.maximum((piece.onset_ms + piece.duration_ms) * THUMB_COLUMNS // end_ms, left + 1)
    row = (HIGHEST_KEY - piece.pitch) // 2
    for y, first, last in zip(row.tolist(), left.tolist(), right.tolist(), strict=True):
        grid[y, first:last] = True
    edges = np.diff(grid, axis=1, prepend=False, append=False)
    parts = []
    for y in range(THUMB_ROWS):
        at = np.flatnonzero(edges[y]).tolist()
        parts += [f"M{first} {y}.5h{last - first}" for first, last in zip(at[::2], at[1::2], strict=True)]
    return "".join(parts)


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
