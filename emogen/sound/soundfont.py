"""A piano from a SoundFont: its samples, played at any pitch and loudness.

The format is SoundFont 2.04 (E-mu, 2006), and SF3, where each sample is an Ogg Vorbis file. Supported: zones of keys
and velocities, stereo pairs, loops, tuning, both envelopes, the low-pass filter with its envelope, pan, and modulators
by key and velocity. Not supported: vibrato, chorus, reverb, and controllers: they stay at rest. The default modulator
that makes soft tones dark is left out, as FluidSynth leaves it out: files of today count on that. (Above 300 lines, by
a few: a tone is followed from its sample to its filter.)

It is ours because no library does it without a system install. Measured, RMS of middle C at velocities 30, 64 and 110:
symusic 0.5.9 .0233 .0233 .0233 (and it cuts the last tone; 0.6.0 plays nothing), this module .0056 .0253 .0747.
tinysoundfont 0.3.7 renders well (.0033 .0071 .0122; 20 s in 0.25 s, here 0.43 s), but needs pyaudio, which on Linux and
macOS is built from C with PortAudio's headers, and has wheels for Python 3.11 and 3.12 alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby, islice
from math import log2, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from emogen.errors import UnusableFile
from emogen.music.notes import Piece
from emogen.sound.regions import (
    COMPRESSED,
    DEFAULTS,
    RING_DB,
    ROM,
    SILENT_DB,
    TABLES,
    Gen,
    Region,
    Sample,
    at_once,
    chunks_of,
    regions_of,
)
from emogen.system.files import opened

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 44_100
LONGEST_TONE_S = 60.0
"""Longer notes are cut: a piano's strings are silent by then, and memory stays bounded."""
MOST_REGIONS, MOST_AT_ONCE = 16_384, 16
"""Regions of a piano, and how many of them one key may sound at one velocity: the largest pianos that people share have
some three thousand, of which up to six sound at once. A few kilobytes could stand for millions."""
MOST_FRAMES = 1 << 24
"""The longest compressed sample, six minutes: a small file may claim to be of any length."""
AT_LEAST_FRAMES = 1 << 17
"""As much of a compressed sample is decoded at a time, 3 s, and kept for the tones that follow."""
HOP = 256
"""Samples between two updates of the filter: 6 ms."""
STEADY, STEADY_CENTS = 4096, 10
"""Frames of a filter that stays where it is, and the movement of its cutoff that cannot be heard."""
_DB = log2(10) / 20
"""A decibel as a power of two."""


class SoundFont:
    """The piano of a .sf2 or .sf3 file: bank 0, program 0; if it has none, the first preset."""

    def __init__(self, file: Path) -> None:
        """Read its tables; samples are read when they are played.

        Raises:
            UnusableFile: it cannot be read, is not a SoundFont, or is damaged.
        """
        try:
            with opened(file) as stream:
                if stream.read(4) != b"RIFF":
                    raise UnusableFile("not a SoundFont")
            data = np.memmap(file, np.uint8, "r")
        except OSError as error:
            raise UnusableFile(f"cannot be read ({error.strerror or error})") from None
        try:
            chunks = dict(chunks_of(data, 12, len(data)))
            tables = {name: np.frombuffer(chunks[name].tobytes(), fields) for name, fields in TABLES.items()}
            regions = list(islice(regions_of(tables), MOST_REGIONS + 1))
            self._data = chunks[b"smpl"]
        except (LookupError, ValueError, RecursionError):
            raise UnusableFile("a damaged SoundFont") from None
        if len(regions) > MOST_REGIONS or at_once(regions) > MOST_AT_ONCE:
            raise UnusableFile(
                f"a SoundFont of more than {MOST_REGIONS:,} regions, or of more than {MOST_AT_ONCE} that sound at once"
            )
        self._waves = self._data[: len(self._data) // 2 * 2].view("<i2")
        self._decode = lru_cache(4)(self._decoded)
        headers = tables[b"shdr"]
        samples = {number: self._sample(headers[number]) for number in {one.zone[Gen.SAMPLE] for one in regions}}
        self.regions = [
            region._replace(sample=sample) for region in regions if (sample := samples[region.zone[Gen.SAMPLE]])
        ]
        self.regions.sort(key=lambda region: region.sample.at)  # so that each is decoded once
        if not self.regions:
            raise UnusableFile("a SoundFont without samples for a piano")

    def _sample(self, header: Any) -> Sample | None:
        """The sample of a header of the table ``shdr``; None if it lies elsewhere or nowhere.

        Raises:
            UnusableFile: it is compressed, and no Ogg Vorbis file of one channel and at most MOST_FRAMES.
        """
        start, end, loop_start, loop_end, rate, root = (
            int(header[name]) for name in ("start", "end", "loop_start", "loop_end", "rate", "root")
        )
        compressed = bool(header["kind"] & COMPRESSED)
        if header["kind"] & ROM or not start < end <= len(self._data if compressed else self._waves) or not rate:
            return None
        frames, loop = end - start, (loop_start - start, loop_end - start)
        if compressed:
            frames, loop = _frames_of(self._data[start:end].tobytes()), (loop_start, loop_end)
        return Sample((start, end), frames, loop, rate, min(root, 127), int(header["correction"]), compressed)

    def _decoded(self, sample: Sample, frames: int) -> Floats:
        """The first frames (N,) of a compressed sample; what is damaged in it, or missing, is silent."""
        import soundfile  # loads libsndfile

        wave = np.zeros(frames, dtype=np.float32)
        start, end = sample.at
        try:
            with soundfile.SoundFile(io.BytesIO(self._data[start:end].tobytes())) as stream:
                read = stream.read(frames, dtype="float32")
        except (RuntimeError, TypeError):  # libsndfile's, and soundfile's where a stream cannot be sought
            return wave
        wave[: len(read)] = np.nan_to_num(read, nan=0, posinf=0, neginf=0).clip(-2, 2)
        return wave

    def _wave(self, sample: Sample, first: int, last: int) -> Floats:
        """The frames (N,) of a sample from ``first`` to before ``last``."""
        if not sample.compressed:
            start = sample.at[0]
            return self._waves[start + first : start + last].astype(np.float32) / np.float32(32_768)
        needed = min(sample.frames, -(-last // AT_LEAST_FRAMES) * AT_LEAST_FRAMES)
        return self._decode(sample, needed)[first:last]

    def play(self, piece: Piece) -> Floats:
        """The sound (N, channels) of a piece at SAMPLE_RATE; it ends when the last tone has died away.

        There are two channels, left and right, unless all tones have the same pan. Memory is that of the sound, of a
        tone and of four samples: tones are made once, and their notes are scaled and shortened copies of them.
        """
        ring_s = max(region.ring_s for region in self.regions)
        pans = {region.amount(Gen.PAN) for region in self.regions}
        length = round((piece.end_ms / 1000 + ring_s) * SAMPLE_RATE) + 1
        sound = np.zeros((length, 2 if len(pans) > 1 else 1), dtype=np.float32)
        onset = np.rint(piece.onset_ms * (SAMPLE_RATE / 1000)).astype(np.int64)
        held_s = np.minimum(piece.duration_ms / 1000, LONGEST_TONE_S)
        held = np.rint(held_s * SAMPLE_RATE).astype(np.int64)
        for region in self.regions:
            pan = np.clip(region.amount(Gen.PAN) / 1000 + 0.5, 0, 1) * np.pi / 2
            sides = [float(np.cos(pan)), float(np.sin(pan))] if len(pans) > 1 else [1.0]
            step = region.velocity_step
            for key, velocity, notes in _alike(piece, region, step):
                struck = region.struck(key, velocity)
                ring = round(struck.ring_s * SAMPLE_RATE)
                fading = np.exp2(np.linspace(0, -RING_DB * _DB, ring, dtype=np.float32))
                tone = self.tone(struck, key, int(held[notes].max()) + ring)
                for note in notes:
                    start, released = onset[note], held[note]
                    played = tone[: released + ring] * np.float32(region.loudness(key, int(piece.velocity[note])))
                    played[released:] *= fading[: len(played[released:])]
                    for side, share in enumerate(sides):
                        if share > 1e-6:
                            sound[start : start + len(played), side] += played * np.float32(share)
        return sound

    def tone(self, region: Region, key: int, length: int) -> Floats:
        """A tone (N,) for a held key, at full loudness; N is ``length``, or less if it dies away before.

        The region is one that is ``struck``.
        """
        sample = region.sample
        root = region.amount(Gen.ROOT) if region.amount(Gen.ROOT) >= 0 else sample.root
        cents = (key - root) * region.amount(Gen.CENTS_A_KEY) + sample.correction_cents
        cents += 100 * region.amount(Gen.SEMITONES) + region.amount(Gen.CENTS)
        step = 2 ** (np.clip(cents, -12_000, 12_000) / 1200) * sample.rate / SAMPLE_RATE
        start, end, loop_start, loop_end = (
            int(np.clip(at + region.amount(fine) + 32_768 * region.amount(coarse), 0, sample.frames))
            for at, fine, coarse in (
                (0, Gen.START, Gen.START_COARSE), (sample.frames, Gen.END, Gen.END_COARSE),
                (sample.loop[0], Gen.LOOP_START, Gen.LOOP_START_COARSE),
                (sample.loop[1], Gen.LOOP_END, Gen.LOOP_END_COARSE),
            )
        )  # fmt: skip
        looped = region.amount(Gen.LOOPS) & 1 and start <= loop_start < loop_end
        if not looped:
            length = max(0, min(length, int((end - start) / step)))
        level = _envelope(region, length)
        last = min(loop_end if looped else end, start + int(len(level) * step) + 1)
        wave = self._wave(sample, start, last + 2)
        tone = np.empty(len(level), dtype=np.float32)
        for first in range(0, len(level), SAMPLE_RATE):  # a second at a time
            at = np.arange(first, min(first + SAMPLE_RATE, len(level))) * step
            if looped and at[-1] >= loop_start - start:
                begin, span = loop_start - start, loop_end - loop_start
                at = np.where(at < begin, at, begin + (at - begin) % span)
            tone[first : first + SAMPLE_RATE] = _between(wave, at)
        tone *= level
        return _filtered(tone, region)


def _alike(piece: Piece, region: Region, step: int) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
    """The notes of a piece that a region plays, by key and by ``step`` velocities: key, velocity, numbers of notes."""
    velocities, keys = (
        (column >= one.start) & (column < one.stop)
        for column, one in ((piece.velocity, region.velocities), (piece.pitch, region.keys))
    )
    struck = np.flatnonzero(velocities & keys)
    kinds = np.stack([piece.pitch[struck], piece.velocity[struck] // step])
    ordered = np.lexsort(kinds[::-1])
    for _, group in groupby(ordered.tolist(), key=lambda note: tuple(kinds[:, note].tolist())):
        notes = struck[list(group)]
        yield int(piece.pitch[notes[0]]), int(np.median(piece.velocity[notes])), notes


def _frames_of(content: bytes) -> int:
    """The number of frames of a compressed sample.

    Raises:
        UnusableFile: it is no Ogg Vorbis file of one channel, or is longer than MOST_FRAMES.
    """
    import soundfile  # loads libsndfile

    try:
        if content[:4] != b"OggS":
            raise ValueError
        with soundfile.SoundFile(io.BytesIO(content)) as stream:
            frames, channels, kind = stream.frames, stream.channels, stream.subtype
    except (RuntimeError, TypeError, ValueError):  # libsndfile's, and soundfile's where a stream cannot be sought
        raise UnusableFile("a SoundFont with a damaged sample") from None
    if channels != 1 or kind != "VORBIS" or not 0 < frames <= MOST_FRAMES:
        raise UnusableFile(
            f"a SoundFont with a compressed sample that is not mono, or longer than {MOST_FRAMES:,} frames"
        )
    return int(frames)


def _envelope(region: Region, length: int) -> Floats:
    """Gain (N,) of a tone while its key is held: linear attack, hold, exponential decay to the sustain level."""
    delay_s, attack_s, hold_s = (region.seconds(one) for one in (Gen.DELAY, Gen.ATTACK, Gen.HOLD))
    sustain_db = float(np.clip(region.amount(Gen.SUSTAIN_CB) / 10, 0, SILENT_DB))
    db_a_second = SILENT_DB / region.seconds(Gen.DECAY)
    begin_s = delay_s + attack_s + hold_s
    if sustain_db >= SILENT_DB:
        length = min(length, round((begin_s + SILENT_DB / db_a_second) * SAMPLE_RATE))
    time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE
    level = np.exp2(-np.clip((time_s - begin_s) * db_a_second, 0, sustain_db) * _DB)
    level *= np.clip((time_s - delay_s) / attack_s, 0, 1)
    return level.astype(np.float32)


def _between(wave: Floats, at: npt.NDArray[np.float64]) -> Floats:
    """A wave at fractional positions (N,): cubic interpolation through four samples (Catmull and Rom)."""
    index = at.astype(np.int64)
    t = (at - index).astype(np.float32)
    a, b, c, d = (np.take(wave, index + offset, mode="clip") for offset in (-1, 0, 1, 2))
    middle: Floats = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return middle


def _filtered(tone: Floats, region: Region) -> Floats:
    """A tone (N,) through the region's low-pass filter, whose cutoff follows its envelope.

    The filter has two poles and zero phase, and is updated every HOP samples: overlapping frames, each times its
    response. A filter that stays where it is needs fewer and longer ones.
    """
    closed, opened = region.amount(Gen.FILTER_CENTS), region.amount(Gen.TO_FILTER_CENTS)
    if min(closed, closed + opened) >= DEFAULTS[Gen.FILTER_CENTS] or not len(tone):
        return tone
    resonance = 10 ** (min(max(region.amount(Gen.RESONANCE_CB), 0), 960) / 200)
    size, frames = 2 * HOP, -(-len(tone) // HOP) + 1
    at_s = np.maximum(np.arange(frames), 1 / 2) * (HOP / SAMPLE_RATE)  # of the first frame only half is tone
    cents = np.clip(closed + opened * _filter_envelope(region, at_s), 1_500, 13_500)
    if np.ptp(cents) < STEADY_CENTS:
        return _through(tone, _response(cents[:1], resonance, STEADY)[0])
    window = np.hanning(size + 1)[:-1].astype(np.float32)  # half overlapping, they add up to one
    padded = np.pad(tone, (HOP, frames * HOP - len(tone)))
    views = np.lib.stride_tricks.sliding_window_view(padded, size)[::HOP]
    out = np.zeros((frames + 3, HOP), dtype=np.float32)
    for first in range(0, frames, 256):
        some = views[first : first + 256]
        response = _response(cents[first : first + 256], resonance, 2 * size)
        back = np.fft.irfft(np.fft.rfft(some * window, 2 * size) * response)
        for part, at in enumerate((3, 0, 1, 2)):  # zero phase: ringing before a frame wraps around to its end
            out[first + part : first + part + len(some)] += back[:, at * HOP : (at + 1) * HOP]
    return out.ravel()[2 * HOP :][: len(tone)]


def _through(tone: Floats, response: Floats) -> Floats:
    """A tone (N,) through a filter of zero phase that stays as it is, with a response for frames of STEADY."""
    hop = STEADY - 2 * HOP
    frames = -(-len(tone) // hop)
    padded = np.pad(tone, (HOP, frames * hop + HOP - len(tone)))
    views = np.lib.stride_tricks.sliding_window_view(padded, STEADY)[::hop]
    out = np.empty((frames, hop), dtype=np.float32)
    for first in range(0, frames, 32):
        out[first : first + 32] = np.fft.irfft(np.fft.rfft(views[first : first + 32]) * response)[:, HOP:-HOP]
    return out.ravel()[: len(tone)]


def _response(cents: npt.NDArray[np.float64], resonance: float, size: int) -> Floats:
    """The response (F, size / 2 + 1) of a filter of two poles at F cutoffs, in absolute cents."""
    q, passed = resonance / sqrt(2), 1 / sqrt(resonance)  # what is raised at the cutoff is lowered by half below
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float32)
    ratio = hz / (8.176 * 2 ** (cents / 1200)).astype(np.float32)[:, None]
    return (passed / np.sqrt((1 - ratio**2) ** 2 + (ratio / q) ** 2)).astype(np.float32)


def _filter_envelope(region: Region, time_s: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The filter's envelope (N,), 0..1, at times (N,) since the key was struck."""
    delay_s, attack_s, hold_s = (region.seconds(one) for one in (Gen.FILTER_DELAY, Gen.FILTER_ATTACK, Gen.FILTER_HOLD))
    sustain = 1 - float(np.clip(region.amount(Gen.FILTER_SUSTAIN) / 1000, 0, 1))
    rising = np.clip((time_s - delay_s) / attack_s, 0, 1)
    falling = 1 - (time_s - delay_s - attack_s - hold_s) / region.seconds(Gen.FILTER_DECAY)
    return rising * np.clip(falling, sustain, 1)
