"""A wish: what one piece shall be, in a musician's terms or in those of the model's plan."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emogen.emotion import parse_mixture
from emogen.errors import UsageError, check_range, whole_number

if TYPE_CHECKING:
    from emogen.music.notes import Piece

MODE_FIT = {"major": 0.2, "minor": -0.2}
"""The plan's entry for a mode, see ``measures.mode_fit``: about the mean of clips that clearly have it."""
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
    ) -> Wish:
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
        return cls(mixture, float(seconds), seed, pins, tonic=tonic)


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
