"""The six emotions, the quadrants they come from, and the mixtures people write.

EMOPIA's listeners labelled quadrants of Russell's valence-arousal plane (Hung et al., "EMOPIA", ISMIR 2021):
Q1 (+valence, +arousal), Q2 (-, +), Q3 (-, -), Q4 (+, -). The halves of Q1 and Q2 are derived (see
``split.name_emotions``), not labelled.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

from emogen import moods
from emogen.errors import UsageError, check_range

EMOTIONS = ("happy", "excited", "angry", "tense", "sad", "calm")
"""The conditions of the model, in the order of its embedding table."""

QUADRANTS = {1: ("happy", "excited"), 2: ("tense", "angry"), 3: ("sad",), 4: ("calm",)}
"""The emotions of each quadrant, the calmer first."""

QUADRANT_OF = {name: quadrant for quadrant, names in QUADRANTS.items() for name in names}

ALIASES = {
    "joy": "happy", "joyful": "happy", "happiness": "happy",
    "surprise": "excited", "surprised": "excited", "excitement": "excited",
    "anger": "angry",
    "fear": "tense", "fearful": "tense", "afraid": "tense", "tension": "tense",
    "sadness": "sad",
    "peaceful": "calm", "relaxed": "calm", "calmness": "calm",
}  # fmt: skip


FULL = 0.35
"""From this distance to the centre of the plane on, only the direction counts; nearer, all quadrants join."""
CORNERS = tuple(sorted((moods.DEGREES[name], name) for name in EMOTIONS))
"""The emotions around Russell's circle, in degrees."""
LEAST_SHARE = 0.05
"""A smaller share of a mixture is left out where a place is read."""


def suggest(word: str, known: Iterable[str]) -> str:
    """A did-you-mean sentence for a mistyped ``word``, or an empty string if nothing is similar."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def parse_mixture(text: str) -> dict[str, float]:
    """Weights over ``EMOTIONS`` from what a user writes; they are positive and sum to 1.

    ``"happy"``, an alias (``"joy"``), a word for a mood (``"nostalgic"``, see ``moods``), a quadrant (``"q2"``, an
    equal mixture of its emotions), or a mixture (``"happy:0.7,calm:0.3"``, or with +; weights are scaled to sum to 1).

    Raises:
        UsageError: an unknown name, a weight that is not a number from 1e-6 to 1e6, a part without a name.
    """
    weights: dict[str, float] = {}
    for part in re.split("[,+]", text):
        name, colon, number = (piece.strip().lower() for piece in part.partition(":"))
        shares = _shares(name)
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = -1.0
        if not 1e-6 <= weight <= 1e6:  # so that sums and halves of weights stay numbers
            raise UsageError(f"'{number}' is not a weight for '{name}'", "write a mixture as happy:0.7,calm:0.3")
        for one, share in shares.items():
            weights[one] = weights.get(one, 0.0) + weight * share
    total = sum(weights.values())
    return {name: weights[name] / total for name in EMOTIONS if name in weights}


def _shares(name: str) -> dict[str, float]:
    """The emotions that one word stands for, with their shares."""
    if quadrant := re.fullmatch(r"q([1-4])", name):
        names = QUADRANTS[int(quadrant[1])]
        return dict.fromkeys(names, 1 / len(names))
    canonical = ALIASES.get(name, name)
    if canonical in EMOTIONS:
        return {canonical: 1.0}
    if (place := moods.place(name)) is not None:
        return mixture_at(*place)
    near = suggest(name, (*EMOTIONS, *ALIASES, moods.NEUTRAL, *moods.WORDS))
    listing = f"the emotions are {', '.join(EMOTIONS)}; q1 to q4, mixtures (happy:0.7,calm:0.3)"
    listing += f" and {len(moods.WORDS)} words for moods work too"
    raise UsageError(f"unknown emotion '{name}'", f"{near} {listing}".strip())


def mixture_at(valence: float, arousal: float) -> dict[str, float]:
    """Weights of the emotions, as ``emotion.parse_mixture`` gives them, for a place on the plane.

    The two emotions on either side of its direction share by their angles to it; near the centre all quadrants join.

    Args:
        valence: from unpleasant, -1, to pleasant, 1.
        arousal: from sleepy, -1, to aroused, 1.

    Raises:
        UsageError: a number out of range.
    """
    check_range("valence", valence, -1, 1)
    check_range("arousal", arousal, -1, 1)
    weights = dict.fromkeys(EMOTIONS, 0.0)
    strength = min(1.0, math.hypot(valence, arousal) / FULL)
    angle = math.degrees(math.atan2(arousal, valence)) % 360
    after = next((number for number, (corner, _) in enumerate(CORNERS) if corner >= angle), 0)
    (low, before_name), (high, after_name) = CORNERS[after - 1], CORNERS[after]
    share = (angle - low) % 360 / ((high - low) % 360)
    weights[before_name] += strength * (1 - share)
    weights[after_name] += strength * share
    for names in QUADRANTS.values():
        for name in names:
            weights[name] += (1 - strength) / len(QUADRANTS) / len(names)
    least = 0.05
    kept = {name: weight for name, weight in weights.items() if weight >= least}
    return {name: weight / sum(kept.values()) for name, weight in kept.items()}
