"""What made a file: the manifest that ``emogen generate`` writes into it, and how people are told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emogen.music.measures import Measures


def manifest(text: str) -> dict[str, Any] | None:
    """What ``emogen generate`` wrote into a file, from its text; None where it wrote nothing."""
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):  # other people's words
        return None
    return known if isinstance(known, dict) and "emogen" in known else None


def called(mixture: Mapping[str, float], blend: str = "{share:.0%} {name}", between: str = " + ") -> str:
    """The name of a mixture; ``blend`` is how a part of several is written, with its ``name`` and ``share``."""
    if len(mixture) == 1:
        return next(iter(mixture))
    return between.join(blend.format(name=name, share=share) for name, share in mixture.items())


def title(known: Mapping[str, Any] | None, name: str) -> str:
    """What stands above a picture: emotion, length and seed of a piece of ours, else the ``name`` of its file."""
    try:
        made = known or {}
        return f"{called(made['emotion'])}, {made['seconds']:g} s, seed {made['seed']}"
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):  # whoever wrote it
        return name


def facts(known: Mapping[str, Any] | None, measured: Measures) -> dict[str, str]:
    """What stands on the page of a piece, by what it is called."""
    made = known or {}
    told = {
        "Length": f"{measured.length_s:.1f} s",
        "Notes": f"{measured.notes}, {measured.notes_per_s:.1f} a second",
        "Key": measured.key,
    }
    with suppress(LookupError, TypeError, ValueError, AttributeError, StopIteration):  # whoever wrote it
        told = {"Emotion": called(made["emotion"]), **told}
    named = {"Seed": "seed", "Model": "checkpoint", "Version of emogen": "emogen"}
    return told | {words: str(made[name]) for words, name in named.items() if name in made}
