"""``emogen.evaluate``: any systems beside real clips, from folders or pieces to one report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from emogen.data.corpus import Corpus, open_corpus, with_fingerprint
from emogen.ear.fitted import Ear
from emogen.errors import UsageError, check_range
from emogen.evaluation import systems, yardstick
from emogen.evaluation.sections import Report
from emogen.evaluation.systems import System
from emogen.music.notes import Piece
from emogen.settings import SampleSettings, load

Pieces = str | PathLike[str] | Sequence[tuple[str, Piece]]
"""A folder of labelled MIDI files, or pieces with their labels."""
Tell = Callable[[str, float], None]
"""Called with what is being done, and the share of it that is done."""


def evaluate(
    pieces: Mapping[str, Pieces],
    *,
    data: str = "",
    seconds: float = 30.0,
    baselines: bool = False,
    count: int = 40,
    tell: Tell = lambda what, share: None,
) -> Report:
    """Measure systems beside the test clips of a prepared, labelled corpus, as ``emogen evaluate --pieces`` does.

    Args:
        pieces: for each system's name a folder of MIDI files (labelled by names, sub-folders or a CSV file), or a list
            of (label, piece), where a label is an emotion or "Q1" to "Q4".
        data: name or folder of the prepared corpus (default: the one whose other songs the ear was fitted on, or the
            last).
        seconds: 10 to 180; of each piece only its first seconds count.
        baselines: measure real clips with shuffled labels, training clips, notes without order and the bundled voice
            too.
        count: pieces of each emotion by the bundled voice, 2 to 1000.
        tell: called with what is being done and the share of it that is done.

    Returns:
        A tree of plain numbers, ready for JSON; docs/evaluating.md says what they mean.

    Raises:
        UsageError: no system, a name that cannot be one, a number out of range.
        EmogenError: a folder without labelled files that can be read, no prepared corpus.
    """
    settings = load().settings
    corpus = reference(settings.paths.data_home, data)
    some = gathered(pieces, seconds)
    if baselines:
        some += references(corpus, seconds, count, settings.sample, lambda share: tell("composing", share))
    return yardstick.compare(some, corpus, Ear.load(), seconds, lambda share: tell("listening", share))


def reference(data_home: Path, data: str) -> Corpus:
    """The corpus whose test clips pieces are compared with, see ``evaluate``."""
    return open_corpus(data_home, data or with_fingerprint(data_home, Ear.load().dataset))


def gathered(pieces: Mapping[str, Pieces], seconds: float) -> list[System]:
    """The systems as they are measured, in order; see ``evaluate``."""
    check_range("seconds", seconds, 10, 180)
    if not pieces:
        raise UsageError("no systems to evaluate", 'as in emogen.evaluate({"mine": "folder"})')
    some = []
    for name, source in pieces.items():
        systems.check_name(name)
        if isinstance(source, str | PathLike):
            some.append(systems.read(name, Path(source), seconds))
        else:
            some.append(systems.of_pieces(name, source, seconds))
    return some


def references(
    corpus: Corpus, seconds: float, count: int, sample: SampleSettings, tell: Callable[[float], None]
) -> list[System]:
    """The baselines of ``systems.baselines``, and ``count`` pieces of each emotion by the bundled voice.

    The voice composes for typical plans, as in ``emogen evaluate``.
    """
    check_range("count", count, 2, 1000)
    from emogen.composing.voice import Voice
    from emogen.evaluation.evaluate import composed, planned_wishes  # imports torch, which no other column needs

    voice = Voice.open("default", load().settings.paths.runs)
    wishes, _ = planned_wishes(voice.plans, count, seconds, seed=0)
    made = composed(voice, wishes, sample, tell)
    labels = [max(wish.emotion, key=wish.emotion.__getitem__) for wish in wishes]
    real = systems.clips(systems.TEST, corpus, "test", seconds)
    own = systems.of_pieces(systems.VOICE, list(zip(labels, made, strict=True)), seconds)
    return [*systems.baselines(real, corpus, seconds), own]
