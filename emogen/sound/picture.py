"""Pictures for slides: a piano roll, and the sheet with axes that other pictures are drawn on.

Pillow draws boxes, lines and text, which is all that is needed, and takes a few megabytes; matplotlib would bring ten
packages and take a second to import.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from emogen.errors import EmogenError
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Piece
from emogen.system import files

Colour = tuple[int, int, int]

WIDTH, HEIGHT = 1600, 900
FINE = 2
"""Sheets are drawn larger by this factor and then reduced, so that edges are smooth."""

PAPER, INK, FAINT, GRID, BLACK_KEY_ROW = (
    (255, 255, 255),
    (32, 34, 44),
    (112, 116, 130),
    (226, 228, 234),
    (244, 245, 248),
)
SOFT_TO_LOUD: tuple[Colour, ...] = ((84, 156, 196), (112, 124, 216), (166, 84, 190), (202, 50, 100), (200, 30, 30))
"""Colours of velocities 1 to 127, on pictures, pages and in the terminal: from cool to warm, each seen on white and on
black, and darker the louder, so that they can be told apart in grey too."""

EMOTION_COLOURS: dict[str, Colour] = {
    "happy": (176, 108, 0), "excited": (214, 84, 24), "angry": (200, 36, 60), "tense": (146, 84, 196),
    "sad": (58, 112, 206), "calm": (22, 138, 118),
}  # fmt: skip
"""The colour of each emotion, on pages, pictures and in the terminal; each is seen on white and on black."""

BLACK_KEYS = frozenset((1, 3, 6, 8, 10))
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 86_400)


class Box(NamedTuple):
    """A part of a sheet, in pixels of the finished picture."""

    left: int
    top: int
    right: int
    bottom: int


class Sheet:
    """A white sheet; coordinates are pixels of the finished picture, and may be fractions."""

    def __init__(self, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.width = width
        self._image = Image.new("RGB", (width * FINE, height * FINE), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """A filled box, at least a fine pixel wide and high."""
        x, y = round(left * FINE), round(top * FINE)
        self._draw.rectangle((x, y, max(x, round(right * FINE) - 1), max(y, round(bottom * FINE) - 1)), fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Colour, width: float = 1) -> None:
        """A line through points."""
        self._draw.line([(x * FINE, y * FINE) for x, y in points], fill, round(width * FINE), joint="curve")

    def area(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * FINE, y * FINE) for x, y in points], fill)

    def dot(self, x: float, y: float, fill: Colour, radius: float = 3) -> None:
        """A filled circle."""
        box = [place * FINE for place in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.ellipse(box, fill)

    def text(self, x: float, y: float, words: str, size: int = 18, anchor: str = "la", fill: Colour = INK) -> None:
        """A line of text; ``anchor`` is Pillow's: l, m, r across, a, m, s down."""
        self._draw.text((x * FINE, y * FINE), words, fill, ImageFont.load_default(size * FINE), anchor)

    def fit(self, words: str, size: int, width: float) -> str:
        """As much of a text as fits into a width, as one line of printable characters."""
        font = ImageFont.load_default(size * FINE)
        whole = "".join(one if one.isprintable() else " " for one in words[:500])
        for length in range(len(whole), 0, -1):
            some = whole if length == len(whole) else whole[:length].rstrip() + "..."
            if font.getlength(some) <= width * FINE:
                return some
        return ""

    def image(self) -> Image.Image:
        """The finished picture."""
        return self._image.reduce(FINE)


def write(file: Path, image: Image.Image) -> None:
    """Write a PNG file, whole or not at all."""
    with files.whole(file) as draft:
        draft.write_bytes(png(image))


def png(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def velocity_colour(velocity: float) -> Colour:
    """The colour of a velocity, 1..127."""
    at = np.clip((velocity - 1) / 126, 0, 1) * (len(SOFT_TO_LOUD) - 1)
    mixed = [np.interp(at, range(len(SOFT_TO_LOUD)), part) for part in zip(*SOFT_TO_LOUD, strict=True)]
    return round(mixed[0]), round(mixed[1]), round(mixed[2])


def density(piece: Piece, bins: int) -> npt.NDArray[np.float64]:
    """Notes per second (bins,) along a piece, within a window of 1 s or 3 % of the piece around each bin."""
    end_s = piece.end_ms / 1000
    centre_s = (np.arange(bins) + 0.5) * end_s / bins
    half_s = max(1.0, end_s * 0.03) / 2
    onset_s = piece.onset_ms / 1000  # in order
    low, high = np.maximum(centre_s - half_s, 0), np.minimum(centre_s + half_s, end_s)
    struck = np.searchsorted(onset_s, high) - np.searchsorted(onset_s, low)
    found: npt.NDArray[np.float64] = struck / np.maximum(high - low, 1e-3)
    return found


def time_ticks(end_s: float, most: int = 16) -> list[tuple[float, str]]:
    """The marks of a time axis from 0 to ``end_s`` seconds: where, and with which words."""
    step_s = next((step for step in STEPS_S if end_s / step <= most), 86_400.0 * -(-end_s // (86_400 * most)))
    return [(mark, clock(mark, end_s)) for mark in (step_s * np.arange(int(end_s / step_s) + 1)).tolist()]


def clock(seconds: float, end_s: float) -> str:
    """A time on an axis that ends at ``end_s``: seconds up to two minutes, else 3:05 or 1:03:05."""
    if end_s <= 120:
        return f"{seconds:.6g}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if end_s < 3600 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def key_range(piece: Piece) -> tuple[int, int]:
    """The lowest and highest key to draw: whole octaves from C to B around a piece, about three at least."""
    low, high = 12 * (int(piece.pitch.min()) // 12), 12 * (int(piece.pitch.max()) // 12) + 11
    downward = True
    while min(high, HIGHEST_KEY) - max(low, LOWEST_KEY) < 30:
        if (downward and low > LOWEST_KEY) or high >= HIGHEST_KEY:
            low -= 12
        else:
            high += 12
        downward = not downward
    return max(low, LOWEST_KEY), min(high, HIGHEST_KEY)


def piano_roll(piece: Piece, title: str, below: str = "", emotion: str = "") -> Image.Image:
    """A piano roll of WIDTH x HEIGHT pixels.

    Keys are on the left, the octaves named (C4 is MIDI pitch 60), seconds below; notes are coloured by
    velocity, and above them is the number of notes per second. A line of text may stand ``below`` the title, and a
    stripe in the colour of an ``emotion`` above it.

    Raises:
        EmogenError: the piece has no notes.
    """
    if not len(piece):
        raise EmogenError("a piece without notes has no picture")
    sheet, end_s = Sheet(), piece.end_ms / 1000
    roll, above = Box(120, 210, WIDTH - 40, HEIGHT - 70), Box(120, 92, WIDTH - 40, 190)
    if emotion:
        sheet.box(0, 0, WIDTH, 10, EMOTION_COLOURS[emotion])
    sheet.text(40, 26, sheet.fit(title, 32, WIDTH - 420), 32)
    sheet.text(40, 66, sheet.fit(below, 18, WIDTH - 420), 18, fill=FAINT)
    _velocity_scale(sheet, Box(WIDTH - 260, 36, WIDTH - 80, 52))
    _density_curve(sheet, above, piece)

    low, high = key_range(piece)
    row = (roll.bottom - roll.top) / (high - low + 1)
    _keyboard(sheet, roll, low, high)
    for mark_s, words in time_ticks(end_s):
        x = roll.left + mark_s / end_s * (roll.right - roll.left)
        sheet.line([(x, roll.top), (x, roll.bottom + 6)], GRID)
        sheet.text(x, roll.bottom + 12, words, 18, "ma", FAINT)
    unit = "seconds" if end_s <= 120 else "minutes" if end_s < 3600 else "hours"
    sheet.text((roll.left + roll.right) / 2, HEIGHT - 8, unit, 18, "ms", FAINT)

    start = roll.left + piece.onset_ms / piece.end_ms * (roll.right - roll.left)
    stop = start + piece.duration_ms / piece.end_ms * (roll.right - roll.left)
    top = roll.bottom - (piece.pitch - low + 1) * row
    colours = {velocity: velocity_colour(velocity) for velocity in np.unique(piece.velocity).tolist()}
    gap = min(1.0, row / 8)  # between neighbouring keys
    order = np.argsort(piece.velocity, kind="stable")  # loud notes cover soft ones
    columns = (start[order], stop[order], top[order], piece.velocity[order])
    for left, right, upper, velocity in zip(*(column.tolist() for column in columns), strict=True):
        sheet.box(left, upper + gap, max(right - 1, left + 1), upper + row - gap, colours[velocity])
    return sheet.image()


def _keyboard(sheet: Sheet, roll: Box, low: int, high: int) -> None:
    """The keys on the left of a roll, a line at each C, and the rows of black keys shaded."""
    row = (roll.bottom - roll.top) / (high - low + 1)
    left = roll.left - 46
    for key in range(low, high + 1):
        top = roll.bottom - (key - low + 1) * row
        if key % 12 in BLACK_KEYS:
            sheet.box(roll.left, top, roll.right, top + row, BLACK_KEY_ROW)
            sheet.box(left, top, left + 28, top + row, INK)
        if key % 12 == 0:
            sheet.line([(left, top + row), (roll.right, top + row)], GRID, 1.5)
            sheet.text(left - 10, top + row / 2, f"C{key // 12 - 1}", 18, "rm", FAINT)
        elif key % 12 == 5 and row > 6:  # the white keys between E and F
            sheet.line([(left, top + row), (roll.left, top + row)], GRID)
    sheet.line([(left, roll.top), (left, roll.bottom), (roll.right, roll.bottom)], FAINT)
    sheet.line([(roll.left, roll.top), (roll.left, roll.bottom)], FAINT)
    sheet.line([(left, roll.top), (roll.left, roll.top)], FAINT)


def _density_curve(sheet: Sheet, box: Box, piece: Piece) -> None:
    """The curve of notes per second along a piece."""
    found = density(piece, (box.right - box.left) // 2)
    top = found.max()
    x = np.linspace(box.left, box.right, len(found))
    y = box.bottom - found / top * (box.bottom - box.top - 4)
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    sheet.area([(box.left, box.bottom), *points, (box.right, box.bottom)], (232, 234, 244))
    sheet.line(points, (92, 98, 150), 1.5)
    sheet.line([(box.left, box.bottom), (box.right, box.bottom)], GRID)
    sheet.text(box.left - 10, box.top, f"{top:.3g}", 18, "ra", FAINT)
    sheet.text(box.left - 10, box.bottom, "0", 18, "rs", FAINT)
    sheet.text(box.left - 10, (box.top + box.bottom) / 2, "notes/s", 18, "rm", FAINT)


def _velocity_scale(sheet: Sheet, box: Box) -> None:
    """The legend of the colours."""
    for x in range(box.left, box.right):
        velocity = 1 + 126 * (x - box.left) / (box.right - box.left)
        sheet.box(x, box.top, x + 1, box.bottom, velocity_colour(velocity))
    middle = (box.top + box.bottom) / 2
    sheet.text(box.left - 10, middle, "velocity  1", 18, "rm", FAINT)
    sheet.text(box.right + 10, middle, "127", 18, "lm", FAINT)
