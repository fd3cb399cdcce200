"""Generation: notes drawn one after another while the time remaining counts down.

All pieces of a call are one batch. For each note the network reads the last one (``read``), and the four families of
the next are drawn in their order (``draw_note``): the network's logits, what the ``rules`` add, one id (``draw``).
Which plan the network follows is the affair of ``steering``; notes, clocks and endings are those of ``drafts``.

Shapes: B drafts, V values of a family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from emogen.composing.drafts import Drafts, Drawn
from emogen.composing.following import Following
from emogen.composing.originality import Originality
from emogen.composing.rules import NOTHING, RULES
from emogen.composing.wish import Wish
from emogen.errors import EmogenError
from emogen.model.numpy_growing import NumpyReader
from emogen.model.numpy_network import NumpyComposer
from emogen.model.opening import reader_of
from emogen.model.rotary import Floats32
from emogen.music import position, relative
from emogen.music.notes import Ints, Piece
from emogen.music.plan import PlanTable
from emogen.music.tokens import COLUMN, DURATION_MS, SHIFT_MS
from emogen.settings import SampleSettings

if TYPE_CHECKING:
    from emogen.model.growing import Reader
    from emogen.model.network import Composer

SHARPNESS = 1.0
"""Of the pulse, see ``growing.Reader.logits``: with it the phases of notes within beats are spread as in real clips
(benchmarks/recipe.md, "Durations")."""
AS_LEARNT = SampleSettings(temperature=1, top_p=1, top_k=0, min_p=0)
"""How shifts and velocities are sampled, whatever is set: truncated, velocities obey less (benchmarks/recipe.md)."""
EVEN = 0.7
"""The temperature of durations, which stay as long on average as at 1, see ``tilted``. A network that has drawn odd
durations goes on oddly: with this alone pieces are more coherent (benchmarks/recipe.md, "Durations")."""
LENGTH = np.log(DURATION_MS).astype(np.float64)
"""What durations (95,) are long, as their mean is taken: a logarithm."""
ROUNDS, LONGEST, LEAST_VARIANCE = 4, 2.0, 1e-3
"""Of Newton's method in ``tilted``: its steps, the longest of them, and the least variance that it divides by."""


@np.errstate(all="ignore")  # what comes of it is looked at below
def generate(
    network: Composer | NumpyComposer,
    plans: PlanTable,
    wishes: Sequence[Wish],
    sample: SampleSettings,
    opening: Piece | None = None,
    tell: Callable[[float], None] = lambda seconds: None,
    known: Originality | None = None,
) -> list[Drawn]:  # seven: a network, its plans and songs; the wishes, how to draw, what to begin with, and progress
    """A piece for each wish, of exactly its length, all drawn as one batch.

    Args:
        opening: notes that every piece begins with; they must end before the shortest wish does.
        tell: called after each note with the seconds of music composed so far, over all pieces.
        known: the songs of which no run is copied.
    """
    drafts = Drafts(wishes, plans, opening, sample.guidance, network.settings.chart, known)
    guided = sample.guidance != 1
    reader = reader_of(network, len(drafts) * (2 if guided else 1))
    unread = drafts.length
    done: dict[int, Drawn] = {}
    done_s = 0.0
    while len(drafts):
        if unread > reader.room:  # full: restart from the later half of its notes
            reader.clear()
            unread = min(drafts.length, max(1, network.settings.context_notes // 2))
        drafts.steer()
        read(reader, drafts, unread)
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


def read(reader: Reader | NumpyReader, drafts: Drafts, unread: int) -> None:
    """Let a network read the last ``unread`` notes of the drafts, once for each draft, or with guidance twice.

    The second half of a guided batch receives neither emotion, plan nor chords: see ``draw_note``.
    """
    latest = slice(drafts.length - unread, drafts.length)
    emotion, plan = drafts.steering.emotion, drafts.steering.plan
    notes, remaining_s = drafts.notes[:, latest], drafts.remaining_s[:, latest]
    forgotten = drafts.steering.heard_from - (drafts.length - unread - reader.length)
    since = np.maximum(forgotten, 0) if (forgotten > 0).any() else None
    if drafts.guidance != 1:
        emotion = np.concatenate([emotion, np.zeros_like(emotion)])
        plan = np.concatenate([plan, np.full_like(plan, np.nan)])
        notes, remaining_s = np.tile(notes, (2, 1, 1)), np.tile(remaining_s, (2, 1))
        since = None if since is None else np.tile(since, 2)
    if not drafts.following:
        return reader.read(notes, emotion, plan, remaining_s, since=since)
    place, followed = drafts.following.place[:, latest], drafts.following.followed[:, latest]
    if drafts.guidance != 1:
        place, followed = np.concatenate([place, without_chords(place)]), np.concatenate([followed, followed])
    return reader.read(notes, emotion, plan, remaining_s, place, followed, since)


def without_chords(features: Floats32) -> Floats32:
    """Features of moments (..., F) with the chords hidden."""
    hidden = features.copy()
    hidden[..., position.BEAT :] = 0
    return hidden


def draw_note(
    reader: Reader | NumpyReader, drafts: Drafts, sample: SampleSettings
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The next note (B, 4) of each draft, family by family, and whether (B,) it ends the piece instead.

    With guidance logits are those without conditions, plus their difference times the guidance: Ho and Salimans,
    "Classifier-free diffusion guidance" (2022), for language models Sanchez et al., "Stay on topic" (2023).
    """
    chance = np.array([1 - rng.random(4) for rng in drafts.rngs])  # (B, 4), in (0, 1]
    rows, guided = len(drafts), drafts.guidance != 1
    note = np.zeros((rows, 4), dtype=np.int64)
    following = drafts.following
    for family, rules in enumerate(RULES):
        told = tell(following, drafts, family, note[:, COLUMN.shift]) if following else None
        logits = reader.logits(family) if told is None else reader.logits(family, told, SHARPNESS)
        if guided:
            logits = logits[rows:] + drafts.guidance * (logits[:rows] - logits[rows:])
        if not np.isfinite(logits).all():  # nothing could be drawn from them, and no piece would end
            raise EmogenError(
                "the network's scores contain NaN or infinity", "try another checkpoint: emogen ckpt list"
            )
        for rule in rules:
            if (pull := rule(drafts, note)) is not NOTHING:
                logits = logits + pull
        if family == COLUMN.duration:
            logits = tilted(logits, EVEN, LENGTH)
        drawn = draw(logits, chance[:, family], sample if family == COLUMN.pitch else AS_LEARNT)
        note[:, family] = drawn
        if family + 1 == len(RULES):
            break
        landing = None
        if following and family == COLUMN.shift:
            following.land(drafts.onset_ms + SHIFT_MS[drawn])
            landing = following.landing
            landing = np.concatenate([landing, without_chords(landing)]) if guided else landing
        reader.see(family, np.concatenate([drawn, drawn]) if guided else drawn, landing)
    return note, drafts.ends(SHIFT_MS[note[:, [COLUMN.shift]]])[:, 0]


def tell(following: Following, drafts: Drafts, family: int, shift: Ints) -> npt.NDArray[np.uint8] | None:
    """What the head of a family receives of the charts (B, ...), or twice that with guidance; nothing for most."""
    if family == COLUMN.shift:
        told = following.bins(drafts.onset_ms)
        return np.concatenate([told, told]) if drafts.guidance != 1 else told
    if family == COLUMN.pitch:
        told = following.references(shift, drafts.pitch)
        if drafts.guidance == 1:
            return told
        hidden = told.copy()
        hidden[:, -1] = relative.NO_ROOT
        return np.concatenate([told, hidden])
    return None


def tilted(
    logits: npt.NDArray[np.float32], temperature: float, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """These logits (B, V) at a temperature, with the mean that some values (V,) have at 1.

    A low temperature alone moves the mean towards the mode: every note becomes shorter. Of all distributions with that
    mean the exponential tilt, logits plus a multiple of the values, is the nearest to the sharpened one (Csiszár,
    "I-divergence geometry of probability distributions and minimization problems", 1975).
    """
    wide, centred = logits.astype(np.float64), values - values.mean()
    wanted = chances(wide) @ centred
    tilt = np.zeros(len(wide))
    for _ in range(ROUNDS):
        p = chances(wide / temperature + tilt[:, None] * centred)
        mean = p @ centred
        variance = np.maximum(p @ centred**2 - mean**2, LEAST_VARIANCE)
        tilt += np.clip((wanted - mean) / variance, -LONGEST, LONGEST)
    return (wide / temperature + tilt[:, None] * centred).astype(np.float32)


def chances(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities (B, V) of logits (B, V)."""
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def draw(logits: npt.NDArray[np.float32], chance: npt.NDArray[np.float64], sample: SampleSettings = AS_LEARNT) -> Ints:
    """One id (B,) per row of logits (B, V): the first whose cumulative probability reaches ``chance`` (B,).

    Ids with minus infinity are never drawn; each row needs a finite one. ``chance`` lies in (0, 1].
    """
    wide = logits.astype(np.float64)
    with np.errstate(over="ignore"):
        wide = (wide - wide.max(-1, keepdims=True)) / sample.temperature  # the likeliest is 0 at any temperature
    if 0 < sample.top_k < wide.shape[1]:
        wide[wide < np.partition(wide, -sample.top_k)[:, [-sample.top_k]]] = -np.inf
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
