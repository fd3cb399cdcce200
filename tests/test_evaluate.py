from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emogen.composing.wish import Wish
from emogen.data.batches import Batches
from emogen.ear.fitted import Ear
from emogen.emotion import EMOTIONS
from emogen.evaluation import sections
from emogen.evaluation.evaluate import LENGTHS_S, composed, evaluate, heard, likelihood, planned_wishes
from emogen.music.plan import ENTRIES
from emogen.music.tokens import FAMILIES
from emogen.settings import SampleSettings
from tests import tiny
from tests.music import random_piece
from tests.test_sections import clips

PLANS = tiny.plans()


def ignore(*told: Any) -> None:
    """Nobody who is told how far it is."""


# ---- what is composed


def test_every_emotion_is_asked_for_equally_often_with_plans_typical_of_it() -> None:
    wishes, wanted = planned_wishes(PLANS, 3, 12.0, seed=5)
    assert [next(iter(wish.emotion)) for wish in wishes] == [name for name in EMOTIONS for _ in range(3)]
    assert len({wish.seed for wish in wishes}) == len(wishes)
    for wish, row in zip(wishes, wanted, strict=True):
        assert row.tolist() in PLANS.typical()[next(iter(wish.emotion))].plans.tolist()
        raw = [wish.pins[name] for name in ENTRIES]
        assert (np.array(raw) - PLANS.mean) / PLANS.sd == pytest.approx(row)
    again, other = planned_wishes(PLANS, 3, 12.0, seed=5)[1], planned_wishes(PLANS, 3, 12.0, seed=6)[1]
    assert np.array_equal(wanted, again)
    assert not np.array_equal(wanted, other)


def test_pieces_come_in_the_order_of_the_wishes_however_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    wishes = [Wish({"sad": 1.0}, 5.0 + number, number, {}) for number in range(3)]
    monkeypatch.setattr("emogen.composing.parallel.AT_ONCE", 2)
    pieces = composed(tiny.voice(tmp_path), wishes, SampleSettings(), told.append)
    assert [piece.end_ms for piece in pieces] == [5000, 6000, 7000]
    assert 0 < told[0] < told[-1] <= 1
    assert told == sorted(told)


def test_a_composed_piece_counts_for_the_emotion_that_its_wish_has_most_of() -> None:
    some = heard([random_piece(1, 20)], [Wish({"tense": 0.4, "sad": 0.6}, 5, 0, {})])
    assert (some.emotion.tolist(), some.quadrant.tolist()) == ([EMOTIONS.index("sad")], [3])


# ---- likelihood


def test_likelihood_is_the_models_loss_on_the_test_clips_by_family_and_emotion() -> None:
    model, corpus = tiny.composer(), clips()
    found = likelihood(model, PLANS, corpus, ignore)
    batches = Batches(corpus, "test", 3, model.settings.context_notes, PLANS)
    notes = sum(len(corpus.notes(clip)) for clip in corpus.clips("test").tolist())
    assert found["notes"] == notes
    for key, known in (("with_emotion", 1), ("without_emotion", 0)):
        total = torch.zeros(4)
        for step in range(len(batches.epoch(0))):
            batch = batches.batch(0, step)
            with torch.inference_mode():
                total += model.loss(batch.notes, batch.emotion * known, batch.plan, batch.remaining_s)
        assert [found[key][name] for name in FAMILIES] == pytest.approx((total / notes).tolist(), rel=1e-4)
        assert found[key]["all"] == pytest.approx(total.sum().item() / notes, rel=1e-4)
    assert found["with_emotion"]["all"] != found["without_emotion"]["all"]
    counts = dict.fromkeys(EMOTIONS, 0)
    for clip in corpus.clips("test").tolist():
        if corpus.emotion[clip] >= 0:
            counts[EMOTIONS[corpus.emotion[clip]]] += len(corpus.notes(clip))
    assert found["by_emotion"].keys() == {name for name, count in counts.items() if count}
    unlabelled = len(corpus.notes(23))
    labelled_nats = sum(found["by_emotion"][name]["without"] * count for name, count in counts.items() if count)
    assert labelled_nats < found["without_emotion"]["all"] * notes
    assert labelled_nats > found["without_emotion"]["all"] * (notes - unlabelled) * 0.8


def test_likelihood_drops_nothing_out_however_the_network_comes() -> None:
    network = tiny.composer(tiny.SETTINGS.model_copy(update={"dropout": 0.5})).train()
    assert likelihood(network, PLANS, clips(), ignore) == likelihood(tiny.composer(), PLANS, clips(), ignore)


# ---- the whole page


@pytest.mark.slow
def test_the_page_holds_every_section_and_is_plain_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emogen.evaluation.apart.TURNS", 1)
    told: list[str] = []
    voice, corpus, judge = tiny.voice(tmp_path), clips(), Ear.load()
    report = evaluate(
        voice, corpus, judge, SampleSettings(),
        count=2, seconds=10.0, seed=1, tell=lambda what, share: told.append(what),
    )  # fmt: skip
    assert json.loads(json.dumps(report)) == report
    assert report["obedience"]["generated"]["quadrant"]["count"] == 12
    assert report["obedience"]["real"]["quadrant"]["count"] == 7
    assert report["obedience"]["judge"] == judge.scores._asdict()
    assert report["length"].keys() == {f"{length:g}" for length in LENGTHS_S}
    assert max(one["worst"] for one in report["length"].values()) < 0.01
    assert report["breakage"]["pieces"] == 12
    assert {"composing", "other lengths", "listening"} == set(told)
    wishes, wanted = planned_wishes(voice.plans, 2, 10.0, 1)
    pieces = heard(composed(voice, wishes, SampleSettings(), ignore), wishes)
    test, train, whole = (sections.labelled(corpus, *which) for which in (("test", 10), ("train", 10), ("test", None)))
    assert report["likelihood"] == likelihood(tiny.composer(), voice.plans, corpus, ignore)
    assert report["steering"] == sections.steering(pieces, wanted)
    assert report["music"] == sections.music(pieces, test, train)
    assert report["memory"] == sections.memory(corpus, pieces, whole)
    assert report["coherence"] == sections.coherence(judge, pieces, test)
    assert report["variety"] == sections.variety(pieces, train)
    rows = report["yardstick"]["systems"][voice.label]["rows"]
    assert rows["quadrant"]["count"] == rows["second_quadrant"]["count"] == 12
    assert 0 < rows["pulse"]["mean"] < 4.6
