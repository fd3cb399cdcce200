"""A piece as sound and as a picture: files that a person can play and show."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.errors import EmogenError, UnusableFile, UsageError
from emogen.music.midi import midi_bytes
from emogen.music.notes import Piece
from emogen.sound import pianos, picture, room
from emogen.sound.soundfont import SAMPLE_RATE, SoundFont
from emogen.system import files

Floats = npt.NDArray[np.float32]
Play = Callable[[Piece], Floats]

SOUND_FORMATS = {".wav": ("WAV", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", "MPEG_LAYER_III")}
"""What soundfile calls the formats, by suffix."""

LONGEST_S = 1_200.0
"""The longest piece that can be rendered, twice what ``generate`` composes: 0.4 GB of samples."""

PEAK = 10 ** (-1 / 20)
"""1 dB below full scale, so that no player's resampling clips."""
KNEE = 0.7
"""From this level on peaks are rounded off, and none exceeds PEAK."""
REFERENCE = Piece.of([0] * 4, [43, 55, 64, 72], [112] * 4, [1500] * 4)
"""A loud chord of both hands, by which the level of an engine is set."""
LOUDEST = 2.0
"""The peak of the loudest pieces relative to that of REFERENCE: of 204 pieces of six emotions, 30 s each, the loudest
comes to 1.98 by MuseScore's piano and 2.09 by TimGM6mb, with the room (docs/results.md, "Sound")."""

QUIET = 1e-4
"""Relative to the peak; a softer end counts as silence."""
FADE_S = (0.01, 0.3)
"""Limits of the fade at the end of a sound: half of the time since its last note was struck."""

SMALL = {"bitrate_mode": "AVERAGE", "compression_level": 0.85}
"""libsndfile's settings for 83 kbit/s with any music, so that the page of a dense minute takes 0.88 MB."""

BETTER = (
    "for a better one install a SoundFont (Debian, Ubuntu: apt install musescore-general-soundfont-small) "
    f"or put a .sf2 or .sf3 file into {pianos.own_folder()}"
)
"""What to do where only the last resort plays."""

PROBE = Piece.of([0, 500], [69, 69], [40, 110], [200, 200])
"""A soft and a loud note: an engine that does not play the second louder is not trusted."""


class Sound(NamedTuple):
    """Samples, and the engine that made them."""

    samples: Floats
    """(N, channels), float32 in -1..1."""
    sample_rate: int = SAMPLE_RATE
    engine: str = ""
    """The engine's name."""


class Engine(NamedTuple):
    """A way to make sound."""

    play: Play
    gain: float
    """By which its samples are multiplied: the same for all pieces, because loudness is part of emotion."""
    name: str
    """Such as "TimGM6mb" or "sine"."""
    font: Path | None = None
    """The SoundFont that it plays."""
    warning: str = ""
    """What the user should know about its sound; usually empty."""
    advice: str = ""
    """How to get a better one; usually empty."""


def audio(piece: Piece, soundfont: Path | None = None, *, dry: bool = False, tail: bool = False) -> Sound:
    """The sound of a piece, exactly as long as the piece: it fades within its last moments.

    A loud piece is louder than a soft one: the loudest of our pieces come to PEAK, and what is louder is rounded off.

    The first engine that can play is used: our player of the SoundFont, or plain sines.
    The SoundFont is the best that is installed, see ``pianos``; the one bundled with pretty_midi is the last. Memory:
    see LONGEST_S.

    Args:
        piece: what to play.
        soundfont: the SoundFont to play instead.
        dry: leave out the room, see ``room``.
        tail: let the last tone die away, after the end of the piece.

    Raises:
        EmogenError: the piece has no notes or lasts longer than LONGEST_S, or a ``soundfont`` cannot be played.
    """
    if not len(piece):
        raise EmogenError("a piece without notes makes no sound")
    if piece.end_ms > LONGEST_S * 1000:
        raise EmogenError(
            f"a piece of {piece.end_ms / 1000:,.0f} s is too long for sound, which takes at most {LONGEST_S:,.0f} s",
            "cut the piece into parts",
        )
    engine, length = engine_for(soundfont), round(piece.end_ms * SAMPLE_RATE / 1000)
    samples = engine.play(piece)
    ringing = len(samples) + (0 if dry else len(room.response()))
    samples = _lasting(samples, max(length, ringing) if tail else length)
    if not dry:
        samples = room.in_room(samples)
    if tail:
        samples = samples[: max(length, _heard(samples))]
    else:
        _fade(samples, (piece.end_ms - int(piece.onset_ms.max())) / 2000)
    for one in _seconds(samples):
        limit(one, engine.gain)
    return Sound(samples, SAMPLE_RATE, engine.name)


def _heard(samples: Floats) -> int:
    """The number of samples until nothing is heard any more, see QUIET."""
    by_second = np.array([np.abs(one).max() for one in _seconds(samples)])
    least = QUIET * float(by_second.max())
    last = int(np.flatnonzero(by_second >= least)[-1]) * SAMPLE_RATE
    heard = np.abs(samples[last : last + SAMPLE_RATE]).max(axis=1) >= least
    return last + int(np.flatnonzero(heard)[-1]) + 1


def _lasting(samples: Floats, length: int) -> Floats:
    """The first samples (length, channels); silence follows where there are fewer."""
    if length <= len(samples):
        return samples[:length]
    return np.pad(samples, ((0, length - len(samples)), (0, 0)))


def _fade(samples: Floats, seconds: float) -> None:
    """Let the end of some samples fade to nothing, in place, within some seconds and the limits FADE_S."""
    length = min(round(float(np.clip(seconds, *FADE_S)) * SAMPLE_RATE), len(samples))
    samples[len(samples) - length :] *= np.cos(np.linspace(0, np.pi / 2, length, dtype=np.float32))[:, None] ** 2


def folded(sound: Sound, end_ms: int) -> Sound:
    """The sound of a loop: exactly as long as its piece, and what rings on after the end is heard at the beginning."""
    length = max(1, round(end_ms * sound.sample_rate / 1000))
    samples = np.zeros((length, *sound.samples.shape[1:]), dtype=np.float32)
    for first in range(0, len(sound.samples), length):
        part = sound.samples[first : first + length]
        samples[: len(part)] += part
    limit(samples)
    return sound._replace(samples=samples)


def _seconds(samples: Floats) -> Iterator[Floats]:
    """Samples second by second: working on all of them at once would need as much memory again."""
    for first in range(0, len(samples), SAMPLE_RATE):
        yield samples[first : first + SAMPLE_RATE]


def limit(samples: Floats, gain: float = 1.0) -> None:
    """Multiply samples by a gain, in place, and round off what is above KNEE, so that nothing exceeds PEAK."""
    samples *= gain
    loud = np.abs(samples) > KNEE
    over = (np.abs(samples[loud]) - KNEE) / (PEAK - KNEE)
    samples[loud] = np.sign(samples[loud]) * (KNEE + (PEAK - KNEE) * np.tanh(over))


def _gain(play: Play) -> float:
    """The gain of an engine; at most 100, whatever it plays of the reference."""
    return PEAK / max(LOUDEST * float(np.abs(play(REFERENCE)).max(initial=0)), PEAK / 100)


def bundled_soundfont() -> Path | None:
    """The SoundFont bundled with pretty_midi (TimGM6mb by Tim Brechbill, GPL-2); None if it is missing."""
    import pretty_midi

    return next(iter(sorted(Path(pretty_midi.__file__).parent.glob("*.sf2"))), None)


@cache
def engine_for(soundfont: Path | None) -> Engine:
    """The first engine that plays a SoundFont (None: the best that is installed); without one, sines and a warning.

    Raises:
        EmogenError: a SoundFont was named, and nothing plays it.
    """
    if soundfont:
        engine, reason = _player(soundfont)
        if engine:
            return engine
        raise EmogenError(
            f"the SoundFont {soundfont} cannot be played: {reason}",
            "name another .sf2 or .sf3 file, or leave out --soundfont (paths.soundfont) for the best installed one",
        )
    refused: list[str] = []
    for font in pianos.installed():
        engine, reason = _player(font)
        if engine:
            return engine._replace(warning="; ".join(refused))
        refused.append(f"{font} cannot be played: {reason}")
    engine, reason = _player(bundled_soundfont())
    if engine:
        return engine._replace(warning="; ".join(refused), advice=f"the piano is {engine.name}, a plain one; {BETTER}")
    warning = "; ".join([*refused, f"the piano is made of plain sines: {reason}"])
    return Engine(_sines, _gain(_sines), "sine", None, warning)


def _player(font: Path | None) -> tuple[Engine | None, str]:
    """The engine for a SoundFont; or None, and why there is none."""
    if font is None:
        return None, "pretty_midi carries no SoundFont"
    try:
        play = SoundFont(font).play
        if _is_music(play):
            return Engine(play, _gain(play), font.stem, font), ""
    except UnusableFile as error:
        return None, str(error)
    return None, "a note of it makes no sound"


def _is_music(play: Play) -> bool:
    """Whether an engine plays PROBE: audibly, and the loud note louder than the soft one."""
    try:
        samples = play(PROBE)
    except (EmogenError, OSError):
        return False
    soft, loud = (np.abs(samples[at : at + SAMPLE_RATE // 2]).max(initial=0) for at in (0, SAMPLE_RATE // 2))
    return bool(0 < soft < loud < np.inf)


def _sines(piece: Piece) -> Floats:
    """The sound (N, 1) of a piece, by pretty_midi's synthesis of sines."""
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(io.BytesIO(midi_bytes(piece)))
    samples: Floats = midi.synthesize(SAMPLE_RATE).astype(np.float32)[:, None]
    return samples


def write_sound(file: Path, sound: Sound) -> None:
    """Write a .wav, .ogg or .mp3 file, whole or not at all; an existing file is replaced.

    Raises:
        UsageError: another suffix.
        EmogenError: it cannot be written.
        OSError: its folder cannot be written to.
    """
    if file.suffix.lower() not in SOUND_FORMATS:
        raise UsageError(
            f"{file} is not a sound file that can be written", f"its name may end with {', '.join(SOUND_FORMATS)}"
        )
    with files.whole(file) as draft:
        try:
            _encode(draft, sound, file.suffix.lower())
        except RuntimeError as error:  # libsndfile's
            hint = f"is the disk full? It is {files.disk_of(file)}"
            raise EmogenError(f"{file} cannot be written: {error}", hint) from None


def small_mp3(sound: Sound) -> bytes:
    """The content of an MP3 file that is small enough for a page, see SMALL."""
    file = io.BytesIO()
    _encode(file, sound, ".mp3", **SMALL)
    return file.getvalue()


def _encode(file: Path | io.BytesIO, sound: Sound, suffix: str, **how: Any) -> None:
    """Write a sound in one of SOUND_FORMATS."""
    import soundfile  # loads libsndfile

    kind, coding = SOUND_FORMATS[suffix]
    channels = sound.samples.shape[1]
    with soundfile.SoundFile(file, "w", sound.sample_rate, channels, coding, format=kind, **how) as opened:
        # second by second: libsndfile crashes on minutes of OGG at once
        for one in _seconds(sound.samples):
            opened.write(one)


def write_picture(file: Path, piece: Piece, title: str, below: str = "", emotion: str = "") -> None:
    """Write a piano roll as a PNG file, whole or not at all; an existing file is replaced.

    Raises:
        EmogenError: the piece has no notes.
        OSError: the file cannot be written.
    """
    picture.write(file, picture.piano_roll(piece, title, below, emotion))
