"""Lists of labels as spreadsheets save them, and the words in them.

A list begins with a line that names its columns. It may be separated by commas, semicolons, tabs or bars (Excel's
first line ``sep=;`` is understood), be encoded as UTF-8, UTF-16 or Windows-1252, and begin with a byte order mark and
blank lines.
"""

from __future__ import annotations

import csv
import io
import re
from typing import NamedTuple

from emogen.emotion import ALIASES, EMOTIONS
from emogen.errors import EmogenError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
COLUMNS = {
    "path": ("path", "file", "filename", "id"),
    "emotion": ("emotion", "label", "quadrant", "4q"),
    "song": ("song",),
}
"""What the columns that we use may be called; if a list has several of a row, the first of them is meant."""
WORDS = f"emotions are {', '.join(EMOTIONS)} and words like them, 1 to 4 or Q1 to Q4"


class Table(NamedTuple):
    """A list that was read."""

    separator: str
    """In words, as in "commas"."""
    columns: list[str]
    """Names of the columns, in small letters; those that we use as in ``COLUMNS``."""
    rows: list[list[str]]
    """Cells without the space around them; rows of nothing are left out."""

    def dicts(self) -> list[dict[str, str]]:
        """Each row as its cells by column."""
        return [dict(zip(self.columns, row, strict=False)) for row in self.rows]


def read_table(data: bytes, name: str) -> Table:
    """The list in a file, given as the file's bytes; ``name`` is for the error.

    Raises:
        EmogenError: it is no text, or no table.
    """
    text = _text(data, name).lstrip("\r\n \ufeff")
    first = text.partition("\n")[0].strip().strip('"')
    separator = ""
    if stated := re.fullmatch(r"sep=(.)", first, re.IGNORECASE):
        separator, text = stated[1], text.partition("\n")[2]
    elif first.lower() == "sep=" and text.partition("\n")[0].rstrip("\r").endswith("\t"):
        separator, text = "\t", text.partition("\n")[2]
    try:
        if not separator:
            known = {one: len(set(_columns(_cells(text, one, 1))) & set(COLUMNS)) for one in SEPARATORS}
            separator = max(known, key=known.__getitem__)  # the first of those that find as many
        rows = _cells(text, separator)
    except csv.Error as error:
        raise EmogenError(f"{name} is not a CSV file ({error})", "save it as CSV in UTF-8") from None
    return Table(SEPARATORS.get(separator, repr(separator)), _columns(rows[:1]), rows[1:])


def _text(data: bytes, name: str) -> str:
    """The bytes of a file as text."""
    encodings = ("utf-16",) if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            reason = error
    raise EmogenError(f"{name} is not a CSV file ({reason})", "save it as CSV in UTF-8")


def _cells(text: str, separator: str, most: int = -1) -> list[list[str]]:
    """The rows of a text that hold anything, at most ``most``."""
    rows: list[list[str]] = []
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True):
        if len(rows) == most:
            break
        cells = [cell.strip() for cell in row]
        if any(cells):
            rows.append(cells)
    return rows


def _columns(rows: list[list[str]]) -> list[str]:
    """The names of the columns in the first row, if there is one."""
    columns = [cell.lower() for cell in rows[0]] if rows else []
    for name, words in COLUMNS.items():
        if found := next((word for word in words if word in columns), ""):
            columns[columns.index(found)] = name
    return columns


def meant(word: str, in_list: bool = False) -> str:
    """The emotion or quadrant that a word names, one of ``EMOTIONS`` or ``"Q1"``..``"Q4"``; empty if none.

    ``in_list``: 1..4 are quadrants. As names of folders they may be anything.
    """
    name = word.strip().lower()
    if quadrant := re.fullmatch(r"(q?) ?([1-4])(\.0)?", name):
        return f"Q{quadrant[2]}" if in_list or quadrant[1] else ""
    name = ALIASES.get(name, name)
    return name if name in EMOTIONS else ""
