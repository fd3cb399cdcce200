"""Chords as musicians write them: "Am F C G7", bars apart by "|", and Roman numerals in a key."""

from __future__ import annotations

import re

from emogen.errors import UsageError
from emogen.music.harmony import QUALITIES
from emogen.music.measures import TONICS

Bars = tuple[tuple[int, ...], ...]
"""The chords of each bar: ``root * len(QUALITIES) + quality``, the root being a pitch class 0..11; -1 for no chord."""

MOST_BARS = 400
NAMES = tuple(QUALITIES)
LETTERS = dict(zip("CDEFGAB", (0, 2, 4, 5, 7, 9, 11), strict=True))
DEGREES = {"I": 0, "II": 1, "III": 2, "IV": 3, "V": 4, "VI": 5, "VII": 6}
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
OTHER_NAMES = {
    "maj": "", "M": "", "min": "m", "-": "m", "sus4": "sus", "°": "dim", "o": "dim", "dim7": "dim", "m7b5": "dim",
    "+": "aug", "dom7": "7", "M7": "maj7", "min7": "m7", "-7": "m7",
}  # fmt: skip
"""Other ways of writing the names of ``QUALITIES``; a diminished seventh is taken for its triad."""
HINT = 'chords are written "Am F C G", one per bar, or "Am F | C G7" with bars apart; in a key also "i VI III VII"'


def read_chords(text: str, tonic: int | None = None, mode: str | None = None) -> Bars:
    """The bars of chords that a text names.

    A chord is a letter with # or b and a quality ("Bb", "F#m7", "Gsus4"), a Roman numeral in the key ("ii", "V7",
    "bVI"), or N for none. Without "|" each chord is a bar.

    Args:
        text: at most MOST_BARS bars of at most four chords.
        tonic: what numerals count from, 0 (C) to 11 (B).
        mode: "major" or "minor", the scale whose degrees numerals are; major if None.

    Raises:
        UsageError: it names no chord, or what is none; there are numerals and no key.
    """
    bars = [bar for bar in text.split("|") if bar.strip()] if "|" in text else text.replace(",", " ").split()
    read = tuple(tuple(_chord(word, tonic, mode) for word in bar.replace(",", " ").split()) for bar in bars)
    if not read:
        raise UsageError("there are no chords", HINT)
    if len(read) > MOST_BARS or max(map(len, read)) > 4:
        raise UsageError(f"chords take at most {MOST_BARS} bars of four chords", HINT)
    return read


def _chord(word: str, tonic: int | None, mode: str | None) -> int:
    if word in ("N", "NC", "N.C."):
        return -1
    if named := re.fullmatch(r"([A-G])([#b]?)(.*)", word):
        letter, accidental, quality = named.groups()
        root, minor = LETTERS[letter], False
    elif numeral := re.fullmatch(r"([#b]?)(IV|VI{0,2}|I{1,3}|iv|vi{0,2}|i{1,3})(.*)", word):
        accidental, degree, quality = numeral.groups()
        if tonic is None:
            raise UsageError(f"the chord '{word}' is of a key, and there is none", 'name it: --key "A minor"')
        root, minor = tonic + SCALES[mode or "major"][DEGREES[degree.upper()]], degree.islower()
    else:
        raise UsageError(f"'{word[:20]}' is not a chord", HINT)
    quality = OTHER_NAMES.get(quality, quality)
    if minor:  # ii7 is a minor seventh chord; vii° is diminished as it is
        quality = {"": "m", "7": "m7"}.get(quality, quality)
    if quality not in NAMES:
        known = ", ".join(filter(None, NAMES))
        raise UsageError(f"'{word[:20]}' is not a chord that emogen knows", f"besides major there are {known}")
    return (root + {"": 0, "#": 1, "b": -1}[accidental]) % 12 * len(NAMES) + NAMES.index(quality)


def symbol(chord: int) -> str:
    """The name of a chord of ``Bars``: "Am", "G7"; "N" for none."""
    return "N" if chord < 0 else TONICS[chord // len(NAMES)] + NAMES[chord % len(NAMES)]
