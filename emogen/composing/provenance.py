"""The provenance of a piece: the manifest in its MIDI file, and the words in which it is shown.

A file may contain anything that looks like a manifest, so its parts are not trusted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from emogen import __version__
from emogen.emotion import EMOTIONS
from emogen.system.files import shown

if TYPE_CHECKING:
    from emogen.composing.wish import Wish
    from emogen.music.measures import Measures
    from emogen.settings import SampleSettings


UNTRUSTED = (LookupError, TypeError, ValueError, AttributeError, StopIteration)
"""What reading a manifest of an unknown shape may raise."""


def made_by(wish: Wish, label: str, sample: SampleSettings, prime: str = "") -> dict[str, Any]:
    """What makes a piece: enough to make it again. ``label`` names the voice, ``prime`` the music it begins with."""
    from emogen.composing.wish import RETURNS
    from emogen.music.lead_sheet import symbol
    from emogen.music.measures import TONICS  # imports numpy, which words need not

    wanted = {"emotion": dict(wish.emotion), "seconds": wish.seconds, "seed": wish.seed, "plan": dict(wish.pins)}
    tonic = {} if wish.tonic is None else {"tonic": TONICS[wish.tonic]}
    bars = {
        "tempo": wish.tempo_bpm,
        "meter": wish.beats_per_bar and f"{wish.beats_per_bar}/4",
        "chords": " | ".join(" ".join(map(symbol, bar)) for bar in wish.chords),
        "form": wish.form,
        "returns": None if wish.returns == RETURNS else wish.returns,
        "chart": wish.chart and " ".join(wish.chart.lines(len(wish.chart))),
        "markers": list(wish.markers_s),
        "passages": [[one.at_s, dict(one.emotion)] for one in wish.passages],
        "change": wish.change if wish.passages else None,
        "loop": wish.loop or None,
    }
    asked = {name: value for name, value in bars.items() if value not in (None, "", [])}
    how = sample.model_dump(exclude={"device", "threads"})  # neither changes what is drawn
    return {
        "emogen": __version__,
        **wanted,
        **tonic,
        **asked,
        "checkpoint": label,
        **how,
        **({"prime": prime} if prime else {}),
    }


NEAR_ENOUGH = {"density": 1.15, "velocity": 6.0, "pitch": 4.0, "tempo": 1.03}
"""How far what was obtained may be from what was asked for before it is said: ratios, MIDI velocities, semitones."""


def unmet(made: Mapping[str, Any], measured: Measures, tempo_bpm: float | None) -> list[str]:
    """What was asked for and not obtained, in plain words: density, loudness, register, tempo and mode.

    Args:
        made: a manifest, as ``made_by`` gives it.
        tempo_bpm: of the bars that the piece was composed on; None without.
    """
    if {"varied", "extended"} & made.keys():  # their plan was measured, not asked for
        return []
    plan, told = made["plan"], []
    if "density" in plan and _apart(math.exp(plan["density"]), measured.notes_per_s) > NEAR_ENOUGH["density"]:
        told.append(f"{math.exp(plan['density']):.3g} notes per second asked for, {measured.notes_per_s:.1f} obtained")
    for entry, words, got in (("velocity", "loudness", measured.velocity), ("pitch", "register", measured.pitch)):
        if entry in plan and abs(plan[entry] - got) > NEAR_ENOUGH[entry]:
            told.append(f"{words} {plan[entry]:.3g} asked for, {got:.0f} obtained")
    if "mode" in plan and (plan["mode"] < 0) != measured.key.endswith("minor"):
        told.append(f"{'minor' if plan['mode'] < 0 else 'major'} asked for, {measured.key} heard")
    if tempo_bpm and "tempo" in made and _apart(made["tempo"], tempo_bpm) > NEAR_ENOUGH["tempo"]:
        told.append(f"tempo {made['tempo']:.3g} asked for, {tempo_bpm:.1f} taken so that whole bars fill the seconds")
    return told


def _apart(asked: float, got: float) -> float:
    """The ratio of two positive numbers, 1 or more; infinity where nothing was obtained."""
    return max(asked / got, got / asked) if got > 0 else math.inf


def manifest(text: str) -> dict[str, Any] | None:
    """The manifest in a file's text; None if emogen did not write it."""
    try:
        known = json.loads(text)
    except (ValueError, RecursionError):  # text of another kind
        return None
    return known if isinstance(known, dict) and "emogen" in known else None


def called(mixture: Mapping[str, float], blend: str = "{share:.0%} {name}", between: str = " + ") -> str:
    """The name of a mixture; ``blend`` is how a part of several is written, with its ``name`` and ``share``."""
    if len(mixture) == 1:
        return next(iter(mixture))
    return between.join(blend.format(name=name, share=share) for name, share in mixture.items())


def emotion_of(known: Mapping[str, Any] | None) -> dict[str, float]:
    """The weights of the emotions that a manifest names; empty where it names none that there are."""
    try:
        told = {name: float(weight) for name, weight in (known or {})["emotion"].items()}
    except UNTRUSTED:
        return {}
    return told if told and told.keys() <= set(EMOTIONS) and min(told.values()) > 0 else {}


def feeling(made: Mapping[str, Any]) -> str:
    """The emotion in a manifest, or those of its passages."""
    passages = made.get("passages") or [[0, made["emotion"]]]
    return " > ".join(str(called(emotion)) for _, emotion in passages)


def title(known: Mapping[str, Any] | None, measured: Measures, name: str) -> str:
    """The heading of a piece, "Happy - A major - 0:20"; ``name`` stands first where emogen did not make it."""
    wanted = emotion_of(known)
    first = name
    if wanted:
        with suppress(*UNTRUSTED):
            first = feeling(known or {})
    return shown(" - ".join(filter(None, (first[:1].upper() + first[1:], measured.key, clock(measured.length_s)))))


def below(known: Mapping[str, Any] | None) -> str:
    """What stands below the heading: the seed, where it is known."""
    seed = (known or {}).get("seed")
    return "" if seed is None else shown(f"seed {seed}")


def clock(seconds: float) -> str:
    """A length in minutes and seconds: 0:20."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def facts(known: Mapping[str, Any] | None, measured: Measures) -> dict[str, str]:
    """The facts on the page of a piece: each label with its text."""
    made = known or {}
    told = {
        "Length": f"{measured.length_s:.1f} s",
        "Notes": f"{measured.notes}, {measured.notes_per_s:.1f} per second",
        "Key": measured.key,
    }
    with suppress(*UNTRUSTED):
        told = {"Emotion": shown(feeling(made)), **told}
    named = {"Seed": "seed", "Model": "checkpoint", "Version of emogen": "emogen"}
    return told | {words: shown(str(made[name])) for words, name in named.items() if name in made}
