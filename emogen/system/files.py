"""Files and folders that are either whole or not there, and what others gave them for names."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from tempfile import mkdtemp

from emogen.errors import EmogenError

_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that are no text: controls, which may command a terminal; marks that turn the direction of what follows;
and halves of characters, which stand for the bytes of a file's name that are not UTF-8."""


def shown(text: str) -> str:
    """Text of others (a name, a label, an error) as one line that steers no terminal: what is no text is escaped."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or folder at, which takes the name ``path`` only once it is on the disk.

    A file replaces the one before; a folder's name must be new. When the block raises, or the power fails, ``path``
    is as it was; what had been written is removed (after a power cut a hidden ``.*.tmp`` folder may stay).

    Raises:
        OSError: it cannot be written; ``filename`` is ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    room = _room(path)
    try:
        draft = room / path.name
        yield draft
        for written in [draft, *draft.rglob("*")]:
            _to_disk(written)
        draft.replace(path)
        _to_disk(path.parent)
    except OSError as error:  # a full disk tells no name, and nobody knows the draft's
        if error.errno is not None and str(error.filename or room).startswith(str(room)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _room(path: Path) -> Path:
    """A new hidden folder beside ``path``; its name is short, for that of ``path`` may be as long as names can be."""
    return Path(mkdtemp(prefix=f".{path.name[:24]}.", suffix=".tmp", dir=path.parent))


def _to_disk(path: Path) -> None:
    """Wait until a file's or folder's content is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:  # Windows opens no folders, and needs not be asked
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a folder so that its name never stands for half of it."""
    room = _room(path)
    try:
        path.replace(room / path.name)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")  # parts of file names are no UTF-8


def opened(path: Path) -> BufferedReader:
    """A file opened for reading.

    Raises:
        OSError: it cannot be read, or is a pipe or a device, of which nobody knows whether they end.
    """
    if not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    return path.open("rb")


def checksum(path: Path) -> str:
    """Of a file's content, 32 hex digits."""
    with opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:32]


def check_place(path: Path) -> None:
    """Make sure that a file can be written at ``path``, before there is anything to lose.

    Raises:
        EmogenError: a folder has its name, its folder cannot be made or written to, or the name is too long.
    """
    elsewhere = "choose another name or folder"
    try:
        if path.is_dir():
            raise EmogenError(f"{path} is a folder, and a file was to be written", elsewhere)
        existing = next(folder for folder in (path.parent, *path.parent.parents) if os.path.lexists(folder))
    except OSError as error:  # above all a name that is too long
        raise EmogenError(f"{path}: {error.strerror or error}", elsewhere) from None
    if not existing.is_dir():
        why = "is a link that leads nowhere" if existing.is_symlink() else "is not a folder"
        raise EmogenError(f"{existing} {why}", elsewhere)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise EmogenError(f"{existing} cannot be written to", elsewhere)


def disk_of(path: Path) -> str:
    """The disk that ``path`` is on, for people: where it is mounted, and how much of it is free."""
    try:
        place = next(folder for folder in path.absolute().parents if folder.exists())
        mount = next((one for one in (place, *place.parents) if one.is_mount()), place)
        return f"{mount}, of which {shutil.disk_usage(place).free / 1e6:.1f} MB are free"
    except OSError:
        return str(path.parent)
