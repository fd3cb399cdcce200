"""A wish: what one piece shall be, in a musician's terms or in those of the model's plan."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from emogen.composing import feelings
from emogen.composing.feelings import Change, Passage, Step
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
LEAST_APART_S = 1.0
"""Least time between markers, and from them to the ends of a piece."""
LEAST_AFTER_PRIME_S = 1.0
"""Time that a prime must leave for the piece to continue."""


Feeling = str | Mapping[str, float] | Sequence[tuple[float, str | Mapping[str, float]]]
"""What ``Wish.of`` takes for an emotion."""


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
    passages: tuple[Passage, ...] = ()
    """Where feelings change, the passages; ``emotion`` is then their mean."""
    change: Change = "over"
    """How they follow each other."""
    markers_s: tuple[float, ...] = ()
    """When a strong beat falls, in s, rising."""
    window_s: tuple[float, float] | None = None
    """The part that is composed, from and until, between music that is there already; None for all of it."""
    like: Piece | None = None
    """Music that it resembles, and follows in time."""
    amount: float = 1.0
    """How freely: 1 is not bound to it, towards 0 hardly a note changes."""
    loop: bool = False
    """Whether its end leads into its beginning."""

    @property
    def path(self) -> tuple[Passage, ...]:
        """The passages, at least one."""
        return self.passages or (Passage(0.0, self.emotion),)

    @property
    def steps(self) -> list[Step]:
        """The times for which plans hold."""
        return feelings.steps(self.path, self.seconds, self.change)

    @property
    def asks_for_bars(self) -> bool:
        """Whether it asks for what only a voice that follows charts can do."""
        told = self.tempo_bpm, self.beats_per_bar, self.chords, self.form, self.chart, self.markers_s
        return any(one not in (None, (), "") for one in told) or self.returns != RETURNS

    @classmethod
    def of(
        cls,
        emotion: Feeling,
        seconds: float,
        *,
        cut: bool = False,
        markers: Sequence[float] = (),
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
        loop: bool = False,
    ) -> Wish:  # what people may ask for
        """A wish in a musician's terms; what is None follows the emotion.

        Args:
            emotion: an emotion, a word for a mood, a quadrant or a mixture as ``emotion.parse_mixture`` reads them, or
                weights by name; several passages as ``feelings.parse_path`` reads them, or as pairs of the second at
                which each begins and its emotion.
            seconds: 5 to 600.
            cut: whether passages change at once rather than over a few seconds.
            markers: seconds at which a strong beat falls, each with a sound.
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
            loop: whether its end leads into its beginning.

        Raises:
            UsageError: a value that is unknown or out of range.
        """
        check_range("seconds", seconds, 5, 600)
        if tempo is not None:
            check_range("tempo", tempo, *TEMPI)
        bar_s = None if tempo is None else METERS.get(meter or "4/4", 4) * 60 / tempo
        passages, change = _passages(emotion, seconds, cut, bar_s)
        mixture = passages[0].emotion if len(passages) == 1 else feelings.mean(passages, seconds, change)
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
        bars: dict[str, Any] = {"loop": bool(loop)}
        bars |= {"markers_s": _markers(markers, seconds)} if markers else {}
        if len(passages) > 1:
            bars |= {"passages": passages, "change": change}
            if form is not None:
                raise UsageError("passages are sections, and a form has its own", "leave one of them out")
        if chart is not None:
            if len(chart) < 2:
                raise UsageError("the chart has no beats", "take one of a piece with a clear beat")
            if any(one is not None for one in (tempo, meter, chords, form)) or markers:
                raise UsageError("a chart has its own tempo, meter, chords, form and beats", "leave the others out")
            bars["chart"] = chart
        if tempo is not None:
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


def _passages(
    emotion: Feeling,
    seconds: float,
    cut: bool,
    bar_s: float | None,
) -> tuple[tuple[Passage, ...], Change]:
    """The passages of what ``Wish.of`` takes for an emotion, at least one, and how they change."""
    if isinstance(emotion, str):
        if not feelings.is_path(emotion):
            return (Passage(0.0, parse_mixture(emotion)),), "over"
        found, even = feelings.parse_path(emotion, bar_s)
        if even and cut:
            raise UsageError("an even path is not cut", "give times, or leave cut out")
        return feelings.fitted(found, seconds, even), "even" if even else "cut" if cut else "over"
    if isinstance(emotion, Mapping):
        return (Passage(0.0, parse_mixture(_written(emotion))),), "over"
    try:
        pairs = [(float(at_s), what) for at_s, what in emotion]
    except (TypeError, ValueError):
        hint = 'emotions are written "sad", {"sad": 0.7, "calm": 0.3}, or [(0, "sad"), (30, "calm")]'
        raise UsageError(f"{emotion!r} is not an emotion", hint) from None
    if not pairs:
        raise UsageError("there are no passages", 'write [(0, "sad"), (30, "calm")]')
    listed = [Passage(at_s, parse_mixture(what if isinstance(what, str) else _written(what))) for at_s, what in pairs]
    return feelings.fitted(listed, seconds, even=False), "cut" if cut else "over"


def _written(weights: Mapping[str, float]) -> str:
    """Weights by name as a mixture is written."""
    return ",".join(f"{name}:{weight}" for name, weight in weights.items())


def _markers(markers: Sequence[float], seconds: float) -> tuple[float, ...]:
    """Markers in their order; each lies within the piece, and a second from the next."""
    found = sorted(float(one) for one in markers)
    for one, after in zip([0.0, *found], [*found, seconds], strict=True):
        if after - one < LEAST_APART_S:
            what = f"the marker at {one or after:g} s" if len(found) == 1 else f"the times {one:g} s and {after:g} s"
            raise UsageError(
                f"{what}: there must be {LEAST_APART_S:g} s or more between markers, and to both ends of the piece",
                "move a marker, or leave it out",
            )
    return tuple(found)


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
        raise UsageError(
            f"{name} lasts {end_s:.1f} s of the {seconds:g} s asked for",
            "ask for more seconds, or begin with a part of it: --prime-to",
        )
