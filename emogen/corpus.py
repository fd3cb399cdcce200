"""Prepared music: clips read, encoded and split by whole songs, in a cache that opens at once.

``prepare`` makes ``<data home>/<name>-<first 8 digits of its key>/``, ``open_corpus`` opens it:

=================  ================================================================================================
``notes.bin``      the tokens of all clips one after the other, uint8 (N, 4), memory-mapped
``clips.npz``      ``start`` (C + 1,), ``emotion``, ``song``, ``split`` (C,) and the clips' names
``manifest.json``  what it is, where from, with which settings, how much, what was left out and why
=================  ================================================================================================

The *key* (names, sizes, times of the files, settings) tells whether the same was prepared before; the *fingerprint*
(tokens, emotions, splits) is equal wherever the same music is prepared. (Above 300 lines: the way from files to cache
is one story, told in four parts.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from emogen import __version__, tokens
from emogen.emotion import EMOTIONS, QUADRANTS
from emogen.errors import EmogenError, UnusableFile, UsageError
from emogen.files import remove, whole, write_text
from emogen.midi import read_piece
from emogen.settings import DataSettings
from emogen.sources import SAME_MUSIC, Found, Source, find, opened
from emogen.tokens import COLUMN, VELOCITY, Tokens

SPLITS = ("train", "valid", "test")
SHARES = (0.70, 0.15, 0.15)
FORMAT = 1
"""Raised whenever the cache's layout, the reading or the splitting changes."""

CHUNK_FILES = 32
"""Fewest files that a worker reads at a time; so many or fewer are read without workers."""

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""How workers start: a fork is there at once, but is unsafe or absent elsewhere than on Linux."""


class Manifest(BaseModel):
    """What a prepared corpus is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    name: str
    source: str
    created_utc: str
    key: str
    fingerprint: str
    emogen_version: str
    vocabulary: str
    """``tokens.fingerprint()`` of the version that made it."""
    settings: dict[str, Any]
    thresholds: dict[str, float]
    """See ``name_emotions``."""
    counts: list[dict[str, Any]]
    """Rows of emotion, split, clips, songs, notes, hours; emotion "all" and split "all" are sums."""
    songs: list[str]
    left_out: list[tuple[str, str]]
    """(path, reason)"""
    remarks: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Report:
    """What ``prepare`` did."""

    directory: Path
    manifest: Manifest
    already_there: bool
    seconds: float


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
    """(C,): index into ``EMOTIONS``, or -1 for no label."""
    song: npt.NDArray[np.int32]
    """(C,): index into ``manifest.songs``."""
    split: npt.NDArray[np.int8]
    """(C,): index into ``SPLITS``."""
    clip_names: list[str]

    def clips(self, split: str) -> npt.NDArray[np.int64]:
        """Indices of the clips of one of ``SPLITS``."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def notes(self, clip: int) -> Tokens:
        """Tokens (n, 4) of a clip, a read-only view."""
        return self.tokens[self.start[clip] : self.start[clip + 1]]


def prepare(
    source: Path,
    data_home: Path,
    data: DataSettings,
    *,
    name: str = "",
    unlabelled: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:  # seven parameters: what, where, how, and the four flags of the command
    """Read, encode and split the music in ``source`` (see ``sources.find``) and make it the current corpus.

    The same files and settings again are not read again, unless with ``force``. ``progress`` is called with the
    number of files read and of all files.

    Raises:
        EmogenError: nothing usable in the source, no official split in it, or another prepare is writing.
        UsageError: a name that cannot be a folder's.
    """
    began = time.monotonic()
    if name and not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"'{name}' cannot be a corpus name", "use letters, digits, '.', '-' and '_'")
    found = find(source, unlabelled)
    if data.split == "official":
        found = _official_only(found, source)
    stem = source.resolve().stem if source.is_file() else source.resolve().name
    name = name or re.sub(r"[^\w.-]+", "-", stem).lstrip(".-") or "corpus"
    key = _key(found, data)
    directory = data_home / f"{name}-{key[:8]}"
    with _sole_writer(data_home):
        manifest = None if force else _same_again(directory, key)
        already_there = manifest is not None
        if manifest is None:
            with whole(directory) as draft:
                draft.mkdir()
                music = _read_into(draft / "notes.bin", found, data, progress or (lambda done, total: None))
                if not music.clips:
                    raise EmogenError(f"no usable music in {source}", _reasons(music.left_out))
                manifest = _describe(draft, music, found, data, (name, str(source), key))
                if directory.exists():
                    remove(directory)
        write_text(data_home / "current", directory.name)
    return Report(directory, manifest, already_there, time.monotonic() - began)


def _official_only(found: Source, source: Path) -> Source:
    """The files that are in the dataset's own split; the others are left out."""
    if not found.official:
        hint = "only EMOPIA has one (split/train_clip.csv and so on beside midis/); --split song works everywhere"
        raise EmogenError(f"{source} has no official split", hint)
    names = {file.name for file in found.files if PurePosixPath(file.name).name in found.official}
    left_out = [(file.name, "in no part of the official split") for file in found.files if file.name not in names]
    files = [file for file in found.files if file.name in names]
    return replace(found, files=files, left_out=found.left_out + left_out)


def _key(found: Source, data: DataSettings) -> str:
    """Sixteen hex digits that change with the files, what their source says of them, the settings or the format."""
    digest = hashlib.sha256()
    settings = data.model_dump(mode="json", exclude={"workers"})
    for part in (FORMAT, tokens.fingerprint(), settings, found.left_out, found.remarks, sorted(found.official.items())):
        digest.update(repr(part).encode())
    for file in found.files:
        digest.update(repr((file.name, file.size, file.stamp, file.label, file.song)).encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _sole_writer(data_home: Path) -> Iterator[None]:
    """Hold the data home's lock, with what a killed prepare left there swept away."""
    try:
        data_home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "name another folder with --home or EMOGEN_HOME"
        raise EmogenError(f"the folder {data_home} cannot be made ({error.strerror})", hint) from None
    try:
        with FileLock(data_home / ".lock", timeout=0):
            for left in data_home.glob(".*.tmp"):
                shutil.rmtree(left, ignore_errors=True)
            yield
    except Timeout:
        raise EmogenError(f"another emogen prepare is writing to {data_home}", "wait until it has finished") from None


def _same_again(directory: Path, key: str) -> Manifest | None:
    """The manifest of what was prepared with the same key, if it is whole."""
    try:
        manifest = open_corpus(directory.parent, directory.name).manifest
    except EmogenError:
        return None
    return manifest if manifest.key == key else None


def _reasons(left_out: list[tuple[str, str]]) -> str:
    """Why everything was left out, most frequent reason first."""
    counts = Counter(reason for _, reason in left_out).most_common(3)
    return "; ".join(f"{reason} ({count}x)" for reason, count in counts)


# ---- reading and encoding, in parallel


class Encoded(NamedTuple):
    """One file as a worker hands it back; ``problem`` says why it cannot be used."""

    problem: str
    tokens: bytes = b""
    seconds: float = 0.0
    velocity: float = 0.0
    """Mean of its notes, 1..127."""


def _encode(data: bytes, any_instrument: bool) -> Encoded:
    notes = tokens.encode(read_piece(data, any_instrument))
    seconds = int(tokens.releases_ms(notes).max()) / 1000
    return Encoded("", notes.tobytes(), seconds, float(VELOCITY[notes[:, COLUMN.velocity]].mean()))


def _encode_files(root: Path, in_zip: bool, any_instrument: bool, names: list[str]) -> list[Encoded]:
    """Some files of a source; what one process does at a time."""
    results = []
    with opened(root, in_zip) as read:
        for name in names:
            try:
                results.append(_encode(read(name), any_instrument))
            except UnusableFile as error:
                results.append(Encoded(str(error)))
    return results


def _encode_all(found: Source, data: DataSettings) -> Generator[Encoded]:
    """Every file of a source, in its order, whatever the number of workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = data.workers or cores
    names = [file.name for file in found.files]
    size = min(max(CHUNK_FILES, len(names) // (workers * 32)), 1024)  # a chunk opens the archive anew
    chunks = [names[at : at + size] for at in range(0, len(names), size)]
    encode = partial(_encode_files, found.root, found.in_zip, data.any_instrument)
    workers = min(workers, len(chunks))
    if workers == 1:
        for chunk in chunks:
            yield from encode(chunk)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(START_METHOD), initializer=_start_worker)
    try:
        with warnings.catch_warnings():  # of forking beside other libraries' threads: workers touch none of their locks
            warnings.simplefilter("ignore", DeprecationWarning)
            results = pool.map(encode, chunks)
        for chunk_results in results:
            yield from chunk_results
    except BrokenProcessPool:
        hint = "try again with --workers 1"
        raise EmogenError("a process that reads files was ended from outside (out of memory?)", hint) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Let a worker end quietly with Ctrl-C, and with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


# ---- what the clips are, and who may see them


def split_songs(
    song: npt.NDArray[np.int32], group: npt.NDArray[np.int32], stratum: npt.NDArray[np.int64], seed: int
) -> npt.NDArray[np.int8]:
    """Index into ``SPLITS`` for each clip (C,), in shares of 70/15/15 of the songs and nearly so of the clips.

    ``song`` (C,) indexes ``group`` (S,): songs of one group share music and stay together. Groups are sorted by the
    ``stratum`` (label) that most of their clips have, then by their number of clips, in random order where these
    are equal, and dealt out in that order, each to the split that is owed most songs so far. So every stratum and
    the whole come near the shares, also where songs are few: the third one dealt is the first for valid, the fifth
    for test.
    """
    groups, of_clip, clips = np.unique(group[song], return_inverse=True, return_counts=True)
    songs = np.bincount(group, minlength=groups.max() + 1)[groups]
    table = np.zeros((len(groups), int(stratum.max()) + 1), dtype=np.int64)
    np.add.at(table, (of_clip, stratum), 1)
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    order = shuffled[np.lexsort((clips[shuffled], table.argmax(axis=1)[shuffled]))]
    split_of = np.zeros(len(groups), dtype=np.int8)
    owed = np.zeros(len(SPLITS))
    for at in order:
        owed += songs[at] * np.array(SHARES)
        split_of[at] = owed.argmax()
        owed[split_of[at]] -= songs[at]
    return split_of[of_clip]


def name_emotions(
    labels: list[str],
    split: npt.NDArray[np.int8],
    notes_per_second: npt.NDArray[np.float64],
    velocity: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int8], dict[str, float]]:
    """Emotion of each clip (C,), as index into ``EMOTIONS`` or -1, and the thresholds used.

    A label that is an emotion stays. Quadrants become emotions by an energy index, the mean of the z-scores (over
    the training clips) of notes per second and of mean velocity: clips of Q1 at or above the median index of Q1's
    training clips are excited, those below happy; of Q2, likewise, angry and tense; Q3 is sad, Q4 calm. Listeners
    gave the quadrants; these halves are derived.
    """
    train = split == SPLITS.index("train")
    thresholds: dict[str, float] = {}
    energy = np.zeros(len(labels))
    for name, values in (("notes_per_second", notes_per_second), ("velocity", velocity)):
        mean, deviation = (float(values[train].mean()), float(values[train].std())) if train.any() else (0.0, 0.0)
        energy += (values - mean) / (deviation or 1.0) / 2
        thresholds |= {f"{name}_mean": mean, f"{name}_deviation": deviation}
    label = np.array(labels)
    emotion = np.full(len(labels), -1, dtype=np.int8)
    for index, name in enumerate(EMOTIONS):
        emotion[label == name] = index
    for quadrant, names in QUADRANTS.items():
        inside = label == f"Q{quadrant}"
        emotion[inside] = EMOTIONS.index(names[0])
        if len(names) == 2 and inside.any():
            known = energy[inside & train]
            threshold = float(np.median(known)) if len(known) else 0.0
            emotion[inside & (energy >= threshold)] = EMOTIONS.index(names[1])
            thresholds[f"q{quadrant}_energy"] = threshold
    return emotion, thresholds


# ---- the cache


@dataclass(frozen=True, slots=True)
class _Music:
    """What was read: numbers of each clip that is kept, and what became of the others."""

    clips: list[Found] = field(default_factory=list)
    notes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    velocity: list[float] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    same: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of songs that share music."""
    digest: Any = field(default_factory=hashlib.sha256)


def _read_into(path: Path, found: Source, data: DataSettings, progress: Callable[[int, int], None]) -> _Music:
    """Write the tokens of a source's files one after the other; only a few numbers of each stay in memory."""
    music = _Music(left_out=list(found.left_out))
    first_of: dict[bytes, Found] = {}
    with path.open("wb") as file, contextlib.closing(_encode_all(found, data)) as results:
        for number, (clip, result) in enumerate(zip(found.files, results, strict=True), 1):
            progress(number, len(found.files))
            if result.problem:
                music.left_out.append((clip.name, result.problem))
                continue
            twin = first_of.setdefault(hashlib.blake2b(result.tokens, digest_size=16).digest(), clip)
            if twin is not clip:
                music.left_out.append((clip.name, f"same notes as {twin.name}"))
                music.same.append((clip.song, twin.song))
                continue
            file.write(result.tokens)
            music.digest.update(result.tokens)
            music.clips.append(clip)
            music.notes.append(len(result.tokens) // len(tokens.FAMILIES))
            music.seconds.append(result.seconds)
            music.velocity.append(result.velocity)
    return music


def _describe(draft: Path, music: _Music, found: Source, data: DataSettings, who: tuple[str, str, str]) -> Manifest:
    """Split and name the clips, and write ``clips.npz`` and the manifest; ``who``: name, source, key."""
    names = sorted({clip.song for clip in music.clips})
    number = {name: index for index, name in enumerate(names)}
    song = np.array([number[clip.song] for clip in music.clips], dtype=np.int32)
    labels = [clip.label for clip in music.clips]
    if data.split == "official":
        parts = [found.official[PurePosixPath(clip.name).name] for clip in music.clips]
        split = np.array([SPLITS.index(part) for part in parts], dtype=np.int8)
    else:
        stratum = np.unique(labels, return_inverse=True)[1]
        split = split_songs(song, _groups(number, [*music.same, *SAME_MUSIC]), stratum, data.split_seed)
    notes, seconds = np.array(music.notes), np.array(music.seconds)
    emotion, thresholds = name_emotions(labels, split, notes / seconds, np.array(music.velocity))
    start = np.concatenate([[0], np.cumsum(notes)]).astype(np.int64)
    for column in (start, emotion, split):
        music.digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
    np.savez_compressed(
        draft / "clips.npz",
        start=start,
        emotion=emotion,
        song=song,
        split=split,
        names=np.frombuffer("\0".join(_shown(clip.name) for clip in music.clips).encode(), dtype=np.uint8),
    )
    name, source, key = who
    manifest = Manifest(
        format=FORMAT,
        name=name,
        source=_shown(source),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        key=key,
        fingerprint=music.digest.hexdigest()[:16],
        emogen_version=__version__,
        vocabulary=tokens.fingerprint(),
        settings=data.model_dump(mode="json", exclude={"workers"}),
        thresholds=thresholds,
        counts=_counts(emotion, split, song, notes, seconds),
        songs=[_shown(one) for one in names],
        left_out=sorted((_shown(path), reason) for path, reason in music.left_out),
        remarks=[(_shown(path), remark) for path, remark in found.remarks],
    )
    (draft / "manifest.json").write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return manifest


def _shown(name: str) -> str:
    """A file name as a line of text: bytes in it that are none, and control characters, are written as escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)


def _groups(number: dict[str, int], same: list[tuple[str, str]]) -> npt.NDArray[np.int32]:
    """Group (S,) of each song: songs that share music, also by way of a third, have one group."""
    leader: dict[str, str] = {}

    def lead(name: str) -> str:
        while (above := leader.get(name, name)) != name:
            name = above
        return name

    for one, other in same:
        low, high = sorted((lead(one), lead(other)))
        leader[high] = low
    groups: dict[str, int] = {}
    return np.array([groups.setdefault(lead(name), len(groups)) for name in number], dtype=np.int32)


def _counts(
    emotion: npt.NDArray[np.int8],
    split: npt.NDArray[np.int8],
    song: npt.NDArray[np.int32],
    notes: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.float64],
) -> list[dict[str, Any]]:
    """See ``Manifest.counts``; emotions and splits without clips have no row."""
    everywhere = np.ones(len(emotion), dtype=bool)
    emotions = {name: emotion == index for index, name in enumerate((*EMOTIONS, "none"))}
    emotions["none"] = emotion < 0
    splits = {name: split == index for index, name in enumerate(SPLITS)}
    rows = []
    for emotion_name, of_emotion in (emotions | {"all": everywhere}).items():
        for split_name, of_split in (splits | {"all": everywhere}).items():
            here = of_emotion & of_split
            if here.any():
                rows.append(
                    {
                        "emotion": emotion_name,
                        "split": split_name,
                        "clips": int(here.sum()),
                        "songs": len(np.unique(song[here])),
                        "notes": int(notes[here].sum()),
                        "hours": round(float(seconds[here].sum()) / 3600, 3),
                    }
                )
    return rows


def open_corpus(data_home: Path, name: str = "") -> Corpus:
    """Open a prepared corpus: the one prepared last, or one by its name, its folder's name, or its path.

    Raises:
        EmogenError: none of that name, or one that this version cannot use.
    """
    directory = _directory(data_home, name)
    again = "prepare it again: emogen prepare SOURCE"
    try:
        stated = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        if (stated["format"], stated["vocabulary"]) != (FORMAT, tokens.fingerprint()):
            raise EmogenError(f"{directory} was prepared by another version ({stated['emogen_version']})", again)
        manifest = Manifest.model_validate(stated)
        with (directory / "clips.npz").open("rb") as file, np.load(file) as arrays:
            start, emotion, song, split = (arrays[column] for column in ("start", "emotion", "song", "split"))
            names = arrays["names"].tobytes().decode().split("\0")
        notes = np.memmap(directory / "notes.bin", dtype=np.uint8, mode="r").reshape(-1, len(tokens.FAMILIES))
        if not len(start) - 1 == len(emotion) == len(song) == len(split) == len(names) or start[-1] != len(notes):
            raise ValueError("its parts do not fit together")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise EmogenError(f"{directory} is damaged ({error})", again) from None
    return Corpus(directory, manifest, notes, start, emotion, song, split, names)


def _directory(data_home: Path, name: str) -> Path:
    """The folder of a prepared corpus."""
    hint = "prepare one first: emogen prepare ./EMOPIA_1.0"
    if not name:
        try:
            name = (data_home / "current").read_text(encoding="utf-8").strip()
        except OSError:
            raise EmogenError("no music is prepared yet", hint) from None
    for directory in (data_home / name, Path(name)):
        if (directory / "manifest.json").exists():
            return directory
    prepared = sorted(data_home.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
    if named := [path.parent for path in prepared if path.parent.name.rpartition("-")[0] == name]:
        return named[-1]
    known = ", ".join(path.parent.name for path in prepared)
    raise EmogenError(f"no prepared corpus '{name}' in {data_home}", f"there are: {known}" if known else hint)
