"""A blind listening test: one page that hides where its pieces come from, and the table of what listeners said.

On the page pieces have meaningless names; a key beside it says which is which. Intervals come from the pigeonhole
bootstrap (A. B. Owen, Annals of Applied Statistics 1, 2007): listeners and pieces are resampled separately, because
neither the answers of one listener nor those about one piece are independent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emogen.data import sources
from emogen.emotion import EMOTIONS, QUADRANT_OF
from emogen.errors import EmogenError, UnusableFile
from emogen.music.midi import read_piece
from emogen.music.notes import Piece
from emogen.music.tokens import decode, encode
from emogen.sound import page
from emogen.system.files import write_text

DRAWS = 2000
"""Number of bootstrap samples."""
MEASURES = ("emotion", "quadrant", "valence", "arousal", "musicality")
"""The measures of ``score``, for each origin."""

QUADRANTS = ("Q1", "Q2", "Q3", "Q4")
NUMBER_OF = QUADRANT_OF | {name: number for number, name in enumerate(QUADRANTS, 1)} | {"": 0}
"""The quadrant, 1..4, that a piece was intended to have; 0 if unknown."""
Rating = Annotated[int, Field(ge=1, le=5)]
Emotion = Annotated[str, Field(pattern=f"^({'|'.join(EMOTIONS)})$")]
Wanted = Annotated[str, Field(pattern=f"^({'|'.join((*EMOTIONS, *QUADRANTS))})?$")]


class Trial(NamedTuple):
    """One piece to be heard."""

    origin: str
    wanted: str
    """One of ``EMOTIONS``, ``"Q1"``..``"Q4"``, or empty if unknown."""
    source: str
    """The seed or file it came from; only the key holds it."""
    sound: bytes
    """An MP3 file, see ``render.small_mp3``."""


class Frozen(BaseModel):
    """Part of one of the test's files."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Hidden(Frozen):
    """The entry of a piece in the key."""

    origin: str
    wanted: Wanted
    source: str


class Key(Frozen):
    """The key: what the page hides."""

    test: str
    pieces: dict[str, Hidden]


class Answer(Frozen):
    """One listener's answer about one piece."""

    piece: str
    emotion: Emotion
    valence: Rating
    arousal: Rating
    musicality: Rating


class Answers(Frozen):
    """The file that one listener saved."""

    test: str
    listener: str
    answers: tuple[Answer, ...]


Told = TypeVar("Told", Key, Answers)


def real_pieces(source: Path, count: int, seconds: float, seed: int) -> list[tuple[str, str, Piece]]:
    """Real clips to hear among the others, see ``chosen_pieces``; where a folder has no labels, as many in all.

    Raises:
        EmogenError: too few MIDI files, or too few that are long enough.
    """
    try:
        found = sources.find(source)
    except EmogenError:
        found = sources.find(source, unlabelled=True)
    return chosen_pieces(found, source, count, seconds, seed)


def chosen_pieces(
    found: sources.Source, source: Path, count: int, seconds: float, seed: int
) -> list[tuple[str, str, Piece]]:
    """Pieces of a source to be heard: (label, name, the first ``seconds``), chosen by ``seed``.

    For each of the six emotions ``count`` pieces of it or of its quadrant, no song twice. They are read as the model
    would read them, and none is shorter, so that neither timing nor length gives them away. Of two sources whose
    files have the same names the same ones are chosen, so that systems are heard in pairs.

    Raises:
        EmogenError: too few MIDI files, or too few that are long enough.
    """
    shuffled = sorted(found.files, key=lambda file: hashlib.sha256(f"{seed} {file.name}".encode()).digest())
    open_places = [(name, f"Q{QUADRANT_OF[name]}") if found.files[0].label else ("",) for name in EMOTIONS] * count
    chosen: list[tuple[str, str, Piece]] = []
    songs: set[str] = set()
    with sources.opened(found.root, found.in_zip) as read:
        for file in shuffled:
            place = next((place for place in open_places if file.label in place), None)
            if place is None or file.song in songs:
                continue
            piece = _long_enough(read, file.name, seconds)
            if piece is not None:
                open_places.remove(place)
                songs.add(file.song)
                chosen.append((file.label, file.name, piece))
    if open_places:
        raise EmogenError(
            f"{source} has too few{' ' * bool(open_places[0][0])}{open_places[0][0]} clips of {seconds:g} s",
            "ask for fewer with --count, or fewer --seconds",
        )
    return chosen


def _long_enough(read: Callable[[str], bytes], name: str, seconds: float) -> Piece | None:
    """The beginning of a clip, or None if it cannot be read or is shorter."""
    try:
        piece = decode(encode(read_piece(read(name), any_instrument=True)))
    except UnusableFile:
        return None
    return piece.crop(0, round(seconds * 1000)) if piece.end_ms >= seconds * 1000 else None


def write_test(file: Path, key: Path, trials: Sequence[Trial], seed: int) -> None:
    """Write the key of a test and then its page. The order on the page is random, and shuffled for each listener."""
    digest = hashlib.sha256(repr(seed).encode())
    for trial in trials:
        digest.update(repr(trial).encode())
    test = digest.hexdigest()[:16]
    shuffled = [trials[i] for i in np.random.default_rng(seed).permutation(len(trials))]
    named = {hashlib.sha256(f"{test} {place}".encode()).hexdigest()[:12]: one for place, one in enumerate(shuffled)}
    hidden = {name: {"origin": one.origin, "wanted": one.wanted, "source": one.source} for name, one in named.items()}
    write_text(key, json.dumps({"test": test, "pieces": hidden}, indent=1))
    sounds = [
        f'<script type="text/plain" data-piece="{name}">{page.as_text(one.sound)}</script>'
        for name, one in named.items()
    ]
    choices = [f'<label><input type="radio" name="emotion" value="{name}" required>{name}</label>' for name in EMOTIONS]
    text = page.fill(
        "listening.html", test=test, count=str(len(trials)), emotions="\n".join(choices), sounds="\n".join(sounds),
        sound_type=page.SOUND_TYPE,
    )  # fmt: skip
    write_text(file, text)


def score(files: Sequence[Path], key: Path) -> list[dict[str, Any]]:
    """The answers by origin: counts, and each measure with its 95 % interval.

    ``emotion`` and ``quadrant``: the share of answers that name the wanted one. ``valence`` and ``arousal``: by how
    many points of the scale (1..5) pieces meant pleasant (lively) were rated above those meant unpleasant (quiet).
    ``musicality``: the mean rating (1..5). A measure is None where no piece of the origin tells it.

    Raises:
        EmogenError: a file is damaged, belongs to another test, or comes from a listener who is already counted.
    """
    hidden = _read(key, Key, "the key of a listening test")
    given: list[tuple[str, Answer]] = []
    by_listener: dict[str, Path] = {}
    for file in files:
        one = _read(file, Answers, "answers of a listening test")
        if one.test != hidden.test or any(answer.piece not in hidden.pieces for answer in one.answers):
            raise EmogenError(f"{file} answers another test than that of {key}", "--key names the key of its page")
        if one.listener in by_listener:
            both = f"{by_listener[one.listener]} and {file}"
            raise EmogenError(f"{both} come from the same listener", "leave out the one with fewer answers")
        by_listener[one.listener] = file
        answered = {answer.piece: answer for answer in one.answers}
        given += [(one.listener, answer) for answer in answered.values()]
    if not given:
        raise EmogenError("nobody has answered anything", "answers are saved on the page, with its last button")
    return _scored(given, hidden.pieces)


def _read(file: Path, kind: type[Told], what: str) -> Told:
    """A JSON file of the test."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise EmogenError(f"there is no file {file}", "emogen listening-test writes a page and its key") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise EmogenError(f"{file} is not {what}: {where + ': ' if where else ''}{first['msg']}") from None


def _scored(given: Sequence[tuple[str, Answer]], pieces: dict[str, Hidden]) -> list[dict[str, Any]]:
    """One row for each origin, in the order of their names."""
    rng = np.random.default_rng(0)
    listener = np.unique([name for name, _ in given], return_inverse=True)[1]
    drawn = _drawn_again(int(listener.max()) + 1, rng)
    rows = []
    for origin in sorted({one.origin for one in pieces.values()}):
        mine = np.array([pieces[answer.piece].origin == origin for _, answer in given])
        answers = [answer for is_mine, (_, answer) in zip(mine, given, strict=True) if is_mine]
        row: dict[str, Any] = {"origin": origin, "pieces": len({a.piece for a in answers}), "answers": len(answers)}
        row["listeners"] = len(set(listener[mine].tolist()))
        piece = np.unique([answer.piece for answer in answers], return_inverse=True)[1]
        weight = drawn[:, listener[mine]] * _drawn_again(row["pieces"], rng)[:, piece]
        weight = np.concatenate([np.ones((1, len(answers))), weight])
        found, *samples = _measures(weight, answers, [pieces[answer.piece].wanted for answer in answers])
        for name, value, column in zip(MEASURES, found, np.array(samples).T, strict=True):
            row[name] = _interval(float(value), column)
        rows.append(row)
    return rows


def _drawn_again(number: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Bootstrap weights (DRAWS, number): how often each item occurs in a sample of ``number`` with replacement."""
    if not number:
        return np.zeros((DRAWS, 0), dtype=np.int64)
    return rng.multinomial(number, np.full(number, 1 / number), DRAWS)


def _interval(value: float, samples: npt.NDArray[np.float64]) -> dict[str, float] | None:
    """A measure with its 95 % interval; samples in which it is undefined are left out."""
    if np.isnan(value):
        return None
    low, high = np.nanquantile(samples, (0.025, 0.975))
    return {"mean": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _measures(weight: npt.NDArray[Any], answers: Sequence[Answer], wanted: Sequence[str]) -> npt.NDArray[np.float64]:
    """``MEASURES`` (S, 5) of N answers, weighted by S rows of weights (S, N); NaN where undefined."""
    emotion = np.array([answer.emotion == name for answer, name in zip(answers, wanted, strict=True)], dtype=bool)
    quadrant = np.array([NUMBER_OF[name] for name in wanted], dtype=int)
    heard = np.array([QUADRANT_OF[answer.emotion] for answer in answers], dtype=int)
    valence, arousal, musicality = (
        np.array([getattr(answer, name) for answer in answers], dtype=float)
        for name in ("valence", "arousal", "musicality")
    )

    def mean(of: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        total = weight @ where.astype(float)
        means: npt.NDArray[np.float64] = np.full(len(weight), np.nan)
        np.divide(weight @ (of * where), total, out=means, where=total > 0)
        return means

    columns = (
        mean(emotion, np.array([name in EMOTIONS for name in wanted], dtype=bool)),
        mean(heard == quadrant, quadrant > 0),
        mean(valence, np.isin(quadrant, (1, 4))) - mean(valence, np.isin(quadrant, (2, 3))),
        mean(arousal, np.isin(quadrant, (1, 2))) - mean(arousal, np.isin(quadrant, (3, 4))),
        mean(musicality, np.ones(len(answers), dtype=bool)),
    )
    return np.stack(columns, axis=1)
