"""``python -m benchmarks.chart``: the chart beside annotations, a pulse beside none, and the time it takes.

Beats and chords are compared with those that POP909's authors annotated in the MIDI files (``beat_midi``,
``chord_midi``), downbeats with those they tracked in the recordings (``beat_audio``), because the ones of the MIDI
files jump by half a bar every 50 beats in many songs. Songs whose number leaves 7 when divided by 15 are for testing:
nothing in ``emogen/music`` was fitted to them. ``--tune`` measures every fourteenth of the others instead.
"""

from __future__ import annotations

import time
import warnings
import zipfile
from contextlib import closing
from pathlib import Path

import mir_eval
import numpy as np

from benchmarks import machine
from benchmarks.machine import Report
from emogen.music.chart import CLEAR, Chart
from emogen.music.harmony import NO_CHORD
from emogen.music.measures import TONICS
from emogen.music.midi import read_piece
from emogen.music.notes import Floats, Piece
from emogen.music.pulse import BINS, Onsets

SONGS = range(1, 910)
TEST = [song for song in SONGS if song % 15 == 7]
NAMES = ("maj", "min", "7", "maj7", "min7", "dim", "aug", "sus4")
"""Of ``harmony.QUALITIES``, as mir_eval writes them."""
WITHIN_S = 0.07
"""A beat so near to an annotated one is right."""
CHORD_SCORES = {
    "root": mir_eval.chord.root,
    "root_and_mode": mir_eval.chord.majmin,
    "sevenths": mir_eval.chord.sevenths,
}


def main() -> None:
    """Print a table of each."""
    parser = machine.parser(__doc__, threads=1)
    parser.add_argument("data", type=Path, help="folder with pop909.zip and pop909_annotations.zip")
    parser.add_argument("emopia", type=Path, help="EMOPIA's folder, with midis/ in it")
    parser.add_argument("--tune", action="store_true", help="measure songs that are not for testing")
    parser.add_argument("--clips", type=int, default=10, help="measure every so-manieth clip of EMOPIA (%(default)s)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="mir_eval")  # of songs without a chord at the end
    with closing(Report(args)) as report:
        songs = [song for song in SONGS if song not in TEST][::14] if args.tune else TEST
        rows = [row for song in songs if (row := annotated(args.data, song))]
        report.table(f"POP909, {len(rows)} songs", [summary(rows)])
        files = sorted(args.emopia.glob("midis/*.mid"))[:: args.clips]
        report.table(f"EMOPIA, {len(files)} clips", [pulses([read_piece(file) for file in files])])


def annotated(folder: Path, song: int) -> dict[str, float]:
    """The scores of one song."""
    name = f"{song:03}"
    with zipfile.ZipFile(folder / "pop909.zip") as file:
        piece = read_piece(file.read(f"POP909/{name}/{name}.mid"))
    with zipfile.ZipFile(folder / "pop909_annotations.zip") as file:
        table = {
            kind: [line.split() for line in file.read(f"POP909/{name}/{kind}.txt").decode().splitlines() if line]
            for kind in ("beat_midi", "beat_audio", "chord_midi")
        }
    began = time.process_time()
    chart = Chart.of(piece)
    took_s = time.process_time() - began
    heard_s, start_s, end_s = chart.beats_ms / 1000, piece.onset_ms[0] / 1000, piece.onset_ms[-1] / 1000
    beats_s = np.array([float(row[0]) for row in table["beat_midi"]])
    inside = (beats_s >= start_s - 0.1) & (beats_s <= end_s + 0.1)
    beats_s = beats_s[inside]
    near = heard_s[(heard_s >= beats_s[0] - 0.1) & (heard_s <= beats_s[-1] + 0.1)]
    f = [mir_eval.beat.f_measure(level, near, WITHIN_S) for level in levels(beats_s)]
    down_s = np.array([float(row[0]) for row in table["beat_audio"] if float(row[1]) == 1])
    return {
        "beat_f": f[0],
        "beat_f_any_level": max(f),
        "downbeats": downbeats(chart, beats_s, down_s),
        **chords(chart, piece, table["chord_midi"]),
        "clarity": chart.clarity,
        "ms": took_s * 1000,
        "minutes": piece.end_ms / 60_000,
    }


def levels(beats: Floats) -> list[Floats]:
    """Annotated beats, twice as dense, and half as dense in both phases."""
    return [beats, np.sort(np.concatenate([beats, (beats[1:] + beats[:-1]) / 2])), beats[::2], beats[1::2]]


def downbeats(chart: Chart, beats_s: Floats, down_s: Floats) -> float:
    """F of the downbeats, of a song whose beats are at the level at which bars were annotated; otherwise nan."""
    heard_s = chart.beats_ms[chart.place == 0] / 1000
    period_s = np.median(np.diff(chart.beats_ms)) / 1000
    down_s = down_s[(down_s >= beats_s[0] - 0.1) & (down_s <= beats_s[-1] + 0.1)]
    if len(down_s) < 4 or len(heard_s) < 4:
        return float("nan")
    off_s = np.abs(down_s[:, None] - beats_s).min(1)  # recordings and MIDI files are not always in step
    bar_s = np.median(np.diff(down_s))
    if np.mean(off_s < 0.1) < 0.8 or min(abs(bar_s / period_s - beats) for beats in (3, 4)) > 0.2:
        return float("nan")
    return float(mir_eval.beat.f_measure(down_s, heard_s[(heard_s > down_s[0] - 1) & (heard_s < down_s[-1] + 1)], 0.12))


def chords(chart: Chart, piece: Piece, rows: list[list[str]]) -> dict[str, float]:
    """Shares of the time for which chords are right."""
    edges_s = np.append(chart.beats_ms, max(piece.end_ms, int(chart.beats_ms[-1]) + 1)) / 1000
    heard = [
        "N" if root == NO_CHORD else f"{TONICS[root]}:{NAMES[quality]}"
        for root, quality in zip(chart.root.tolist(), chart.quality.tolist(), strict=True)
    ]
    span = (piece.onset_ms[0] / 1000, piece.end_ms / 1000)
    wanted_s = np.array([[float(row[0]), float(row[1])] for row in rows])
    true = mir_eval.util.adjust_intervals(wanted_s, [row[2] for row in rows], *span, "N", "N")
    ours = mir_eval.util.adjust_intervals(np.stack([edges_s[:-1], edges_s[1:]], 1), heard, *span, "N", "N")
    intervals, wanted, given = mir_eval.util.merge_labeled_intervals(*true, *ours)
    seconds = mir_eval.util.intervals_to_durations(intervals)
    return {
        name: float(mir_eval.chord.weighted_accuracy(score(wanted, given), seconds))
        for name, score in CHORD_SCORES.items()
    }


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means over songs; downbeats are right in a song where their F is above a half."""
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    known = column["downbeats"][~np.isnan(column["downbeats"])]
    mean = {name: float(values.mean()) for name, values in column.items() if name not in ("downbeats", "ms", "minutes")}
    return mean | {
        "downbeats_right": float((known > 0.5).mean()),
        "of_songs": len(known),
        "clear": float((column["clarity"] >= CLEAR).mean()),
        "ms_per_5_minutes": float(5 * column["ms"].sum() / column["minutes"].sum()),
    }


def pulses(pieces: list[Piece]) -> dict[str, float]:
    """How much less notes spread within beats than in the same clips with the times between them shuffled."""
    rng = np.random.default_rng(0)
    began = time.process_time()
    charts = [Chart.of(piece) for piece in pieces]
    took_s = time.process_time() - began
    mixed = [shuffled(piece, rng) for piece in pieces]
    other = [Chart.of(piece) for piece in mixed]
    clear, clear_mixed = (np.array([chart.is_clear for chart in some]) for some in (charts, other))
    return {
        "phase_bits": float(np.mean([bits(chart) for chart in charts])),
        "shuffled_bits": float(np.mean([bits(chart) for chart in other])),
        "clear": float(clear.mean()),
        "shuffled_clear": float(clear_mixed.mean()),
        "ms_per_clip": 1000 * took_s / len(pieces),
    }


def bits(chart: Chart) -> float:
    """Entropy of the phases of notes within beats, in BINS bins."""
    return (1 - chart.clarity) * float(np.log2(BINS))


def shuffled(piece: Piece, rng: np.random.Generator) -> Piece:
    """The same chords in the same order, the times between them in another."""
    onsets = Onsets.of(piece)
    start = piece.onset_ms[onsets.first]
    gaps = rng.permutation(np.diff(start))
    moved = start[0] + np.concatenate([[0], np.cumsum(gaps)])
    of_note = np.repeat(np.arange(len(start)), np.diff(onsets.first, append=len(piece)))
    return Piece.of(piece.onset_ms - start[of_note] + moved[of_note], piece.pitch, piece.velocity, piece.duration_ms)


if __name__ == "__main__":
    main()
