"""A wish: what one piece shall be, in a musician's terms or in those of the model's plan."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emogen.emotion import parse_mixture
from emogen.errors import UsageError, check_range, whole_number

if TYPE_CHECKING:
    from emogen.music.chart import Chart
    from emogen.music.lead_sheet import Bars
    from emogen.music.notes import Piece

MODE_FIT = {"major": 0.2, "minor": -0.2}
"""The plan's entry for a mode, see ``measures.mode_fit``: about the mean of clips that clearly have it."""
METERS = {"4/4": 4, "3/4": 3}
"""The meters, with the beats of their bars."""
TEMPI = 30, 240
"""Slowest and fastest tempo, in beats per minute."""
LETTERS = "ABCDEFGH"
"""The names of sections."""
MOST_LETTERS = len(LETTERS)
RETURNS = 0.5
"""How strongly themes return if nobody asks: about as in real clips."""
LEAST_AFTER_PRIME_S = 1.0
"""Time that a prime must leave for the piece to continue."""


@dataclass(frozen=True)
class Wish:
    """What one piece shall be. ``Wish.of`` makes one from a musician's terms."""

    emotion: Mapping[str, float]
    """Weights over the emotions, as ``emotion.parse_mixture`` gives them."""
    seconds: float
    """When its last note is released."""
    seed: int = 0
    pins: Mapping[str, float] = field(default_factory=dict)
    """Plan entries (see ``plan.ENTRIES``) that are given rather than drawn, in the entries' own units."""
    tonic: int | None = None
    """The key's first note, 0 (C) to 11 (B), where that is given."""
    tempo_bpm: float | None = None
    """Beats per minute; the piece comes as near to it as whole bars allow."""
    beats_per_bar: int | None = None
    """3 or 4."""
    chords: Bars = ()
    """The chords of each bar, which go round; empty where they are left open."""
    form: str = ""
    """The letters of the sections, as even as whole bars allow; empty where they are left open."""
    returns: float = RETURNS
    """How strongly a section that was heard before is heard again, 0 to 1."""
    chart: Chart | None = None
    """The beats, bars and chords that the piece follows, in place of tempo, meter, chords and form."""

    @property
    def asks_for_bars(self) -> bool:
        """Whether it asks for what only a voice that follows charts can do."""
        told = self.tempo_bpm, self.beats_per_bar, self.chords, self.form, self.chart
        return any(one not in (None, (), "") for one in told) or self.returns != RETURNS

    @classmethod
    def of(
        cls,
        emotion: str | Mapping[str, float],
        seconds: float,
        *,
        seed: int = 0,
        key: str | None = None,
        mode: str | None = None,
        density: float | None = None,
        loudness: float | None = None,
        register: float | None = None,
        tempo: float | None = None,
        meter: str | None = None,
        chords: str | None = None,
        form: str | None = None,
        returns: float | None = None,
        chart: Chart | None = None,
    ) -> Wish:  # what people may ask for
        """A wish in a musician's terms; what is None follows the emotion.

        Args:
            emotion: an emotion, a quadrant or a mixture as ``emotion.parse_mixture`` reads them, or weights by name.
            seconds: 5 to 600.
            seed: 0 to 2**32 - 1; the same seed makes the same piece.
            key: such as "A minor", Am, Eb, "F# major"; it includes the mode.
            mode: "major" or "minor".
            density: notes per second, 0.5 to 30.
            loudness: mean MIDI velocity, 1 to 127.
            register: mean MIDI pitch, 21 to 108.
            tempo: beats per minute, 30 to 240.
            meter: "4/4" or "3/4".
            chords: such as "Am F C G", see ``lead_sheet.read_chords``.
            form: letters of sections, such as AABA; A to H.
            returns: 0 to 1.
            chart: in place of tempo, meter, chords and form.

        Raises:
            UsageError: a value that is unknown or out of range.
        """
        if not isinstance(emotion, str | Mapping):
            raise UsageError(
                f"{emotion!r} is not an emotion", 'emotions are written "sad" or {"sad": 0.7, "calm": 0.3}'
            )
        if not isinstance(emotion, str):
            emotion = ",".join(f"{name}:{weight}" for name, weight in emotion.items())
        mixture = parse_mixture(emotion)
        check_range("seconds", seconds, 5, 600)
        seed = whole_number("seed", seed, 0, 2**32 - 1)
        tonic, mode = _key(key, mode)
        pins = {}
        if mode is not None:
            pins["mode"] = MODE_FIT[mode]
        if density is not None:
            check_range("density", density, 0.5, 30)
            pins["density"] = math.log(density)
        if loudness is not None:
            check_range("loudness", loudness, 1, 127)
            pins["velocity"] = float(loudness)
        if register is not None:
            check_range("register", register, 21, 108)
            pins["pitch"] = float(register)
        bars: dict[str, Any] = {}
        if chart is not None:
            if len(chart) < 2:
                raise UsageError("the chart has no beats", "take one of a piece with a clear beat")
            if any(one is not None for one in (tempo, meter, chords, form)):
                raise UsageError("a chart has its own tempo, meter, chords and form", "leave the others out")
            bars["chart"] = chart
        if tempo is not None:
            check_range("tempo", tempo, *TEMPI)
            bars["tempo_bpm"] = float(tempo)
        if meter is not None:
            if meter not in METERS:
                raise UsageError(f"meter '{meter}' is not a meter", f"meters are {' and '.join(METERS)}")
            bars["beats_per_bar"] = METERS[meter]
        if chords is not None:
            from emogen.music.lead_sheet import read_chords  # imports numpy

            bars["chords"] = read_chords(chords, tonic, mode)
        if form is not None:
            letters = form.replace(" ", "").replace("-", "").upper() if isinstance(form, str) else ""
            if not re.fullmatch(f"[{LETTERS}]{{1,64}}", letters):
                raise UsageError(f"form '{form}' is not a form", "forms are written with the letters A to H: AABA")
            bars["form"] = letters
        if returns is not None:
            check_range("returns", returns, 0, 1)
            bars["returns"] = float(returns)
        return cls(mixture, float(seconds), seed, pins, tonic=tonic, **bars)


def _key(key: str | None, mode: str | None) -> tuple[int | None, str | None]:
    """The tonic (0 is C) and the mode; None is left open."""
    if mode not in (None, *MODE_FIT):
        raise UsageError(f"mode '{mode}' is not a mode", "modes are major and minor")
    if key is None:
        return None, mode
    written = isinstance(key, str) and re.fullmatch(
        r"([A-G])([#b]?) *(major|maj|minor|min|m|)", key.strip(), re.IGNORECASE
    )
    if not written:
        raise UsageError(f"key '{key}' is not a key", 'keys are written "A minor", Am, Eb, "F# major"')
    letter, accidental, its_mode = written.groups()
    own = "minor" if its_mode.lower() in ("minor", "min", "m") else "major"
    if mode not in (None, own):
        raise UsageError(f"key '{key}' is {own}, but mode is {mode}", "leave one of them out")
    natural = dict(zip("CDEFGAB", (0, 2, 4, 5, 7, 9, 11), strict=True))[letter.upper()]
    return (natural + {"": 0, "#": 1, "b": -1}[accidental.lower()]) % 12, own


def check_prime(prime: Piece, seconds: float, name: str = "the prime") -> None:
    """Refuse an opening that is too long for a piece of that length.

    Raises:
        UsageError: less than LEAST_AFTER_PRIME_S is left after it; ``name`` is its name in the message.
    """
    end_s = prime.end_ms / 1000
    if end_s > seconds - LEAST_AFTER_PRIME_S:
        raise UsageError(f"{name} lasts {end_s:.1f} s of the {seconds:g} s asked for", "ask for more seconds")
