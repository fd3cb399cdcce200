"""A piece as sound and as a picture: files that a person can play and show."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.errors import EmogenError, UnusableFile, UsageError
from emogen.music.midi import midi_bytes
from emogen.music.notes import Piece
from emogen.sound import picture
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
REFERENCE = Piece.of([0] * 8, [36, 43, 48, 55, 60, 64, 67, 72], [112] * 8, [1500] * 8)
"""A loud chord of both hands, by which the level of an engine is set."""
LOUDEST = 2.0
"""The peak of the loudest pieces relative to that of REFERENCE: 2.02, 2.02 and 1.93 for happy, excited and angry ones,
0.62 for sad ones (ten of each, 30 s)."""

QUIET = 1e-4
"""Relative to the peak; a softer end counts as silence."""

SMALL = {"bitrate_mode": "AVERAGE", "compression_level": 0.85}
"""libsndfile's settings for 83 kbit/s with any music, so that the page of a dense minute takes 0.88 MB."""

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
    """Such as "TimGM6mb", "fluidsynth TimGM6mb" or "sine"."""
    warning: str = ""
    """What the user should know about its sound; usually empty."""


def audio(piece: Piece, soundfont: Path | None = None) -> Sound:
    """The sound of a piece; it lasts until the last tone has died away.

    A loud piece is louder than a soft one: the loudest of our pieces come to PEAK, and what is louder is rounded off.

    The first engine that can play is used: our player of the SoundFont; FluidSynth, if it is installed; plain sines.
    The SoundFont is the one bundled with pretty_midi, unless another is named. Memory: see LONGEST_S.

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
    engine = engine_for(soundfont)
    samples, least = engine.play(piece), piece.end_ms * SAMPLE_RATE // 1000
    by_second = np.array([np.abs(one).max() for one in _seconds(samples)])
    if peak := float(by_second.max()):
        last = int(np.flatnonzero(by_second > QUIET * peak)[-1]) * SAMPLE_RATE
        heard = np.abs(samples[last : last + SAMPLE_RATE]).max(axis=1) > QUIET * peak
        samples = samples[: max(last + int(np.flatnonzero(heard)[-1]) + 1, least)]
        for one in _seconds(samples):
            limit(one, engine.gain)
    return Sound(samples, SAMPLE_RATE, engine.name)


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
    """The first engine that plays a SoundFont (None: the bundled one); without one, sines and a warning.

    Raises:
        EmogenError: a SoundFont was named, and nothing plays it.
    """
    engine, reason = _player(soundfont or bundled_soundfont())
    if engine:
        return engine
    if soundfont:
        raise EmogenError(
            f"the SoundFont {soundfont} cannot be played: {reason}",
            "name another .sf2 or .sf3 file, or leave out --soundfont (paths.soundfont) for the bundled one",
        )
    return Engine(_sines, _gain(_sines), "sine", f"the piano is made of plain sines: {reason}")


def _player(font: Path | None) -> tuple[Engine | None, str]:
    """The engine for a SoundFont; or None, and why there is none."""
    if font is None:
        return None, "pretty_midi carries no SoundFont"
    try:
        ours = SoundFont(font).play
        if _is_music(ours):
            return Engine(ours, _gain(ours), font.stem), ""
        reason = "a note of it makes no sound"
    except UnusableFile as error:
        reason = str(error)
    program = shutil.which("fluidsynth")
    if program and font.is_file():

        def fluidsynth(piece: Piece) -> Floats:
            return _fluidsynth(program, font, piece)

        if _is_music(fluidsynth):
            return Engine(fluidsynth, _gain(fluidsynth), f"fluidsynth {font.stem}"), ""
    return None, reason


def _is_music(play: Play) -> bool:
    """Whether an engine plays PROBE: audibly, and the loud note louder than the soft one."""
    try:
        samples = play(PROBE)
    except (EmogenError, OSError):
        return False
    soft, loud = (np.abs(samples[at : at + SAMPLE_RATE // 2]).max(initial=0) for at in (0, SAMPLE_RATE // 2))
    return bool(0 < soft < loud < np.inf)


def _fluidsynth(program: str, font: Path, piece: Piece) -> Floats:
    """The sound (N, 2) of a piece, by FluidSynth."""
    with TemporaryDirectory() as folder:
        midi, sound = Path(folder, "piece.mid"), Path(folder, "piece.wav")
        midi.write_bytes(midi_bytes(piece))
        options = [
            "-ni",
            "-q",
            "-R",
            "0",
            "-C",
            "0",
            "-g",
            "0.5",
            "-r",
            str(SAMPLE_RATE),
            "-O",
            "s16",
            "-T",
            "wav",
            "-F",
            str(sound),
        ]
        command = [program, *options, str(font.resolve()), str(midi)]
        patience_s = 60 + piece.end_ms / 1000  # it plays many times faster, if the SoundFont is one
        try:
            done = subprocess.run(  # noqa: S603 (the user's own program, and no shell)
                command, capture_output=True, stdin=subprocess.DEVNULL, timeout=patience_s
            )
        except subprocess.TimeoutExpired:
            raise EmogenError(f"fluidsynth did not finish within {patience_s:.0f} s") from None
        if done.returncode or not sound.is_file():
            raise EmogenError(f"fluidsynth failed: {done.stderr.decode(errors='replace').strip()[-200:]}")
        try:
            with wave.open(str(sound)) as opened:
                samples = np.frombuffer(opened.readframes(opened.getnframes()), "<i2")
        except (wave.Error, EOFError) as error:
            raise EmogenError(f"fluidsynth wrote no sound: {error}") from None
    both = samples.reshape(-1, 2).astype(np.float32)
    both /= 32_768
    return both


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
