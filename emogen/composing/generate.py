"""Generation: notes drawn one after the other while the time remaining counts down.

All pieces of a call are one batch; after n steps each has n notes. The countdown is a condition of the model, so it
aims its ending; a few rules of the keyboard and the clock keep every draw possible; the last sound rings to the exact
end. (Above 300 lines: whoever changes how notes are drawn finds all of it here.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emogen.composing.wish import Wish
from emogen.emotion import EMOTIONS
from emogen.model.numpy_network import NumpyComposer, NumpyReader
from emogen.music.notes import LOWEST_KEY, Ints, Piece
from emogen.music.plan import ENTRIES, HARMONY, PlanTable, measure
from emogen.music.tokens import COLUMN, DURATION_MS, NO_NOTE, SHIFT_MS, SIZES, chords, decode, encode, nearest
from emogen.settings import SampleSettings

if TYPE_CHECKING:
    from emogen.model.network import Composer, Reader

PAUSE_MS = 2000
"""Longest time between two onsets; in real clips one in 500 is longer. Without it a model now and then takes a long
note for the end of its song, and waits for seconds."""
LAST_SILENCE_MS = 3000
"""Longest time from the last release to the end of a piece: by that the last sound rings longer than it was drawn. Of
72 pieces (10 to 60 s) the median was 10 to 25 ms, the longest 2.3 s."""
LAST_STRIKE_MS = 250
"""A shift that lands within this time before the end of a piece ends it: what is struck there would hardly sound."""
BEGIN_MS = 500
"""Latest onset of a piece's first note."""
AS_LEARNT = SampleSettings(temperature=1, top_p=1, top_k=0, min_p=0)
"""How all but pitches are drawn, whatever is set: truncated, rhythm collapses into "now" and notes grow short."""
PLAN_S = 40.0
"""A plan holds for so long, then another one of the emotion is drawn; the harmony stays."""
NEAREST = 8
"""Plans to draw from where the mode is given: those whose own is nearest to it."""
CORRECT_NOTES, TRUST_NOTES, LACK_SDS, GAIN = 8, 32, 3.0, 3.0
"""Plans are corrected at every so many notes: by half of the gain after so many notes, and for lacks of so many SDs."""
PITCH_PULL, SHIFT_PULL = 0.15, 0.1
"""How much likelier, in nats, pitches become for each SD that a passage lacks of their class, and shifts for each SD of
density by each halving (of their time and 50 ms); times the guidance."""
DENSITY, SHORTNESS = ENTRIES.index("density"), -np.log2(SHIFT_MS + 50, dtype=np.float32)
OF_KEY = HARMONY.start + (np.arange(SIZES[COLUMN.pitch]) + LOWEST_KEY) % 12
"""The plan entry of each key's pitch class, (88,)."""
RING_MS = 250
"""Notes released within this time before the last release are the last sound, which rings to the exact end."""


class Drafts:
    """B pieces being drawn: their notes so far, their clocks, and what the rules need to know. Rows leave when done."""

    def __init__(self, wishes: Sequence[Wish], plans: PlanTable, opening: Piece | None = None) -> None:
        rows = len(wishes)
        self.opening = opening
        self.wishes, self.plans, self.typical = wishes, plans, plans.typical()
        self.row = np.arange(rows)
        """Which wish (B,) each draft is for."""
        self.end_ms = np.array([round(wish.seconds * 1000) for wish in wishes])
        self.rngs = [np.random.default_rng(wish.seed) for wish in wishes]
        self.emotion = np.stack([weights(wish) for wish in wishes])
        self.planned = np.zeros((rows, len(ENTRIES)), dtype=np.float32)
        """The plan (B, P) of the present passage; NaN is left open."""
        self.plan = self.planned.copy()
        """What the model is told of it (B, P), see ``correct_plans``."""
        self.lack = np.zeros((rows, len(ENTRIES)), dtype=np.float32)
        """What the passage so far lacks of its plan (B, P); nothing of what the plan leaves open."""
        self.plan_from, self.plan_until_ms = np.ones(rows, dtype=np.int64), np.zeros(rows)
        """The passage's first note (B,), and when it is over."""
        self.notes = np.zeros((rows, 512, 4), dtype=np.uint8)
        """(B, room, 4), of which the first ``length`` are drawn; row 0 is the silence before the piece."""
        self.remaining_s = np.zeros((rows, 512), dtype=np.float32)
        """(B, room): at the onset of each of ``notes``."""
        self.length = 0
        self.onset_ms = np.zeros(rows, dtype=np.int64)
        self.release_ms = np.zeros((rows, SIZES[COLUMN.pitch]), dtype=np.int64)
        """When each key (B, 88) is released: striking it again ends the note before."""
        self.held = self.notes[:, :, COLUMN.duration].copy()
        """The durations (B, room) that ``notes`` come to have by that."""
        self.struck = np.zeros((rows, SIZES[COLUMN.pitch]), dtype=np.int64)
        """Which of ``notes`` each key (B, 88) played last."""
        self.pitch = np.full(rows, NO_NOTE[COLUMN.pitch])
        self.add(np.full((rows, 4), NO_NOTE), np.zeros(rows, dtype=np.int64))
        if opening is not None:
            self._begin_with(opening)
        self.drawn_from, self.drawn_from_ms = self.length, int(self.onset_ms.max(initial=0))
        """The first note that is drawn and not given, and the onset from which its shift counts."""

    def _begin_with(self, opening: Piece) -> None:
        """Every draft begins with the same notes. The clock follows their onsets, of which tokens know a grid only."""
        notes, number = encode(opening), chords(opening.onset_ms)
        chord_ms = opening.onset_ms[np.flatnonzero(np.diff(number, prepend=-1))]
        begins_chord = notes[:, COLUMN.shift] > 0
        begins_chord[:1] = True
        onset_ms = chord_ms[begins_chord.cumsum() - 1]
        for note, shift_ms in zip(notes, np.diff(onset_ms, prepend=0), strict=True):
            self.add(np.tile(note, (len(self), 1)), np.full(len(self), shift_ms))

    def __len__(self) -> int:
        return len(self.row)

    def ends(self, shift_ms: Ints) -> npt.NDArray[np.bool_]:
        """Whether each draft would end with shifts (N,) or (B, 1), as (B, N): they land too late for a sound."""
        return self.onset_ms[:, None] + shift_ms > self.end_ms[:, None] - LAST_STRIKE_MS

    def piece(self, row: int) -> Piece:
        """What a draft has become: its opening just as it was given, then the notes drawn, which ring to the end."""
        drawn = decode(self.notes[row, self.drawn_from : self.length], spread_seed=self.wishes[self.row[row]].seed)
        drawn = replace(drawn, onset_ms=drawn.onset_ms + self.drawn_from_ms)
        end_ms = int(self.end_ms[row])
        if self.opening is None:
            return ring(drawn, end_ms)
        if not len(drawn):
            return ring(self.opening, end_ms)
        parts = zip(self.opening.columns, ring(drawn, end_ms).columns, strict=True)
        return Piece.of(*map(np.concatenate, parts))

    def add(self, note: npt.NDArray[np.integer], shift_ms: Ints) -> None:
        """One more note (B, 4) for each draft."""
        if self.length == self.notes.shape[1]:
            self.notes = np.concatenate([self.notes, np.zeros_like(self.notes)], axis=1)
            self.remaining_s = np.concatenate([self.remaining_s, np.zeros_like(self.remaining_s)], axis=1)
            self.held = np.concatenate([self.held, np.zeros_like(self.held)], axis=1)
        self.onset_ms = self.onset_ms + shift_ms
        self.pitch = note[:, COLUMN.pitch]
        self.notes[:, self.length] = note
        self.remaining_s[:, self.length] = (self.end_ms - self.onset_ms) / 1000
        self.held[:, self.length] = note[:, COLUMN.duration]
        if self.length:
            key = np.arange(len(self)), self.pitch
            again = np.flatnonzero(self.release_ms[key] > self.onset_ms)
            before = self.struck[key][again]
            held_s = self.remaining_s[again, before] - self.remaining_s[again, self.length]
            self.held[again, before] = nearest(DURATION_MS, held_s * 1000)
            self.release_ms[key] = self.onset_ms + DURATION_MS[note[:, COLUMN.duration]]
            self.struck[key] = self.length
        self.length += 1

    def keep(self, rows: Ints) -> None:
        """Go on with some of the drafts (indices) only."""
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, value[rows])
        self.rngs = [self.rngs[row] for row in rows]

    def renew_plans(self) -> None:
        """Draw a plan for each draft whose last one has run out, from those of real clips typical of its emotion."""
        for row in np.flatnonzero(self.onset_ms >= self.plan_until_ms):
            rng, wish = self.rngs[row], self.wishes[self.row[row]]
            name = str(rng.choice(list(wish.emotion), p=list(wish.emotion.values())))
            of_emotion = self.typical.get(name, np.full((1, len(ENTRIES)), np.nan, dtype=np.float32))
            pins = np.array([wish.pins.get(entry, np.nan) for entry in ENTRIES])
            pinned = self.plans.standardise(pins)
            if "mode" in wish.pins:  # with a harmony that has it
                mode = ENTRIES.index("mode")
                of_emotion = of_emotion[np.abs(of_emotion[:, mode] - pinned[mode]).argsort()[:NEAREST]]
            plan = np.where(np.isnan(pins), of_emotion[rng.integers(len(of_emotion))], pinned)
            if wish.tonic is not None:
                plan = self.plans.moved_to(wish.tonic, plan)
            if self.plan_until_ms[row]:  # a piece stays in its key
                plan[HARMONY] = self.planned[row, HARMONY]
            self.planned[row] = self.plan[row] = plan
            self.lack[row] = 0
            self.plan_from[row] = self.length
            self.plan_until_ms[row] = self.onset_ms[row] + PLAN_S * 1000

    def correct_plans(self) -> None:
        """Ask for what the passages so far lack of their plans: so a model that only leans towards a plan keeps it.

        The more of a passage there is, the more of the difference is added to its plan.
        """
        played = self.length - self.plan_from
        if played.max() < 1 or self.length % CORRECT_NOTES:
            return
        window = self.plan_from[:, None] + np.arange(played.max())
        passage = np.arange(len(self))[:, None], np.minimum(window, self.length - 1)
        notes = self.notes[passage]
        notes[..., COLUMN.duration] = self.held[passage]
        measured = self.plans.standardise(measure(notes, np.maximum(played, 1)))
        gain = (GAIN * played / (played + TRUST_NOTES)).astype(np.float32)[:, None]
        self.lack = np.nan_to_num(gain * np.clip(self.planned - measured, -LACK_SDS, LACK_SDS))
        self.plan = self.planned + self.lack

    def pull(self, family: int) -> npt.NDArray[np.float32]:
        """What is added to a family's logits (B, size) for the passage to have the density and harmony that it lacks.

        The model is told of both as well (see ``correct_plans``); this works where it does not follow.
        """
        if family == COLUMN.shift:
            return SHIFT_PULL * self.lack[:, DENSITY, None] * SHORTNESS
        if family == COLUMN.pitch:
            return PITCH_PULL * self.lack[:, OF_KEY]
        return np.zeros((1, 1), dtype=np.float32)

    def possible(self, family: int, shift: Ints) -> npt.NDArray[np.bool_]:
        """Which ids (B, size) of a family each draft may draw, its shift (B,) known: what a hand and the clock allow.

        No long pause or silence; no chord above the highest key; in a chord, pitches above the note before; durations
        that end with the piece or before. A shift that ends the piece is a draw like any other.
        """
        possible = np.ones((len(self), SIZES[family]), dtype=bool)
        if family == COLUMN.shift:
            is_first = self.pitch == NO_NOTE[COLUMN.pitch]
            released_ms = np.maximum(self.release_ms.max(axis=1), self.onset_ms)
            may_end = ~is_first & (self.end_ms - released_ms <= LAST_SILENCE_MS)
            soon = np.where(is_first, BEGIN_MS, PAUSE_MS)[:, None] >= SHIFT_MS
            possible = np.where(self.ends(SHIFT_MS), may_end[:, None], soon)
            possible[:, 0] &= self.pitch != SIZES[COLUMN.pitch] - 1
        elif family == COLUMN.pitch:
            in_chord = (shift == 0) & (self.pitch < NO_NOTE[COLUMN.pitch])
            possible &= np.arange(SIZES[family]) > np.where(in_chord, self.pitch.astype(int), -1)[:, None]
        elif family == COLUMN.duration:
            left_ms = self.end_ms - self.onset_ms - SHIFT_MS[shift]
            possible = np.maximum(left_ms, DURATION_MS[0])[:, None] >= DURATION_MS
        return possible


def generate(
    network: Composer | NumpyComposer,
    plans: PlanTable,
    wishes: Sequence[Wish],
    sample: SampleSettings,
    opening: Piece | None = None,
    tell: Callable[[float], None] = lambda seconds: None,
) -> list[Piece]:  # six: the network and its plans, the wishes, how to draw, what to begin with, who is told
    """A piece for each wish, of exactly its length, all drawn as one batch.

    Args:
        opening: notes that every piece begins with; they must end before the shortest wish does.
        tell: called after each note with the seconds of music composed so far, over all pieces.
    """
    drafts = Drafts(wishes, plans, opening)
    guided = sample.guidance != 1
    reader = network.reader(len(drafts) * (2 if guided else 1))
    unread = drafts.length
    done: dict[int, Piece] = {}
    done_s = 0.0
    while len(drafts):
        if unread > reader.room:  # full: begin again from the later half of what it held
            reader.clear()
            unread = min(drafts.length, max(1, network.settings.context_notes // 2))
        drafts.renew_plans()
        drafts.correct_plans()
        read(reader, drafts, unread, guided)
        note, ended = draw_note(reader, drafts, sample)
        unread = 1
        if ended.any():
            for row in np.flatnonzero(ended).tolist():
                done[int(drafts.row[row])] = drafts.piece(row)
                done_s += wishes[drafts.row[row]].seconds
            kept = np.flatnonzero(~ended)
            drafts.keep(kept)
            reader.keep(np.concatenate([kept, kept + len(ended)]) if guided else kept)
            note = note[kept]
        drafts.add(note, SHIFT_MS[note[:, COLUMN.shift]])
        tell(done_s + float(drafts.onset_ms.sum()) / 1000)
    return [done[row] for row in range(len(wishes))]


def weights(wish: Wish) -> npt.NDArray[np.float32]:
    """A wish's emotion as the model takes it, (E,)."""
    return np.array([wish.emotion.get(name, 0) for name in EMOTIONS], dtype=np.float32)


def read(reader: Reader | NumpyReader, drafts: Drafts, unread: int, guided: bool) -> None:
    """Let a network read the last ``unread`` notes of the drafts, of each of them once, or with guidance twice.

    The second half of a guided batch is told neither emotion nor plan.
    """
    latest = slice(drafts.length - unread, drafts.length)
    emotion, plan = drafts.emotion, drafts.plan
    notes, remaining_s = drafts.notes[:, latest], drafts.remaining_s[:, latest]
    if guided:
        emotion = np.concatenate([emotion, np.zeros_like(emotion)])
        plan = np.concatenate([plan, np.full_like(plan, np.nan)])
        notes, remaining_s = np.tile(notes, (2, 1, 1)), np.tile(remaining_s, (2, 1))
    reader.read(notes, emotion, plan, remaining_s)


def draw_note(
    reader: Reader | NumpyReader, drafts: Drafts, sample: SampleSettings
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The next note (B, 4) of each draft, family by family, and whether (B,) it ends the piece instead."""
    chance = np.array([1 - rng.random(4) for rng in drafts.rngs])  # (B, 4), in (0, 1]
    rows, guided = len(drafts), sample.guidance != 1
    note = np.zeros((rows, 4), dtype=np.int64)
    ended = np.zeros(rows, dtype=bool)
    for family in range(4):
        logits = reader.logits(family)
        if guided:
            logits = logits[rows:] + sample.guidance * (logits[:rows] - logits[rows:])
        logits = logits + sample.guidance * drafts.pull(family)
        rule = sample if family == COLUMN.pitch else AS_LEARNT
        drawn = draw(logits, drafts.possible(family, note[:, COLUMN.shift]), chance[:, family], rule)
        note[:, family] = drawn
        if family == COLUMN.shift:
            ended = drafts.ends(SHIFT_MS[drawn][:, None])[:, 0]
        if family < 3:
            reader.see(family, np.concatenate([drawn, drawn]) if guided else drawn)
    return note, ended


def draw(
    logits: npt.NDArray[np.float32],
    possible: npt.NDArray[np.bool_],
    chance: npt.NDArray[np.float64],
    sample: SampleSettings = AS_LEARNT,
) -> Ints:
    """One possible id (B,) a row of logits (B, V): the first whose cumulative probability reaches ``chance`` (B,).

    ``chance`` lies in (0, 1]; in each row at least one id must be possible.
    """
    wide = np.where(possible, logits, np.float64(-1e9))
    with np.errstate(over="ignore"):
        wide = (wide - wide.max(-1, keepdims=True)) / sample.temperature  # the likeliest is 0 at any temperature
    if 0 < sample.top_k < wide.shape[1]:
        wide[wide < np.partition(wide, -sample.top_k)[:, [-sample.top_k]]] = -1e9
    p = np.exp(wide)
    if sample.min_p:  # Nguyen et al., "Turning up the heat: min-p sampling" (2024)
        p[p < sample.min_p] = 0  # the likeliest is 1
    if sample.top_p < 1:  # the nucleus of Holtzman et al., "The curious case of neural text degeneration" (2020)
        order = p.argsort(kind="stable")[:, ::-1]
        likeliest = np.take_along_axis(p, order, -1)
        beyond = likeliest.cumsum(-1) - likeliest >= sample.top_p * p.sum(-1, keepdims=True)
        np.put_along_axis(p, order, np.where(beyond, 0, likeliest), -1)
    reached = p.cumsum(-1)
    return (reached < chance[:, None] * reached[:, -1:]).sum(-1)


def ring(piece: Piece, end_ms: int) -> Piece:
    """The piece, of which nothing sounds beyond ``end_ms`` and the last sound to exactly there."""
    release_ms = np.minimum(piece.onset_ms + piece.duration_ms, end_ms)
    release_ms[release_ms >= release_ms.max() - RING_MS] = end_ms
    return Piece.of(piece.onset_ms, piece.pitch, piece.velocity, release_ms - piece.onset_ms)
