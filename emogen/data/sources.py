"""Sources of labelled clips: folders, zip archives and CSV lists.

A source is only searched here, and nothing of it is unpacked: ``find`` lists its MIDI files with what their
names and lists say about them, ``opened`` gives the bytes of one at a time.
(Above 300 lines: folders, archives and lists, each with its oddities, in one place.)
"""

from __future__ import annotations

import lzma
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO

from emogen.data.lists import WORDS, Table, meant, read_table
from emogen.emotion import ALIASES, EMOTIONS, QUADRANT_OF, suggest
from emogen.errors import EmogenError, UnusableFile
from emogen.music.midi_events import MAX_BYTES

SUFFIXES = (".mid", ".midi", ".kar", ".smf", ".rmi")
"""Names of MIDI files end so."""

EMOPIA_NAME = re.compile(r"Q([1-4])_(.{11})_(\d+)\.midi?", re.IGNORECASE)
"""Quadrant, recording and number of a clip; recordings' ids may contain underscores."""

OFFICIAL_LISTS = {"train_clip.csv": "train", "val_clip.csv": "valid", "test_clip.csv": "test"}
"""EMOPIA's own split: its files, and our names for the splits."""

MAX_MEMBERS = 1_000_000
LAYOUTS = (
    "understood are EMOPIA's file names (Q1_<song>_<clip>.mid), a folder for each emotion (happy/, sad/, Q1/, ...) "
    "and a CSV file with the columns path,emotion[,song]; --emotion none takes files without labels"
)

Entry = tuple[str, int, int, str]
"""A file of a source: name, size in bytes, stamp, and why it cannot be used (empty if it can)."""


@dataclass(frozen=True, slots=True)
class Found:
    """One MIDI file of a source."""

    name: str
    """Its path within the source, with forward slashes; for a CSV list, from the list's folder."""
    size: int
    stamp: int
    """Changes when the file does: the time of its last change in ns, or the checksum of a zip's member."""
    label: str = ""
    """One of ``EMOTIONS``, ``"Q1"``..``"Q4"``, or empty."""
    song: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """The contents of a source."""

    root: Path
    """The folder that names are relative to, or the zip archive that they are members of."""
    in_zip: bool
    files: list[Found]
    """Sorted by name."""
    left_out: list[tuple[str, str]]
    """Names of MIDI files that cannot be used, and why."""
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """Where a dataset's list of labels and its files disagree."""
    official: dict[str, str] = field(default_factory=dict)
    """The dataset's own split ("train", "valid" or "test") by file name; empty if it has none."""


def find(path: Path, unlabelled: bool = False) -> Source:
    """Search a folder, a zip archive or a .csv list for MIDI files and their labels.

    A label comes from EMOPIA's file names, else from the innermost folder named after an emotion (or an alias, or
    Q1..Q4), else from the CSV. The song is EMOPIA's id, the CSV's song, or the file's path without suffix. With
    ``unlabelled`` all MIDI files are taken, without labels; a folder that holds a file of the same name (472/472.mid)
    is one song with all files below it (472/versions/472-v1.mid).

    Raises:
        EmogenError: nothing there, not a zip archive, or no file that has a label and can be read.
    """
    if not path.exists():
        raise EmogenError(f"no such file or folder: {path}", "emogen prepare --download fetches EMOPIA")
    if not (path.is_dir() or path.is_file()):
        raise EmogenError(f"{path} is neither a folder nor a file", "prepare takes a folder, a .zip or a .csv list")
    try:
        if path.suffix.lower() == ".csv":
            return _find_listed(path, unlabelled)
        in_zip = not path.is_dir()
        entries = sorted(_members(path) if in_zip else _files(path))
    except OSError as error:
        raise EmogenError(f"{path} cannot be read ({error.strerror or error})") from None

    midi = [entry for entry in entries if entry[0].lower().endswith(SUFFIXES) or not entry[0]]
    files = [Found(name, size, stamp) for name, size, stamp, unusable in midi if not unusable]
    left_out = [(name or "(no name)", unusable) for name, _, _, unusable in midi if unusable]
    if not midi:
        raise EmogenError(f"no MIDI files ({', '.join(SUFFIXES)}) in {path}", LAYOUTS)
    if not files:
        raise EmogenError(f"no usable music in {path}", reasons(left_out))
    if unlabelled:
        return Source(path, in_zip, _named_by_folder(files), left_out)
    labelled = [replace(file, label=label, song=song) for file in files for label, song in [_label(file.name)] if label]
    if not labelled:
        raise EmogenError(f"none of the {len(midi)} MIDI files in {path} has an emotion", LAYOUTS)
    names = {file.name for file in labelled}
    left_out += [(file.name, "no emotion in its name or its folders") for file in files if file.name not in names]
    source = Source(path, in_zip, labelled, sorted(left_out))
    return _with_lists(source, [name for name, _, _, unusable in entries if not unusable and name.endswith(".csv")])


def reasons(left_out: list[tuple[str, str]]) -> str:
    """Why files were left out, most frequent reason first."""
    counts = Counter(reason for _, reason in left_out).most_common(3)
    return "; ".join(f"{reason} ({count}x)" for reason, count in counts)


def _files(folder: Path) -> Iterator[Entry]:
    """The files of a folder and its sub-folders; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise error

    for here, folders, names in os.walk(folder, onerror=refuse):
        within = Path(here).relative_to(folder).as_posix()
        prefix = "" if within == "." else within + "/"
        folders[:] = [name for name in folders if name != "__MACOSX"]
        for name in names + [name for name in folders if name.lower().endswith(SUFFIXES)]:
            if not name.startswith("._"):
                yield (prefix + name, *_inspect(Path(here, name)))


def _inspect(path: Path) -> tuple[int, int, str]:
    """Size and stamp of a file, and why it cannot be used."""
    try:
        status = path.stat()
    except OSError as error:
        return 0, 0, f"cannot be read ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return 0, 0, "not a file"
    return status.st_size, status.st_mtime_ns, _too_large(status.st_size)


def _is_file(path: Path) -> bool:
    """Whether there is such a file, whatever stands for its name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long a name, or none that a file could have
        return False


def _too_large(size: int) -> str:
    return f"larger than {MAX_BYTES // 1_000_000} MB" if size > MAX_BYTES else ""


def _members(path: Path) -> Iterator[Entry]:
    """The files of a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise EmogenError(
            f"{path} is not a zip archive", "prepare takes a folder, a .zip archive or a .csv list"
        ) from None
    if len(members) > MAX_MEMBERS:
        raise EmogenError(f"{path} holds more than {MAX_MEMBERS:,} files")
    for name, member in {member.filename: member for member in members}.items():
        if not name:
            yield name, member.file_size, member.CRC, "a member of the archive without a name"
            continue
        parts = name.replace("\\", "/").split("/")
        if member.is_dir() or "__MACOSX" in parts or parts[-1].startswith("._"):
            continue
        unsafe = ".." in parts or parts[0] == "" or parts[0].endswith(":")
        problem = "a name that points outside the archive" if unsafe else _too_large(member.file_size)
        yield name, member.file_size, member.CRC, problem


@contextmanager
def opened(root: Path, in_zip: bool) -> Iterator[Callable[[str], bytes]]:
    """A function that returns the bytes of a source's file by its name, at most one more than ``MAX_BYTES``.

    It raises UnusableFile with the reason where it cannot.
    """
    if in_zip:
        with zipfile.ZipFile(root) as archive:
            yield lambda name: _read(lambda: archive.open(name))
    else:
        yield lambda name: _read(lambda: (root / name).open("rb"))


def _read(open_file: Callable[[], IO[bytes]]) -> bytes:
    try:
        with open_file() as file:
            return file.read(MAX_BYTES + 1)  # one more than the reader of MIDI files takes
    except OSError as error:
        raise UnusableFile(f"cannot be read ({error.strerror or error})") from None
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError, ValueError) as error:
        raise UnusableFile(f"cannot be unpacked ({error or type(error).__name__})") from None


def _label(name: str) -> tuple[str, str]:
    """Label and song according to a file's name and folders; both empty if they say nothing."""
    path = PurePosixPath(name)
    if clip := EMOPIA_NAME.fullmatch(path.name):
        return f"Q{clip[1]}", clip[2]
    for folder in reversed(path.parts[:-1]):
        if label := meant(folder):
            return label, str(path.with_suffix(""))
    return "", ""


def _named_by_folder(files: list[Found]) -> list[Found]:
    """Files without labels, with their songs: see ``find``."""
    paths = [PurePosixPath(file.name) for file in files]
    songs = {path.parent for path in paths if path.stem == path.parent.name}
    above = ([folder for folder in path.parents if folder in songs] for path in paths)
    return [
        replace(file, song=str(folders[-1] if folders else path.with_suffix("")))
        for file, path, folders in zip(files, paths, above, strict=True)
    ]


def _with_lists(source: Source, lists: list[str]) -> Source:
    """The source with the contents of its ``label.csv`` and split files."""
    labels: dict[str, str] = {}
    official: dict[str, str] = {}
    remarks = []
    with opened(source.root, source.in_zip) as read:
        for name in lists:
            base = PurePosixPath(name).name
            if base != "label.csv" and base not in OFFICIAL_LISTS:
                continue
            try:
                table = read_table(read(name), name)
            except (EmogenError, UnusableFile) as error:
                remarks.append((name, f"left out: {error}"))
                continue
            if base in OFFICIAL_LISTS:
                official |= {row[-1]: OFFICIAL_LISTS[base] for row in table.rows}
            else:
                labels |= {row.get("path", ""): row.get("emotion", "") for row in table.dicts()}
    stems = {PurePosixPath(file.name).stem: file for file in source.files}
    remarks += [(clip, "listed in label.csv, but there is no such file") for clip in labels if clip not in stems]
    for clip, file in stems.items() if labels else ():
        if clip not in labels:
            remarks.append((file.name, "not listed in label.csv; labelled by its name"))
        elif not _agree(meant(labels[clip], in_list=True), file.label):
            remarks.append((file.name, f"label.csv says {labels[clip]}; labelled by its name"))
    return replace(source, remarks=sorted(remarks), official=official)


def _agree(one: str, other: str) -> bool:
    """Whether two labels may be of one clip: where either is a quadrant, both are of it."""
    if one in EMOTIONS and other in EMOTIONS:
        return one == other
    return len({f"Q{QUADRANT_OF[name]}" if name in EMOTIONS else name for name in (one, other)}) == 1


def _find_listed(path: Path, unlabelled: bool) -> Source:
    """The files of a CSV list with the columns ``path,emotion[,song]``; paths are relative to the list's folder."""
    table = read_table(path.read_bytes(), str(path))
    for needed in ("path",) if unlabelled else ("path", "emotion"):
        if needed not in table.columns:
            hint = f"its first line names columns like path,emotion,song (here parted by {table.separator}); {WORDS}"
            raise EmogenError(f"{path} has no column '{needed}'", hint)
    files: dict[Path, Found] = {}
    left_out, remarks = [], []
    for name, row in zip(_located(path.parent, table), table.dicts(), strict=True):
        word = row.get("emotion", "")
        label = "" if unlabelled else meant(word, in_list=True)
        size, stamp, problem = _inspect(path.parent / name) if "\0" not in name else (0, 0, "not a file")
        if not unlabelled and not label:
            problem = f"unknown emotion '{word}' {suggest(word, (*EMOTIONS, *ALIASES))}".strip()
        elif before := files.get((path.parent / name).absolute()):
            problem = "listed before"
            if label != before.label:
                remarks.append((name, f"listed as {before.label}, which counts, and as {label}"))
        if problem:
            left_out.append((name, problem))
        else:
            song = row.get("song") or _label(name)[1] or str(PurePosixPath(name).with_suffix(""))
            files[(path.parent / name).absolute()] = Found(name, size, stamp, label, song)
    if not files:
        hint = reasons(left_out) if left_out else "one line per file"
        raise EmogenError(f"{path} lists no usable file", f"{hint}; {WORDS}")
    ordered = sorted(files.values(), key=lambda file: file.name)
    if unlabelled and "song" not in table.columns:
        ordered = _named_by_folder(ordered)
    return Source(path.parent, False, ordered, sorted(left_out), sorted(remarks))


def _located(folder: Path, table: Table) -> list[str]:
    """The paths in a list as the files are found: with either slash, without a suffix, or, like EMOPIA's own list, as
    the names of files that lie anywhere beneath the list's folder. What is not found stays as it is written."""
    beneath: dict[str, list[str]] | None = None
    names = []
    for row in table.dicts():
        written = row.get("path", "")
        slashed = os.path.normpath(written.replace("\\", "/")) if written else written
        candidates = [slashed, *(slashed + suffix for suffix in SUFFIXES), written]
        name = next((one for one in candidates if one and _is_file(folder / one)), "")
        if not name and written and "/" not in slashed:
            if beneath is None:
                beneath = {}
                for each in sorted(each for each, *_ in _files(folder) if each.lower().endswith(SUFFIXES)):
                    for key in {PurePosixPath(each).name, PurePosixPath(each).stem}:
                        beneath.setdefault(key, []).append(each)
            found = beneath.get(slashed, [])
            name = found[0] if len(found) == 1 else ""
        names.append(name or slashed)
    return names
