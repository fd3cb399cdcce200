"""Our player of SoundFonts beside FluidSynth's, without ears: level, spectral centroid and decay of single notes.

    python -m benchmarks.soundfont /usr/share/sounds/sf3/MuseScore_General.sf3

Both play the same notes, three seconds each, without reverb and chorus. Level: RMS of the first second, in dB above
that of the same key at velocity 100, because each player has its own gain. Centroid: the mean frequency of the first
second's energy, in Hz. Decay: how long after its loudest moment a note has fallen by 20 dB, in s (windows of 50 ms).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

from emogen.music.midi import midi_bytes
from emogen.music.notes import Piece
from emogen.sound.soundfont import SAMPLE_RATE, SoundFont

KEYS, VELOCITIES, NORMAL = (36, 48, 60, 72, 84), (20, 40, 60, 80, 100, 120), 100


class Tone(NamedTuple):
    """What is measured of a note."""

    db: float
    centroid_hz: float
    decay_s: float


def measured(sound: npt.NDArray[np.float32]) -> Tone:
    """The measures of a note's sound (N, channels)."""
    mono = sound.mean(axis=1).astype(float)
    first = mono[:SAMPLE_RATE]
    energy = np.abs(np.fft.rfft(first * np.hanning(len(first)))) ** 2
    hz = np.fft.rfftfreq(len(first), 1 / SAMPLE_RATE)
    hop = SAMPLE_RATE // 20
    windows = mono[: len(mono) // hop * hop].reshape(-1, hop)
    level = 20 * np.log10(np.sqrt((windows**2).mean(axis=1)) + 1e-9)
    loudest = int(level.argmax())
    below = np.flatnonzero(level[loudest:] < level[loudest] - 20)
    decay_s = below[0] * hop / SAMPLE_RATE if len(below) else float("nan")
    db = 10 * np.log10((first**2).mean() + 1e-18)
    return Tone(float(db), float((hz * energy).sum() / energy.sum()), float(decay_s))


def fluidsynth(program: str, font: Path, piece: Piece) -> npt.NDArray[np.float32]:
    """The sound (N, 2) of a piece, by FluidSynth, without reverb and chorus."""
    with TemporaryDirectory() as folder:
        midi, wav = Path(folder, "piece.mid"), Path(folder, "piece.wav")
        midi.write_bytes(midi_bytes(piece))
        options = f"-ni -q -R 0 -C 0 -g 0.5 -r {SAMPLE_RATE} -O s16 -T wav -F".split()
        subprocess.run([program, *options, wav, font.resolve(), midi], capture_output=True, check=True, timeout=60)
        samples, _ = soundfile.read(wav, dtype="float32", always_2d=True)
    return samples


def main() -> None:
    """Print a row for each key and velocity, and how far apart the players are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("soundfont", type=Path)
    font = parser.parse_args().soundfont
    program = shutil.which("fluidsynth")
    if not program:
        raise SystemExit("FluidSynth is not installed")
    ours = SoundFont(font)
    tones = {}
    for key in KEYS:
        for velocity in VELOCITIES:
            note = Piece.of([0], [key], [velocity], [3_000])
            tones[key, velocity] = measured(ours.play(note)), measured(fluidsynth(program, font, note))
    print("key velocity   level dB   centroid Hz   decay s   (each: ours, FluidSynth)")
    apart = []
    for (key, velocity), both in tones.items():
        db = [one.db - normal.db for one, normal in zip(both, tones[key, NORMAL], strict=True)]
        (_, a_hz, a_s), (_, b_hz, b_s) = both
        apart.append([abs(db[0] - db[1]), abs(a_hz / b_hz - 1), abs(a_s - b_s)])
        print(f"{key:3} {velocity:8}   {db[0]:6.1f} {db[1]:6.1f}   {a_hz:6.0f} {b_hz:6.0f}   {a_s:6.2f} {b_s:6.2f}")
    db_apart, hz_apart, s_apart = np.nanmedian(apart, axis=0)
    most = np.nanmax(apart, axis=0)
    shares = f"{hz_apart:.0%} of the centroid ({most[1]:.0%}), {s_apart:.2f} s of decay ({most[2]:.2f})"
    print(f"apart, median (most): {db_apart:.1f} dB ({most[0]:.1f}), {shares}")


if __name__ == "__main__":
    main()
