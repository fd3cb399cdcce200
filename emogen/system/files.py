"""Files and folders that are either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or folder at, which takes the name ``path`` only once it is on the disk.

    A file replaces the one before; a folder's name must be new. When the block raises, or the power fails, ``path``
    is as it was; what had been written is removed (after a power cut a hidden ``.*.tmp`` folder may stay).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    room = Path(mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        draft = room / path.name
        yield draft
        for written in [draft, *draft.rglob("*")]:
            _to_disk(written)
        draft.replace(path)
        _to_disk(path.parent)
    finally:
        shutil.rmtree(room, ignore_errors=True)


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
    room = Path(mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        path.replace(room / path.name)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")
