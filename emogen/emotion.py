"""The six emotions, the quadrants they come from, and the mixtures people write.

EMOPIA's listeners labelled quadrants of Russell's valence-arousal plane (Hung et al., "EMOPIA", ISMIR 2021):
Q1 (+valence, +arousal), Q2 (-, +), Q3 (-, -), Q4 (+, -). The halves of Q1 and Q2 are derived (see
``split.name_emotions``), not labelled.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from emogen.errors import UsageError

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


def suggest(word: str, known: Iterable[str]) -> str:
    """A did-you-mean sentence for a mistyped ``word``, or an empty string if nothing is similar."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def parse_mixture(text: str) -> dict[str, float]:
    """Weights over ``EMOTIONS`` from what a user writes; they are positive and sum to 1.

    ``"happy"``, an alias (``"joy"``), a quadrant (``"q2"``, an equal mixture of its emotions), or a mixture
    (``"happy:0.7,calm:0.3"``; weights are scaled to sum to 1).

    Raises:
        UsageError: an unknown name, a weight that is not a number from 1e-6 to 1e6, a part without a name.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = (piece.strip().lower() for piece in part.partition(":"))
        names = _names(name)
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = -1.0
        if not 1e-6 <= weight <= 1e6:  # so that sums and halves of weights stay numbers
            raise UsageError(f"'{number}' is not a weight for '{name}'", "write a mixture as happy:0.7,calm:0.3")
        for one in names:
            weights[one] = weights.get(one, 0.0) + weight / len(names)
    total = sum(weights.values())
    return {name: weights[name] / total for name in EMOTIONS if name in weights}


def _names(name: str) -> tuple[str, ...]:
    """The emotions that one word stands for."""
    if quadrant := re.fullmatch(r"q([1-4])", name):
        return QUADRANTS[int(quadrant[1])]
    canonical = ALIASES.get(name, name)
    if canonical not in EMOTIONS:
        near = suggest(name, (*EMOTIONS, *ALIASES))
        listing = f"the emotions are {', '.join(EMOTIONS)}; q1 to q4 and mixtures (happy:0.7,calm:0.3) work too"
        raise UsageError(f"unknown emotion '{name}'", f"{near} {listing}".strip())
    return (canonical,)
