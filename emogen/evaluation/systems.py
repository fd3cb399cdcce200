"""Systems: folders of labelled MIDI files, whoever made them, as pieces to be measured; and baselines of real music.

A folder is labelled as for ``prepare`` (EMOPIA's file names, folders named after emotions or Q1..Q4), or by a CSV file
in it with the columns path and emotion. A quadrant is label enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from emogen.data import sources
from emogen.data.corpus import Corpus
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError, UnusableFile, UsageError
from emogen.evaluation.sections import Heard, labelled
from emogen.music.midi import Instruments, instruments, read_midi
from emogen.music.midi_events import count_of
from emogen.music.notes import Ints, Piece
from emogen.music.tokens import Tokens, decode, encode, on_grid

FEWEST = 20
"""Pieces of a quadrant below which a system is said to be measured roughly."""
EXAMPLE = "--pieces mine=./folder"
LABELS = (
    "names as EMOPIA's (Q1_<song>_<clip>.mid), folders named Q1 to Q4 or after emotions, or a CSV file path,emotion"
)
TEST, CHANCE, OBEDIENT, LOOSE, VOICE = (
    "real test clips", "labels shuffled", "training clips", "notes without order", "bundled voice"
)  # fmt: skip
"""Names of the columns that come along."""


@dataclass(frozen=True, eq=False)
class System:
    """N labelled pieces of one source."""

    name: str
    heard: Heard
    """On the grid of the tokens, cut to the length that is evaluated."""
    files: list[str]
    """(N,): names, by which the pieces of two systems are paired."""
    songs: list[str]
    """(N,): what is not independent of each other has one name."""
    folder: str = ""
    left_out: tuple[tuple[str, str], ...] = ()
    """Files that could not be used, and why."""
    remarks: tuple[str, ...] = ()
    """What people should know about the pieces."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def quadrants(self) -> dict[str, int]:
        """The number of pieces of each quadrant that there is."""
        return {f"Q{one}": int(count) for one, count in sorted(Counter(self.heard.quadrant.tolist()).items())}


def named(options: Sequence[str]) -> dict[str, Path]:
    """The folders of ``NAME=FOLDER``, by name.

    Raises:
        UsageError: no name, no folder, a name with a comma, a name given twice or one of a column that comes along.
    """
    found: dict[str, Path] = {}
    for option in options:
        name, equals, folder = option.partition("=")
        name = name.strip()
        if not equals or not name or not folder:
            raise UsageError(f"--pieces {option} is not NAME=FOLDER", f"as in {EXAMPLE}")
        check_name(name)
        if name in found:
            raise UsageError(f"two systems are called '{name}'", f"give each its own name, {EXAMPLE}")
        found[name] = Path(folder)
    return found


def check_name(name: str) -> None:
    """Refuse a name that tables could not carry.

    Raises:
        UsageError: it is empty, has a comma or a line break, or names a column that comes along.
    """
    if not name.strip() or set(name) & set(",\r\n\t"):
        raise UsageError(f"'{name}' cannot be the name of a system", "use a short name without commas")
    if name in (TEST, CHANCE, OBEDIENT, LOOSE, VOICE):
        raise UsageError(f"'{name}' is the name of a column that comes along", "give the system another name")


def read(name: str, folder: Path, seconds: float) -> System:
    """The labelled MIDI files of a folder (or .zip, or .csv list), the first ``seconds`` of each.

    Files that cannot be read are left out and listed. Instruments other than the piano are read as a piano, where
    there is no piano; drums never.

    Raises:
        EmogenError: there is no labelled file that can be read, or all are of one quadrant.
    """
    found = find(folder)
    pieces: list[Piece] = []
    kept: list[sources.Found] = []
    left_out = [(file, why) for file, why in found.left_out]
    bands: list[Instruments] = []
    with sources.opened(found.root, found.in_zip) as content:
        for file in found.files:
            try:
                data = content(file.name)
                pieces.append(read_midi(data, any_instrument=True).piece)
                bands.append(instruments(data))
            except UnusableFile as error:
                left_out.append((file.name, str(error)))
            else:
                kept.append(file)
    if not kept:
        raise EmogenError(f"no file in {folder} can be read", sources.reasons(left_out))
    songs = [file.song for file in kept]
    heard = _heard(pieces, [file.label for file in kept], songs, seconds)
    if len(np.unique(heard.quadrant)) == 1:
        hint = "a system is judged by pieces of two quadrants or more"
        raise EmogenError(f"all {len(kept)} pieces in {folder} are of Q{heard.quadrant[0]}", hint)
    short = sum(piece.end_ms < 1000 * seconds - 500 for piece in pieces)
    system = System(name, heard, [_stem(file.name) for file in kept], songs, str(folder), tuple(sorted(left_out)))
    return replace(system, remarks=(*_instrumental(bands), *_scarce(system), *_shortness(short, len(kept), seconds)))


def _heard(pieces: Sequence[Piece], labels: Sequence[str], songs: Sequence[str], seconds: float) -> Heard:
    """The beginnings of pieces, cut on the grid as ``labelled`` cuts real clips."""
    cut = [on_grid(piece).crop(0, round(1000 * seconds)) for piece in pieces]
    emotion = [EMOTIONS.index(label) if label in EMOTIONS else -int(label[1]) for label in labels]
    return Heard(cut, [encode(piece) for piece in cut], np.array(emotion), np.unique(songs, return_inverse=True)[1])


def find(folder: Path) -> sources.Source:
    """The labelled files of a folder, by their names and folders, or else by a CSV file in it.

    Raises:
        EmogenError: there is no folder, or no labelled file in it.
    """
    if not folder.exists():
        raise EmogenError(f"there is no folder {folder}", f"name one that holds MIDI files: {EXAMPLE}")
    try:
        return sources.find(folder)
    except EmogenError as error:
        lists = sorted(folder.glob("*.csv")) if folder.is_dir() else []
        if not lists:
            raise EmogenError(str(error), f"labels come from {LABELS}") from None
        problem = error
    for one in sorted(lists, key=lambda file: file.stem.lower() not in ("labels", "label")):
        try:
            return sources.find(one)
        except EmogenError as error:
            problem = error
    raise problem


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _instrumental(bands: Sequence[Instruments]) -> Iterator[str]:
    """What a person should know about the instruments of the files."""
    for number, what in (
        (sum(one.drums for one in bands), "with drums, which are left out"),
        (sum(one.piano and one.others for one in bands), "with other instruments beside a piano, which are left out"),
        (sum(not one.piano for one in bands), "without a piano: other instruments are heard as one"),
        (sum(one.tracks > 1 for one in bands), "with several tracks, which are merged"),
    ):
        if number:
            yield f"{count_of(number, 'file')} {what}"


def _scarce(system: System) -> Iterator[str]:
    few = {name: number for name, number in system.quadrants.items() if number < FEWEST}
    if few:
        told = ", ".join(f"{number} of {name}" for name, number in few.items())
        yield f"fewer than {FEWEST} pieces ({told}): its intervals are wide"
    if missing := {"Q1", "Q2", "Q3", "Q4"} - system.quadrants.keys():
        yield f"no pieces of {', '.join(sorted(missing))}: means are over the other quadrants"


def _shortness(short: int, count: int, seconds: float) -> Iterator[str]:
    if short:
        yield f"{short} of {count} pieces shorter than {seconds:g} s"


def clips(name: str, corpus: Corpus, split: str, seconds: float) -> System:
    """The labelled clips of a split of a corpus, the first ``seconds`` of each."""
    heard = labelled(corpus, split, seconds)
    which = [clip for clip in corpus.clips(split).tolist() if corpus.emotion[clip] >= 0]
    files = [_stem(corpus.clip_names[clip]) for clip in which]
    return System(name, heard, files, [corpus.manifest.songs[one] for one in corpus.song[which]])


def of_pieces(name: str, pieces: Sequence[tuple[str, Piece]], seconds: float) -> System:
    """Pieces with their labels (an emotion, or Q1..Q4), each a song by itself.

    Raises:
        UsageError: no pieces, an unknown label, or one quadrant only.
    """
    unknown = [label for label, _ in pieces if label not in EMOTIONS and label not in ("Q1", "Q2", "Q3", "Q4")]
    if unknown:
        raise UsageError(f"unknown emotion '{unknown[0]}'", f"the emotions are {', '.join(EMOTIONS)}, and Q1 to Q4")
    files = [f"{name} {number}" for number in range(len(pieces))]
    heard = _heard([piece for _, piece in pieces], [label for label, _ in pieces], files, seconds)
    if len(np.unique(heard.quadrant)) < 2:
        raise UsageError(f"'{name}' has no pieces of two quadrants", "a system is judged by two quadrants or more")
    system = System(name, heard, files, files)
    return replace(system, remarks=tuple(_scarce(system)))


def by_chance(real: System) -> System:
    """The same clips with their labels shuffled."""
    emotion = np.random.default_rng(0).permutation(real.heard.emotion)
    return System(CHANCE, replace(real.heard, emotion=emotion), real.files, real.songs)


def baselines(real: System, corpus: Corpus, seconds: float) -> list[System]:
    """What obeys by chance, what obeys and copies, and what has real notes without order; as many pieces as ``real``.

    The same clips with their labels shuffled; for each clip a training clip of its quadrant; and for each, notes of
    the training clips of its quadrant in random order.
    """
    rng = np.random.default_rng(0)
    heard, training = real.heard, clips(OBEDIENT, corpus, "train", seconds)
    drawn = np.array([rng.choice(_of_quadrant(training, one)) for one in heard.quadrant.tolist()])
    copied = Heard(
        [training.heard.pieces[at] for at in drawn],
        [training.heard.tokens[at] for at in drawn],
        training.heard.emotion[drawn],
        training.heard.song[drawn],
    )
    notes = {
        one: np.concatenate([training.heard.tokens[at] for at in _of_quadrant(training, one)])
        for one in set(heard.quadrant.tolist())
    }
    loose = Heard.of([_without_order(notes[one], seconds, rng) for one in heard.quadrant.tolist()], heard.emotion)
    number = [f"{LOOSE} {at}" for at in range(len(heard.pieces))]
    files, songs = ([part[at] for at in drawn] for part in (training.files, training.songs))
    return [
        by_chance(real),
        System(OBEDIENT, copied, files, songs),
        System(LOOSE, loose, number, number),
    ]


def _of_quadrant(system: System, quadrant: int) -> Ints:
    return np.flatnonzero(system.heard.quadrant == quadrant)


def _without_order(notes: Tokens, seconds: float, rng: np.random.Generator) -> Piece:
    """A piece of notes (M, 4) drawn at random, each as it is, until the time is full."""
    rows = notes[rng.integers(0, len(notes), round(40 * seconds))]
    return decode(rows).crop(0, round(1000 * seconds))
