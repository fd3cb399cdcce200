"""Prepare a corpus: read and encode its clips in parallel and write the cache that ``corpus.open_corpus`` opens.

``sources`` finds the clips, ``split`` assigns splits and emotions. (Above 300 lines, by a few: reading, writing and
mending a cache belong together.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from emogen import __version__
from emogen.data.corpus import BEATS, CLIPS, FORMAT, MANIFEST, NOTES, SPLITS, Manifest, checksums, current, open_corpus
from emogen.data.shared_runs import Melodies
from emogen.data.sources import Found, Source, find, opened, reasons
from emogen.data.split import count, group_songs, name_emotions, official_only, split_officially, split_songs
from emogen.errors import EmogenError, UnusableFile, UsageError
from emogen.music import tokens
from emogen.music.chart import ROW, Chart
from emogen.music.midi import read_midi
from emogen.music.tokens import COLUMN, VELOCITY
from emogen.settings import DataSettings
from emogen.system.files import remove, shown, whole, write_text
from emogen.system.processes import pool

CHUNK_FILES = 32
"""Smallest number of files that a worker reads at a time; up to this many are read without workers."""


@dataclass(frozen=True, slots=True)
class Report:
    """What ``prepare`` did."""

    directory: Path
    manifest: Manifest
    already_there: bool
    seconds: float
    instead_of: str = ""
    """The folder's name of the corpus that commands took before this one, where that is another one."""


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

    Files that were prepared with the same settings before are not read again, unless with ``force``. ``progress`` is
    called with the number of files read and of all files.

    Raises:
        EmogenError: the source has no usable file or no official split, or another prepare is writing.
        UsageError: ``name`` cannot be the name of a folder.
    """
    began = time.monotonic()
    if name and not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"'{name}' cannot be a corpus name", "use letters, digits, '.', '-' and '_'")
    found = find(source, unlabelled)
    if data.split == "official":
        found = official_only(found, source)
    other = open_corpus(data_home, data.apart_from) if data.apart_from else None
    stem = source.resolve().stem if source.is_file() else source.resolve().name
    name = name or re.sub(r"[^\w.-]+", "-", stem).lstrip(".-") or "corpus"
    key = _key(found, data, other.manifest.fingerprint if other else "")
    directory = data_home / f"{name}-{key[:8]}"
    with _sole_writer(data_home):
        manifest = None if force else _same_again(directory, key)
        already_there = manifest is not None
        if manifest is None:
            with whole(directory) as draft:
                draft.mkdir()
                held_out = Melodies.held_out(other) if other else None
                encode = partial(_encode_files, found.root, found.in_zip, data.any_instrument, held_out)
                music = _read_into(
                    draft, found, _encode_all(encode, found, data.workers), progress or (lambda *_: None)
                )
                if not music.clips:
                    raise EmogenError(f"no usable music in {source}", reasons(music.left_out))
                manifest = _describe(draft, music, found, data, (name, str(source), key))
                if directory.exists():
                    remove(directory)
        before = current(data_home)
        write_text(data_home / "current", directory.name)
    instead_of = before if before != directory.name else ""
    return Report(directory, manifest, already_there, time.monotonic() - began, instead_of)


def _key(found: Source, data: DataSettings, apart_from: str) -> str:
    """Sixteen hex digits that change with the files, their labels, the settings or the format."""
    digest = hashlib.sha256()
    settings = data.model_dump(mode="json", exclude={"workers"}) | {"apart_from": apart_from}
    for part in (FORMAT, tokens.fingerprint(), settings, found.left_out, found.remarks, sorted(found.official.items())):
        digest.update(repr(part).encode())
    for file in found.files:
        digest.update(repr((file.name, file.size, file.stamp, file.label, file.song)).encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _sole_writer(data_home: Path) -> Iterator[None]:
    """Hold the lock of the data home, and remove what a killed prepare left there."""
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
    """The manifest of a corpus that was prepared with the same key, if it is intact."""
    try:
        manifest = open_corpus(directory.parent, directory.name).manifest
    except EmogenError:
        return None
    return manifest if manifest.key == key else None


class Encoded(NamedTuple):
    """One file as a worker returns it; ``problem`` says why it cannot be used."""

    problem: str
    tokens: bytes = b""
    seconds: float = 0.0
    velocity: float = 0.0
    """Mean of its notes, 1..127."""
    apart: str = ""
    """The held-out song of another corpus with which it shares a melody."""
    remarks: tuple[str, ...] = ()
    """What was mended in it."""
    beats: bytes = b""
    """Of its chart."""
    beats_per_bar: int = 4
    clarity: float = 0.0


def _encode(data: bytes, any_instrument: bool, held_out: Melodies | None) -> Encoded:
    piece, remarks = read_midi(data, any_instrument)
    notes = tokens.encode(piece)
    seconds = int(tokens.releases_ms(notes).max()) / 1000
    velocity = float(VELOCITY[notes[:, COLUMN.velocity]].mean())
    apart = held_out.find(notes) if held_out else ""
    chart = Chart.of(tokens.decode(notes))
    beats = chart.rows().tobytes()
    return Encoded("", notes.tobytes(), seconds, velocity, apart, remarks, beats, chart.beats_per_bar, chart.clarity)


def _encode_files(
    root: Path, in_zip: bool, any_instrument: bool, held_out: Melodies | None, names: list[str]
) -> list[Encoded]:
    """Encode some files of a source, in one process."""
    results = []
    with opened(root, in_zip) as read:
        for name in names:
            try:
                results.append(_encode(read(name), any_instrument, held_out))
            except UnusableFile as error:
                results.append(Encoded(str(error)))
    return results


def _encode_all(encode: Callable[[list[str]], list[Encoded]], found: Source, workers: int) -> Generator[Encoded]:
    """Every file of a source, in order, with any number of workers (0: one per core)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = workers or cores
    names = [file.name for file in found.files]
    size = min(max(CHUNK_FILES, len(names) // (workers * 32)), 1024)  # each chunk opens the archive again
    chunks = [names[at : at + size] for at in range(0, len(names), size)]
    workers = min(workers, len(chunks))
    if workers == 1:
        for chunk in chunks:
            yield from encode(chunk)
        return
    with pool(workers, "try again with --workers 1") as processes:
        for chunk_results in processes.map(encode, chunks):
            yield from chunk_results


@dataclass(frozen=True, slots=True)
class _Music:
    """What was read: figures of each clip that is kept, and why the others were left out."""

    clips: list[Found] = field(default_factory=list)
    notes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    velocity: list[float] = field(default_factory=list)
    beats: list[int] = field(default_factory=list)
    beats_per_bar: list[int] = field(default_factory=list)
    clarity: list[float] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """What was mended in which file."""
    same: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of songs that share music."""
    apart: dict[str, str] = field(default_factory=dict)
    """Songs kept out of training, each with the held-out song of another corpus with which it shares a melody."""
    digest: Any = field(default_factory=hashlib.sha256)


def _read_into(draft: Path, found: Source, encoded: Generator[Encoded], progress: Callable[[int, int], None]) -> _Music:
    """Write the tokens and beats of a source's files one after the other; only a few figures of each stay in memory."""
    music = _Music(left_out=list(found.left_out))
    first_of: dict[bytes, Found] = {}
    bins = (draft / NOTES).open("wb"), (draft / BEATS).open("wb")
    with bins[0] as notes, bins[1] as beats, contextlib.closing(encoded) as results:
        for number, (clip, result) in enumerate(zip(found.files, results, strict=True), 1):
            progress(number, len(found.files))
            if result.problem:
                music.left_out.append((clip.name, result.problem))
                continue
            twin = first_of.setdefault(hashlib.blake2b(result.tokens, digest_size=16).digest(), clip)
            if twin is not clip:
                other = f", labelled {twin.label} there" if clip.label != twin.label else ""
                music.left_out.append((clip.name, f"same notes as {twin.name}{other}"))
                music.same.append((clip.song, twin.song))
                continue
            notes.write(result.tokens)
            beats.write(result.beats)
            music.digest.update(result.tokens)
            music.clips.append(clip)
            music.notes.append(len(result.tokens) // len(tokens.FAMILIES))
            music.seconds.append(result.seconds)
            music.velocity.append(result.velocity)
            music.remarks.extend((clip.name, remark) for remark in result.remarks)
            music.beats.append(len(result.beats) // ROW.itemsize)
            music.beats_per_bar.append(result.beats_per_bar)
            music.clarity.append(result.clarity)
            if result.apart:
                music.apart.setdefault(clip.song, result.apart)
    return music


def _describe(draft: Path, music: _Music, found: Source, data: DataSettings, who: tuple[str, str, str]) -> Manifest:
    """Split and name the clips, and write ``clips.npz`` and the manifest; ``who``: name, source, key."""
    names = sorted({clip.song for clip in music.clips})
    number = {name: index for index, name in enumerate(names)}
    song = np.array([number[clip.song] for clip in music.clips], dtype=np.int32)
    labels = [clip.label for clip in music.clips]
    group = group_songs(names, music.same)
    if data.split == "official":
        split = split_officially(music.clips, found)
    else:
        stratum = np.unique(labels, return_inverse=True)[1]
        split = split_songs(song, group, stratum, data.split_seed)
    apart = np.array([number[name] for name in music.apart], dtype=np.int64)
    split[np.isin(group[song], group[apart])] = SPLITS.index("test")
    remarks = [
        (name, f"shares a melody with {twin} of {data.apart_from}: kept out of training")
        for name, twin in music.apart.items()
    ]
    notes, seconds = np.array(music.notes), np.array(music.seconds)
    emotion, thresholds = name_emotions(labels, split, notes / seconds, np.array(music.velocity))
    start = np.concatenate([[0], np.cumsum(notes)]).astype(np.int64)
    for column in (start, emotion, split):
        music.digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
    np.savez_compressed(
        draft / CLIPS,
        start=start,
        emotion=emotion,
        song=song,
        split=split,
        first_beat=np.cumsum([0, *music.beats]),
        beats_per_bar=np.array(music.beats_per_bar, dtype=np.int8),
        clarity=np.array(music.clarity),
        names=np.frombuffer("\0".join(shown(clip.name) for clip in music.clips).encode(), dtype=np.uint8),
    )
    name, source, key = who
    manifest = Manifest(
        format=FORMAT,
        name=name,
        source=shown(source),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        key=key,
        fingerprint=music.digest.hexdigest()[:16],
        emogen_version=__version__,
        vocabulary=tokens.fingerprint(),
        settings=data.model_dump(mode="json", exclude={"workers"}),
        thresholds=thresholds,
        counts=count(emotion, split, song, notes, seconds),
        songs=[shown(one) for one in names],
        left_out=sorted((shown(path), shown(reason)) for path, reason in music.left_out),
        remarks=[(shown(path), shown(remark)) for path, remark in (*found.remarks, *music.remarks, *remarks)],
    )
    manifest = manifest.model_copy(update={"checksums": checksums(draft, manifest)})
    (draft / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return manifest
