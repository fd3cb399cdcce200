"""Evaluation of a voice: it composes many pieces for planned wishes, and ``sections`` compares them with real music.

What needs the voice itself is here: how likely it finds the test songs, how well plans are kept, how exact lengths are.
The result is one tree of plain numbers, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from emogen.composing.voice import Voice
from emogen.composing.wish import Wish
from emogen.data.batches import Batches
from emogen.data.corpus import Corpus
from emogen.ear.fitted import Ear
from emogen.emotion import EMOTIONS
from emogen.evaluation.sections import Heard, Report, length_error, page, steering
from emogen.evaluation.systems import System
from emogen.evaluation.yardstick import compare
from emogen.model.network import Composer
from emogen.model.opening import open_in_torch
from emogen.music.notes import Floats, Piece
from emogen.music.plan import ENTRIES, PlanTable
from emogen.music.tokens import FAMILIES, is_note
from emogen.settings import SampleSettings
from emogen.system.devices import default_threads, threads

LENGTHS_S = (10.0, 30.0, 60.0, 180.0)
"""Lengths at which the error is measured, with a piece of each emotion."""
Tell = Callable[[str, float], None]
"""Called with what is being done, and the share of it that is done."""


def evaluate(
    voice: Voice,
    corpus: Corpus,
    ear: Ear,
    sample: SampleSettings,
    *,
    count: int,
    seconds: float,
    seed: int,
    tell: Tell,
) -> Report:  # eight: who composes, what to compare with, who judges, how to draw, how much of it
    """The whole report by section, for ``count`` pieces of each emotion, each of ``seconds``."""
    wishes, wanted = planned_wishes(voice.plans, count, seconds, seed)
    pieces = heard(composed(voice, wishes, sample, lambda share: tell("composing", share)), wishes)
    short = [Wish({name: 1.0}, length, seed, {}) for length in LENGTHS_S for name in EMOTIONS]
    lengths = [
        composed(voice, short[i : i + len(EMOTIONS)], sample, lambda share: tell("other lengths", share))
        for i in range(0, len(short), len(EMOTIONS))
    ]
    tell("listening", 0.0)
    with threads(sample.threads or default_threads(), in_torch=True):
        model = open_in_torch(voice.path, voice.meta, sample.device)
        nats = likelihood(model, voice.plans, corpus, tell)
    return {
        "likelihood": nats,
        "steering": steering(pieces, wanted),
        "length": {f"{length:g}": length_error(some, length) for length, some in zip(LENGTHS_S, lengths, strict=True)},
        **page(pieces, corpus, ear, seconds),
        "yardstick": compare([system(voice.label, pieces)], corpus, ear, seconds),
    }


def system(name: str, pieces: Heard) -> System:
    """Composed pieces as the yardstick takes them."""
    files = [f"{number}" for number in range(len(pieces.pieces))]
    return System(name, pieces, files, [f"composed {number}" for number in files])


def planned_wishes(plans: PlanTable, count: int, seconds: float, seed: int) -> tuple[list[Wish], Floats]:
    """N wishes, ``count`` for each emotion, with plans typical of it, and these plans (N, P), standardised."""
    wishes, wanted, typical = [], [], plans.typical()
    for e, name in enumerate(EMOTIONS):
        table = typical[name].plans if name in typical else np.zeros((1, len(ENTRIES)), dtype=np.float32)
        for number in range(count):
            row = table[np.random.default_rng([seed, e, number]).integers(len(table))]
            raw = row * np.array(plans.sd) + np.array(plans.mean)
            pins = dict(zip(ENTRIES, raw.tolist(), strict=True))
            wishes.append(Wish({name: 1.0}, seconds, seed + e * count + number, pins))
            wanted.append(row)
    return wishes, np.array(wanted)


def composed(
    voice: Voice, wishes: Sequence[Wish], sample: SampleSettings, tell: Callable[[float], None]
) -> list[Piece]:
    """A piece for each wish; ``tell`` is called with the share of the music that is composed."""
    total_s = sum(wish.seconds for wish in wishes)
    return list(voice.pieces(wishes, sample, tell=lambda seconds: tell(seconds / total_s)))


def heard(pieces: Sequence[Piece], wishes: Sequence[Wish]) -> Heard:
    """Composed pieces, each with the main emotion of its wish."""
    return Heard.of(pieces, [EMOTIONS.index(max(wish.emotion, key=wish.emotion.__getitem__)) for wish in wishes])


@torch.inference_mode()
def likelihood(model: Composer, plans: PlanTable, corpus: Corpus, tell: Tell) -> Report:
    """Nats per note on the test clips, by family and by emotion, with the emotion known and without; plans hidden.

    A network that follows charts receives those of the clips.
    """
    model.eval()
    batches = Batches(corpus, "test", 8, model.settings.context_notes, plans, charted=model.settings.chart)
    windows = batches.epoch(0)
    nats, notes = np.zeros((2, len(EMOTIONS) + 1, len(FAMILIES))), np.zeros(len(EMOTIONS) + 1)
    for step in range(len(windows)):
        tell("listening", step / len(windows))
        batch = batches.batch(0, step)
        label = corpus.emotion[windows[step][:, 0]]  # -1, the last row, for no label
        np.add.at(notes, label, is_note(batch.notes[:, 1:]).sum(1).numpy())
        for known in (0, 1):
            given = batch._replace(emotion=batch.emotion * known)
            each, _ = model.nats(*(tensor.to(model.device) for tensor in given))
            np.add.at(nats[known], label, each.double().sum(1).cpu().numpy())
    families = nats.sum(1) / notes.sum()
    there = [(index, name) for index, name in enumerate(EMOTIONS) if notes[index]]
    by_emotion = {name: (nats[:, index].sum(-1) / notes[index]).tolist() for index, name in there}
    return {
        "notes": int(notes.sum()),
        "with_emotion": {"all": float(families[1].sum()), **dict(zip(FAMILIES, families[1].tolist(), strict=True))},
        "without_emotion": {"all": float(families[0].sum()), **dict(zip(FAMILIES, families[0].tolist(), strict=True))},
        "by_emotion": {name: {"with": pair[1], "without": pair[0]} for name, pair in by_emotion.items()},
    }
