"""Feelings that change: the passages of a piece, each with an emotion, and how one goes over into the next.

What changes is written as "sad 0:00, calm 0:30, happy 1:10", or as "tense > calm", an even path over the whole length:
music therapy meets a mood and then leads it, step by step (I. Altshuler's iso principle, 1948).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from emogen.emotion import EMOTIONS, parse_mixture
from emogen.errors import UsageError

Change = Literal["over", "cut", "even"]
"""How passages follow each other: over a few seconds, at once, or as an even path from each to the next."""
TRANSITION_S = 4.0
"""How long one feeling takes to go over into the next, at most a third of the shorter passage."""
STEP_S = 8.0
"""While feelings change, the plan of the notes is renewed after this time or earlier."""
LEAST_S = 4.0
"""Shortest passage: a bar or two."""
WRITTEN = 'write passages as "sad 0:00, calm 0:30", or an even path as "tense > calm"'


class Passage(NamedTuple):
    """A part of a piece with one emotion."""

    at_s: float
    """When it begins."""
    emotion: Mapping[str, float]
    """Weights over the emotions, as ``emotion.parse_mixture`` gives them."""


@dataclass(frozen=True)
class Step:
    """A time for which a plan holds."""

    until_s: float
    shares: dict[int, float]
    """Of each passage that is heard, by its number, how much; together 1."""


def time_s(text: str, name: str = "time") -> float:
    """Seconds, written as such (42.5) or as minutes and seconds (0:42.5).

    Raises:
        UsageError: anything else; ``name`` is what it is called in the message.
    """
    written = re.fullmatch(r"(?:(\d{1,3}):(?=[0-5]?\d(?:\.|s?$)))?(\d{1,4}(?:\.\d*)?)(?<!:)s?", text.strip())
    if not written:
        raise UsageError(f"'{text}' is not a {name}", "times are written in seconds, 42.5, or as minutes, 0:42.5")
    return int(written[1] or 0) * 60 + float(written[2])


def is_path(text: str) -> bool:
    """Whether what a user writes for an emotion has several passages."""
    return bool(re.search(r"[>@]|[^:\s]\s+(b\d+|-?\d[\d:.]*s?)\s*(,|$)", text))


def parse_path(text: str, bar_s: float | None = None) -> tuple[tuple[Passage, ...], bool]:
    """The passages that a user writes, and whether they are an even path (whose times are all 0 still).

    Args:
        text: such as "sad 0:00, calm 0:30", "sad@0, calm@30", "sad@b1, calm@b9", or "tense > calm". In a passage
            mixtures are written with +: "happy:0.7+calm:0.3@30".
        bar_s: length of a bar, for passages that begin at bars; None where it is not known.

    Raises:
        UsageError: what cannot be read.
    """
    if ">" in text:
        if "@" in text or re.search(r"\d:\d", text):
            raise UsageError(f"'{text}' is an even path, and has times too", WRITTEN)
        return tuple(Passage(0.0, parse_mixture(part)) for part in text.split(">")), True
    passages = []
    for number, part in enumerate(text.split(",")):
        written = re.fullmatch(r"\s*(.*?)\s*(?:@|\s)\s*(b?-?[\d:.]+s?)\s*", part)
        if not written and number:
            raise UsageError(f"when does '{part.strip()}' begin?", WRITTEN)
        word, when = (written[1], written[2]) if written else (part, "0")
        if bar := re.fullmatch(r"b(\d{1,4})", when):
            if bar_s is None:
                raise UsageError(f"when bar {bar[1]} begins depends on the tempo", "give --tempo, or write seconds")
            at_s = max(0, int(bar[1]) - 1) * bar_s
        else:
            at_s = time_s(when)
        passages.append(Passage(at_s, parse_mixture(word)))
    return tuple(passages), False


def fitted(passages: Sequence[Passage], seconds: float, even: bool) -> tuple[Passage, ...]:
    """The passages of a piece of some seconds; those of an even path receive their times.

    Raises:
        UsageError: passages that do not begin with the piece, do not follow each other, or are too short.
    """
    if even:
        apart = seconds / max(len(passages) - 1, 1)
        passages = [Passage(apart * number, one.emotion) for number, one in enumerate(passages)]
        if len(passages) > 1 and apart < LEAST_S:
            raise UsageError(f"{len(passages)} feelings have {apart:.1f} s each", "take fewer, or more seconds")
        return tuple(passages)
    if passages[0].at_s:
        raise UsageError(f"the first passage begins at {passages[0].at_s:g} s", "let it begin at 0")
    for one, next_s in zip(passages, [*(one.at_s for one in passages[1:]), seconds], strict=True):
        if next_s - one.at_s < LEAST_S:
            where = "the end" if next_s == seconds else f"the next, at {next_s:g} s"
            raise UsageError(
                f"the passage at {one.at_s:g} s is less than {LEAST_S:g} s before {where}", "let passages be longer"
            )
    return tuple(passages)


def themes(passages: Sequence[Passage]) -> list[int]:
    """Of each passage the number of the first one with the same emotion, whose plan, key and chords it has."""
    emotions = [one.emotion for one in passages]
    return [emotions.index(emotion) for emotion in emotions]


def mean(passages: Sequence[Passage], seconds: float, change: Change) -> dict[str, float]:
    """The emotion of a whole piece: that of its passages, by their lengths."""
    weights = dict.fromkeys(EMOTIONS, 0.0)
    begun_s = 0.0
    for step in steps(passages, seconds, change):
        for number, share in step.shares.items():
            for name, weight in passages[number].emotion.items():
                weights[name] += share * weight * (step.until_s - begun_s) / seconds
        begun_s = step.until_s
    return {name: weight for name, weight in weights.items() if weight}


def begins(passages: Sequence[Passage], change: Change) -> list[float]:
    """When each passage takes over, in s: on an even path, midway from the one before."""
    at_s = [one.at_s for one in passages]
    return [0.0, *((a + b) / 2 if change == "even" else b for a, b in pairwise(at_s))]


def steps(passages: Sequence[Passage], seconds: float, change: Change) -> list[Step]:
    """The steps of a piece, in their order; the last ends with it."""
    corners = _corners([one.at_s for one in passages], seconds, change)
    found = []
    for (from_s, before), (to_s, after) in pairwise(corners):
        if to_s <= from_s:
            continue
        if before == after:
            found.append(Step(to_s, {before: 1.0}))
            continue
        count = max(2, round((to_s - from_s) / STEP_S))
        for number in range(count):
            share = (number + 0.5) / count
            found.append(Step(from_s + (to_s - from_s) * (number + 1) / count, {before: 1 - share, after: share}))
    return found


def _corners(at_s: Sequence[float], seconds: float, change: Change) -> list[tuple[float, int]]:
    """Times, rising, with the passage that is alone there; between two of them one goes over into the other."""
    if change == "even" and len(at_s) > 1:
        return list(zip(at_s, range(len(at_s)), strict=True))
    corners = [(0.0, 0)]
    ends_s = [*at_s[1:], seconds]
    for number, edge_s in enumerate(at_s[1:], start=1):
        shorter_s = min(edge_s - at_s[number - 1], ends_s[number] - edge_s)
        half_s = 0.0 if change == "cut" else min(TRANSITION_S, shorter_s / 3) / 2
        corners += [(edge_s - half_s, number - 1), (edge_s + half_s, number)]
    return [*corners, (seconds, len(at_s) - 1)]
