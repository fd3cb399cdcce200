"""A small hall around the piano: one impulse response, made by code, and its convolution with a sound.

The response is the usual model of a room (J. A. Moorer, "About this reverberation business", Computer Music Journal 3,
1979): a few early reflections, then noise that dies away exponentially, the sooner the higher it is.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from emogen.sound.soundfont import SAMPLE_RATE

Floats = npt.NDArray[np.float32]

WET_DB = -14.0
"""Energy of the room's answer relative to the direct sound: light, so that fast passages stay clear."""
LENGTH_S = 1.2
"""After this time the answer has fallen by more than 60 dB at all frequencies."""
DECAY_S = ((125, 1.2), (500, 1.1), (2_000, 0.9), (8_000, 0.45))
"""Frequencies, in Hz, and the time in which sound falls by 60 dB there."""
EARLY_MS, LATE_MS = (9, 60), (20, 70)
"""When the early reflections come, and between which times the noise sets in."""
REFLECTIONS = 10
BLOCK = 1 << 16


@cache
def response() -> Floats:
    """The impulse response (N, 2), left and right, without the direct sound; the same on every computer."""
    rng = np.random.default_rng(1979)
    length = round(LENGTH_S * SAMPLE_RATE)
    time_s = np.arange(length) / SAMPLE_RATE
    hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    centres, decays = np.log2([band[0] for band in DECAY_S]), [band[1] for band in DECAY_S]
    octave = np.log2(np.maximum(hz, 1))
    spectrum = np.fft.rfft(rng.standard_normal((2, length)))
    late = np.zeros((2, length))
    for band, decay_s in enumerate(decays):  # bands overlap, and add up to everything
        share = np.interp(octave, centres, np.eye(len(DECAY_S))[band])
        late += np.fft.irfft(spectrum * share, length) * 10 ** (-3 * time_s / decay_s)
    begin_s, full_s = (ms / 1000 for ms in LATE_MS)
    late *= np.clip((time_s - begin_s) / (full_s - begin_s), 0, 1)
    early = np.zeros((2, length))
    for side in early:
        ms = np.sort(rng.uniform(*EARLY_MS, REFLECTIONS))
        side[np.rint(ms * SAMPLE_RATE / 1000).astype(int)] = rng.choice([-1, 1], REFLECTIONS) * EARLY_MS[0] / ms
    early = np.fft.irfft(np.fft.rfft(early) / np.sqrt(1 + (hz / 6_000) ** 2), length)  # walls take the highest away
    both = early / np.sqrt((early**2).sum(axis=1, keepdims=True)) + late / np.sqrt((late**2).sum(axis=1, keepdims=True))
    both *= 10 ** (WET_DB / 20) / np.sqrt((both**2).sum(axis=1, keepdims=True))
    return both.T.astype(np.float32)


def in_room(sound: Floats) -> Floats:
    """A sound (N, channels) with the room's answer, (N, 2): in place, where it has two channels already.

    What would be heard after its end is cut off. Memory: that of a block of BLOCK samples, at any length.
    """
    answer = response()
    size = 1 << (BLOCK + len(answer) - 2).bit_length()
    spectrum = np.fft.rfft(answer, size, axis=0)
    heard = sound if sound.shape[1] == 2 else np.repeat(sound, 2, axis=1)
    ringing = np.zeros((size, 2), dtype=np.float32)
    for first in range(0, len(heard), BLOCK):
        block = heard[first : first + BLOCK]
        ringing += np.fft.irfft(np.fft.rfft(block.mean(axis=1), size)[:, None] * spectrum, size, axis=0)
        block += ringing[: len(block)]
        ringing = np.concatenate([ringing[BLOCK:], np.zeros((BLOCK, 2), dtype=np.float32)])
    return heard
