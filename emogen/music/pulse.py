"""The pulse of a piece, heard from its notes: beats whose tempo may drift, and how clear they are.

Notes struck together are one onset. An onset is salient when it is full, loud, long or low. Beats are the path of
largest score through time (Ellis, "Beat tracking by dynamic programming", Journal of New Music Research 36, 2007),
where a state also holds the period, as in the bar pointer of Krebs, Böck and Widmer ("An efficient state-space model
for joint tempo and meter tracking", ISMIR 2015): a beat from t - period to t is scored by the onsets at its start,
its half, its quarters and its thirds; the period may change a little at each beat; a log-Gaussian prior chooses
among the metrical levels (Parncutt 1994, "A perceptual model of pulse salience and metrical accent").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from emogen.music.notes import Floats, Ints, Piece

Singles = npt.NDArray[np.float32]

CHORD_MS = 35
"""Onsets within this time of the first belong to it."""
BASS_PITCH = 55
"""Notes below the G under middle C are the bass."""
FRAME_MS = 10
BLUR_MS = 22
"""SD of the window in which an onset counts for a beat."""
PERIODS_MS = (280, 1400)
STEP = 0.025
"""Neighbouring periods differ by this share, or by a frame where that is more."""
REACH = 3
"""A beat's period is at most this number of steps from the last beat's."""
BEND = 1.0
"""What a step of the period costs."""
TEMPO_MS, TEMPO_SPREAD, TEMPO_WEIGHT = 690.0, 0.35, 0.29
"""The preferred period, its SD in natural logarithms, and what the prior weighs in a beat."""
STRETCH_MS = 600_000
"""Tracked at a time, so that memory does not grow with the length."""
LONGEST_MS = 6 * 3_600_000
"""Music beyond this, without its rests, is given no beats: it would take minutes."""
REST_MS = 8_000
"""Silence between onsets beyond this holds no beats."""
MARGIN_MS = 2 * PERIODS_MS[1]
"""Beats are tracked from this long before the first onset, so that an upbeat has its beat."""

ON_BEAT, ON_HALF, ON_QUARTER, ON_THIRD = (-0.1, 1.0), (0.35, 0.085), (0.17, 0.14), (0.025, 0.055)
"""What an onset adds at each place in a beat, and what its salience adds to that."""
EMPTY = -0.64
"""What a beat costs."""
FULL, LOUD, LONG, FREE, LOW = 1.28, 0.05, 0.45, 0.32, 0.55
"""What makes an onset salient, as log-odds: the logarithm of the number of its notes, velocity above its neighbours',
the logarithms of its length over theirs and of the time to the next onset over the median, and a bass below theirs.
These weights and those above were found by random search on songs of POP909 and bent copies of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Onsets:
    """The E onsets of a piece: chords and single notes."""

    first: Ints
    """(E,): the first note of each."""
    time_ms: Floats
    """(E,): mean time of its notes."""
    salience: Floats
    """(E,): about 1 on average, more on strong beats."""
    bass_ms: Ints
    """(E,): the duration of its longest note below BASS_PITCH; 0 without one."""
    lowest: Ints
    """(E,): the lowest pitch sounding from this onset to the next; 0 for none."""

    @classmethod
    def of(cls, piece: Piece) -> Onsets:
        """The onsets of a piece; none of an empty one."""
        onset, count = piece.onset_ms, len(piece)
        if not count:
            return cls(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), *2 * (np.zeros(0, np.int64),))
        after = np.searchsorted(onset, onset + CHORD_MS, side="right").tolist()
        starts = []
        note = 0
        while note < count:  # where an onset begins depends on where the last one began
            starts.append(note)
            note = after[note]
        first = np.array(starts)
        size = np.diff(first, append=count)
        number = np.repeat(np.arange(len(first)), size)
        time_ms = np.bincount(number, onset) / size
        loud = np.maximum.reduceat(piece.velocity, first)
        long = np.maximum.reduceat(piece.duration_ms, first)
        low = np.minimum.reduceat(piece.pitch, first)
        bass_ms = np.maximum.reduceat(np.where(piece.pitch < BASS_PITCH, piece.duration_ms, 0), first)
        gap = np.minimum(np.diff(time_ms, append=time_ms[-1] + 500), 2000)
        score = (
            FULL * np.log(size)
            + LOUD * (loud - around(loud))
            + LONG * (np.log(long) - np.log(around(long)))
            + FREE * np.log(gap / np.median(gap))
            + LOW * (low < around(low) - 5)
        )
        salience = 2 / (1 + np.exp(-score))
        return cls(first, time_ms, salience, bass_ms, _lowest(piece, time_ms, number))


def around(values: Ints, reach: int = 8) -> Floats:
    """Mean (E,) of each value and its neighbours."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    at = np.arange(len(values))
    start, end = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
    return (total[end] - total[start]) / (end - start)


def _lowest(piece: Piece, time_ms: Floats, number: Ints) -> Ints:
    """The lowest pitch (E,) sounding from each onset to the next."""
    last = np.maximum(np.searchsorted(time_ms, piece.onset_ms + piece.duration_ms - CHORD_MS), number + 1)
    lowest = np.zeros(len(time_ms) + 1, dtype=np.int64)
    for pitch in np.unique(piece.pitch)[::-1].tolist():
        mine = piece.pitch == pitch
        change = np.bincount(number[mine], minlength=len(lowest)) - np.bincount(last[mine], minlength=len(lowest))
        lowest[change.cumsum() > 0] = pitch
    return lowest[:-1]


def _periods() -> Ints:
    """The periods in frames, rising."""
    periods = [PERIODS_MS[0] // FRAME_MS]
    while periods[-1] * FRAME_MS < PERIODS_MS[1]:
        periods.append(max(periods[-1] + 1, round(periods[-1] * (1 + STEP))))
    return np.array(periods)


PERIODS = _periods()


def track(onsets: Onsets, end_ms: int) -> Ints:
    """Beats (K,) in ms, rising, of a piece that ends at ``end_ms``; none of fewer than two onsets or beyond LONGEST_MS.

    The first beat is at or before the first onset, perhaps before 0. The last is after the last onset; while notes
    ring on, beats go on for up to REST_MS.
    """
    if len(onsets.time_ms) < 2:
        return np.zeros(0, dtype=np.int64)
    rest = np.maximum(np.diff(onsets.time_ms) - REST_MS, 0)  # a rest of any length costs as little as a short one
    start_ms = onsets.time_ms[0] - MARGIN_MS
    time_ms = onsets.time_ms - np.concatenate([[0.0], np.cumsum(rest)]) - start_ms
    if time_ms[-1] > LONGEST_MS:
        return np.zeros(0, dtype=np.int64)
    beats = _attract(_beats(time_ms, onsets.salience), time_ms)
    first = max(int(np.searchsorted(beats, time_ms[0] + BLUR_MS, side="right")) - 1, 0)
    after = int(np.searchsorted(beats, time_ms[-1] + BLUR_MS, side="right"))
    ringing = int(np.searchsorted(beats, time_ms[-1] + end_ms - onsets.time_ms[-1]))
    beats = beats[first : max(after + 1, ringing)]
    long = rest > 0
    rests_before = np.searchsorted(time_ms[:-1][long] + REST_MS / 2, beats)
    beats += np.concatenate([[0.0], np.cumsum(rest[long])])[rests_before]
    return np.unique(np.rint(beats + start_ms).astype(np.int64))


def _beats(time_ms: Floats, salience: Floats) -> Floats:
    """Beats in ms, from the margin before the first onset to REST_MS and a margin after the last.

    A long piece is tracked STRETCH_MS at a time, each stretch beginning at a beat well inside the one before.
    """
    start, end = 0, int(time_ms[-1] + REST_MS + MARGIN_MS) // FRAME_MS
    stretch, inside = STRETCH_MS // FRAME_MS, REST_MS // FRAME_MS
    found: list[Ints] = []
    while True:
        frames = min(stretch, end - start)
        here = slice(*np.searchsorted(time_ms, [(start - inside) * FRAME_MS, (start + frames) * FRAME_MS]).tolist())
        scores = _scores(time_ms[here] - start * FRAME_MS, salience[here], frames)
        beats = _path(scores, anchored=start > 0) + start
        if start + frames == end:
            return np.concatenate([*found, beats]).astype(np.float64) * FRAME_MS
        beats = beats[beats < start + frames - inside]
        found.append(beats[:-1])
        start = int(beats[-1])


def _scores(time_ms: Floats, salience: Floats, frames: int) -> Singles:
    """What a beat with each period that ends at each frame adds: (periods, frames)."""
    inside = (time_ms >= 0) & (time_ms < (frames - 1) * FRAME_MS)
    place, between = np.divmod(time_ms[inside] / FRAME_MS, 1)
    frame = np.concatenate([place, place + 1]).astype(np.int64)
    reach = 3 * BLUR_MS // FRAME_MS
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) * FRAME_MS / BLUR_MS) ** 2)
    plain, strong = (
        np.convolve(
            np.bincount(frame, np.concatenate([(1 - between) * weight, between * weight]), frames), window, "same"
        )
        for weight in (np.ones(len(place)), salience[inside])
    )
    beat, half, quarter, third = (
        (each * plain + by_salience * strong).astype(np.float32)
        for each, by_salience in (ON_BEAT, ON_HALF, ON_QUARTER, ON_THIRD)
    )
    prior = EMPTY - TEMPO_WEIGHT * (np.log(PERIODS * FRAME_MS / TEMPO_MS) / TEMPO_SPREAD) ** 2 / 2
    scores = beat + prior.astype(np.float32)[:, None]
    for row, period in zip(scores, PERIODS.tolist(), strict=True):
        for signal, part in ((half, 1 / 2), (quarter, 1 / 4), (quarter, 3 / 4), (third, 1 / 3), (third, 2 / 3)):
            back = round(period * part)
            row[back:] += signal[: frames - back]
    return scores


def _path(scores: Singles, anchored: bool) -> Ints:
    """Frames of the beats of largest total score (periods, frames); with ``anchored`` the first is frame 0."""
    count, frames = scores.shape
    block, pad = int(PERIODS[0]), int(PERIODS[-1])
    bend = np.float32(BEND)
    best = np.zeros((count, pad + frames + block), dtype=np.float32)
    """The best total of a path with a beat at each frame that goes on with each period."""
    if anchored:
        best[:, :pad] = -np.inf
    reached = np.full((count, frames + block), -np.inf, dtype=np.float32)
    """The best total of a path with a beat at each frame that has come with each period."""
    before = np.arange(count)[:, None] * best.shape[1] + pad - PERIODS[:, None] + np.arange(block)
    flat = best.reshape(-1)
    for start in range(0, frames, block):  # no beat is as short as a block, so a block depends on earlier ones only
        width = min(block, frames - start)
        total = flat.take(before[:, :width] + start)
        total += scores[:, start : start + width]
        reached[:, start : start + width] = total
        for steps in (1, 2):  # one, then two more: a period changes by REACH steps at most
            nearby = total - steps * bend
            bent = total.copy()
            np.maximum(bent[steps:], nearby[:-steps], out=bent[steps:])
            np.maximum(bent[:-steps], nearby[steps:], out=bent[:-steps])
            total = bent
        best[:, pad + start : pad + start + width] = total
        if anchored and not start:
            best[:, pad] = 0.0
    last = reached[:, frames - pad : frames]
    state, frame = divmod(int(last.argmax()), last.shape[1])
    frame += frames - pad
    beats = [frame]
    while (frame := frame - int(PERIODS[state])) >= anchored:
        beats.append(frame)
        low, high = max(state - REACH, 0), min(state + REACH + 1, count)
        state = low + int((reached[low:high, frame] - bend * np.abs(np.arange(low, high) - state)).argmax())
    return np.array([0] * anchored + beats[::-1])


def _attract(beats: Floats, time_ms: Floats) -> Floats:
    """Beats moved to the onsets near them."""
    near = np.searchsorted((time_ms[1:] + time_ms[:-1]) / 2, beats)
    off = time_ms[near] - beats
    moved: Floats = beats + np.where(np.abs(off) <= 2 * BLUR_MS, off, 0.0)
    return moved


BINS = 24
"""Parts of a beat among which the phases of notes are counted."""


def clarity(onset_ms: Ints, beats_ms: Ints) -> float:
    """How regularly notes (N,) fall within beats: 0 where all phases are alike, 1 where all are the same.

    One less the entropy of the phases, in BINS bins, over its largest value.
    """
    index = np.clip(np.searchsorted(beats_ms, onset_ms, side="right") - 1, 0, len(beats_ms) - 2)
    phase = (onset_ms - beats_ms[index]) / (beats_ms[index + 1] - beats_ms[index])
    share = np.bincount(np.rint(phase * BINS).astype(np.int64) % BINS, minlength=BINS) / len(phase)
    share = share[share > 0]
    return float(1 + (share * np.log2(share)).sum() / np.log2(BINS))
