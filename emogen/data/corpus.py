"""A prepared corpus: what ``prepare`` writes to the disk once and training opens each time.

It is a folder, ``<data home>/<name>-<first 8 digits of its key>/``, which is opened without reading the notes:

=================  ================================================================================================
``notes.bin``      the tokens of all clips one after the other, uint8 (N, 4), memory-mapped
``beats.bin``      the beats of all clips' charts one after the other, ``chart.ROW`` (K,), memory-mapped
``clips.npz``      ``start``, ``first_beat`` (C + 1,), ``emotion``, ``song``, ``split``, ``beats_per_bar``, ``clarity``
                   (C,) and the clips' names
``manifest.json``  what it is, its source, settings and counts, what was left out and why
=================  ================================================================================================

The *key* (names, sizes, times of the files, settings) tells whether the same source was prepared before; the
*fingerprint* (tokens, emotions, splits) is equal wherever the same music is prepared.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.music import tokens
from emogen.music.chart import ROW, Chart
from emogen.music.tokens import Tokens
from emogen.system.files import checksum, opened, shown

NOTES, BEATS, CLIPS, MANIFEST = "notes.bin", "beats.bin", "clips.npz", "manifest.json"
SPLITS = ("train", "valid", "test")
FORMAT = 3
"""Incremented whenever the layout of the cache, the reading or the splitting changes."""


class Manifest(BaseModel):
    """The description of a prepared corpus, as ``manifest.json`` holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    name: str
    source: str
    created_utc: str
    key: str
    fingerprint: str
    emogen_version: str
    vocabulary: str
    """``tokens.fingerprint()`` of the version that prepared it."""
    settings: dict[str, Any]
    thresholds: dict[str, float]
    """See ``split.name_emotions``."""
    counts: list[dict[str, Any]]
    """Rows of emotion, split, clips, songs, notes, hours; emotion "all" and split "all" are sums."""
    songs: list[str]
    left_out: list[tuple[str, str]]
    """(path, reason)"""
    remarks: list[tuple[str, str]]
    checksums: dict[str, str] = {}
    """See ``checksums``; a corpus without them is not opened."""


@dataclass(frozen=True, slots=True, eq=False)
class Charts:
    """The charts of C clips, as they are stored."""

    beats: npt.NDArray[np.void]
    """(K,) of ``chart.ROW``, read-only, memory-mapped where they were prepared."""
    start: npt.NDArray[np.int64]
    """(C + 1,): the beats of clip c are ``beats[start[c] : start[c + 1]]``."""
    beats_per_bar: npt.NDArray[np.int8]
    """(C,)"""
    clarity: npt.NDArray[np.float64]
    """(C,)"""

    @classmethod
    def of(cls, charts: Sequence[Chart]) -> Charts:
        """Some charts, in their order."""
        start = np.cumsum([0, *map(len, charts)])
        beats = np.concatenate([np.empty(0, dtype=ROW), *(chart.rows() for chart in charts)])
        per_bar = np.array([chart.beats_per_bar for chart in charts], dtype=np.int8)
        return cls(beats, start, per_bar, np.array([chart.clarity for chart in charts], dtype=np.float64))

    def __getitem__(self, clip: int) -> Chart:
        """The chart of a clip."""
        rows = self.beats[self.start[clip] : self.start[clip + 1]]
        return Chart.from_rows(rows, int(self.beats_per_bar[clip]), float(self.clarity[clip]))


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """A prepared corpus of C clips and N notes."""

    directory: Path
    manifest: Manifest
    tokens: Tokens
    """(N, 4), read-only, memory-mapped."""
    start: npt.NDArray[np.int64]
    """(C + 1,): the notes of clip c are ``tokens[start[c] : start[c + 1]]``."""
    emotion: npt.NDArray[np.int8]
    """(C,): index into ``EMOTIONS``, or -1 without a label."""
    song: npt.NDArray[np.int32]
    """(C,): index into ``manifest.songs``."""
    split: npt.NDArray[np.int8]
    """(C,): index into ``SPLITS``."""
    clip_names: list[str]
    charts: Charts

    def clips(self, split: str) -> npt.NDArray[np.int64]:
        """Indices of the clips of one of ``SPLITS``."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def notes(self, clip: int) -> Tokens:
        """Tokens (n, 4) of a clip, a read-only view."""
        return self.tokens[self.start[clip] : self.start[clip + 1]]

    def chart(self, clip: int) -> Chart:
        """The chart of a clip: of its tokens, decoded."""
        return self.charts[clip]


def open_corpus(data_home: Path, name: str = "") -> Corpus:
    """Open a prepared corpus: the one prepared last, or one by its name, its folder's name, or its path.

    Raises:
        EmogenError: no such corpus, or one that is damaged or that this version cannot use.
    """
    directory = _directory(data_home, name)
    again = "prepare it again: emogen prepare SOURCE"
    try:
        with opened(directory / MANIFEST) as file:
            stated = json.load(file)
        if (stated["format"], stated["vocabulary"]) != (FORMAT, tokens.fingerprint()):
            raise EmogenError(f"{directory} was prepared by another version ({stated['emogen_version']})", again)
        try:
            manifest = Manifest.model_validate(stated)
        except ValidationError as error:
            raise ValueError(f"{MANIFEST}: {error.errors()[0]['msg']}") from None
        if manifest.checksums != checksums(directory, manifest):
            raise ValueError("its checksums are others")
        with opened(directory / CLIPS) as file, np.load(file) as arrays:
            start, emotion, song, split = (arrays[column] for column in ("start", "emotion", "song", "split"))
            names = arrays["names"].tobytes().decode().split("\0")
            first_beat, beats_per_bar, clarity = (
                arrays[column] for column in ("first_beat", "beats_per_bar", "clarity")
            )
        notes = np.memmap(directory / NOTES, dtype=np.uint8, mode="r").reshape(-1, len(tokens.FAMILIES))
        _check_fits(notes, start, (emotion, len(EMOTIONS)), (song, len(manifest.songs)), (split, len(SPLITS)))
        beats = np.memmap(directory / BEATS, dtype=ROW, mode="r") if first_beat[-1] else np.empty(0, dtype=ROW)
        charts = Charts(beats, first_beat, beats_per_bar, clarity)
        if not len(names) == len(split) == len(first_beat) - 1 == len(beats_per_bar) == len(clarity):
            raise ValueError("its parts do not fit together")
        if first_beat[0] or first_beat[-1] != len(beats) or (np.diff(first_beat) < 0).any():
            raise ValueError("its parts do not fit together")
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
    ) as error:
        raise EmogenError(f"{directory} is damaged ({error})", again) from None
    return Corpus(directory, manifest, notes, start, emotion, song, split, names, charts)


def with_fingerprint(data_home: Path, fingerprint: str) -> str:
    """The folder's name of a prepared corpus with a fingerprint, the latest if there are several; "" if there is none.

    Manifests that cannot be read are passed over.
    """
    found = []
    for path in data_home.glob(f"*/{MANIFEST}"):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            if json.loads(path.read_bytes())["fingerprint"] == fingerprint:
                found.append((path.stat().st_mtime, path.parent.name))
    return max(found, default=(0.0, ""))[1]


def current(data_home: Path) -> str:
    """The folder's name of the corpus that was prepared last, where it is still there; else ""."""
    with suppress(OSError, ValueError):
        name = (data_home / "current").read_bytes()[:1024].decode().strip()
        if name and (data_home / name / MANIFEST).exists():
            return name
    return ""


def checksums(directory: Path, manifest: Manifest) -> dict[str, str]:
    """Of each file of a prepared corpus; its manifest counts without them."""
    text = manifest.model_copy(update={"checksums": {}}).model_dump_json()
    own = hashlib.sha256(text.encode()).hexdigest()[:32]
    return {MANIFEST: own} | {name: checksum(directory / name) for name in (CLIPS, NOTES, BEATS)}


def _check_fits(notes: Tokens, start: npt.NDArray[np.int64], *columns: tuple[npt.NDArray[np.integer], int]) -> None:
    """Make sure that tokens (N, 4), where clips start (C + 1,) and columns (C,) of indices below a size go together."""
    fits = start.ndim == 1 and start.dtype == np.int64 and start[0] == 0 and start[-1] == len(notes)
    fits = fits and bool((np.diff(start) > 0).all())
    for column, size in columns:
        fits = fits and column.shape == (len(start) - 1,) and column.dtype.kind == "i"
        fits = fits and column.min(initial=0) >= -1 and column.max(initial=0) < size
    if not fits or (len(notes) and (notes.max(0) >= tokens.SIZES).any()):
        raise ValueError("its parts do not fit together")


def _directory(data_home: Path, name: str) -> Path:
    """The folder of a prepared corpus."""
    hint = "prepare one first: emogen prepare ./EMOPIA_1.0"
    if not name:
        try:
            with opened(data_home / "current") as file:
                name = file.read(1024).decode().strip()
            if not name or shown(name) != name:
                raise ValueError
        except FileNotFoundError:
            raise EmogenError("no music is prepared yet", hint) from None
        except (OSError, ValueError):
            again = "emogen prepare SOURCE mends it; --data names a prepared corpus"
            raise EmogenError(f"{data_home / 'current'} is damaged", again) from None
    for directory in (data_home / name, Path(name)):
        if (directory / "manifest.json").exists():
            return directory
    prepared = sorted(data_home.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if named := [path.parent for path in prepared if path.parent.name.rpartition("-")[0] == name]:
        return named[-1]
    known = ", ".join(path.parent.name for path in prepared)
    raise EmogenError(f"no prepared corpus '{name}' in {data_home}", f"there are: {known}" if known else hint)
