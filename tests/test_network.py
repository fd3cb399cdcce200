from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from emogen.emotion import EMOTIONS
from emogen.model import rotary
from emogen.model.growing import Reader
from emogen.model.network import Block, Cache, Composer, rotate
from emogen.model.pointer import POINT, Pointer
from emogen.model.rotary import FAR_S
from emogen.music import position, recall, relative
from emogen.music.plan import ENTRIES
from emogen.music.tokens import COLUMN, FAMILIES, SILENCE, SIZES, end_row
from emogen.settings import ModelSettings
from tests import tiny

B, T = 3, 24
UNIFORM_NATS = sum(math.log(size) for size in SIZES)


@pytest.fixture(scope="module")
def model() -> Composer:
    return tiny.composer()


def random_notes(length: int = T, seed: int = 0) -> Tensor:
    """(B, length, 4)."""
    rng = torch.Generator().manual_seed(seed)
    columns = [torch.randint(0, size, (B, length), generator=rng) for size in (60, *SIZES[1:])]
    return torch.stack(columns, dim=-1).to(torch.uint8)


def random_conditions(length: int = T, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Emotion (B, E), plan (B, P) and time remaining (B, length)."""
    rng = torch.Generator().manual_seed(seed)
    emotion = torch.rand(B, len(EMOTIONS), generator=rng)
    plan = torch.randn(B, len(ENTRIES), generator=rng)
    return emotion, plan, torch.linspace(25, 1, length).expand(B, -1).clone()


def views(model: Composer, notes: Tensor, *conditions: Tensor) -> Tensor:
    """h (B, T, D), for which no gradient is kept."""
    with torch.no_grad():
        return model(notes, model.condition(*conditions))


def is_same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=2e-4)


def nats(model: Composer, notes: Tensor, *conditions: Tensor) -> Tensor:
    """Summed nats of each family (4,), for which no gradient is kept."""
    with torch.no_grad():
        return model.loss(notes, *conditions)


def blocks(model: Composer) -> Iterator[Block]:
    return (block for block in model.blocks if isinstance(block, Block))


def test_a_fresh_network_holds_all_notes_equally_likely() -> None:
    torch.manual_seed(0)
    model = Composer(ModelSettings(size="tiny"))
    by_family = nats(model, random_notes(T + 1), *random_conditions()) / (B * T)
    assert pytest.approx(17.474, abs=5e-4) == UNIFORM_NATS
    assert float(by_family.sum()) == pytest.approx(UNIFORM_NATS, abs=0.3)
    for family, size in enumerate(SIZES):
        assert float(by_family[family]) == pytest.approx(math.log(size), abs=0.1), FAMILIES[family]


@pytest.mark.parametrize("layers", [1, 4, 16])
def test_a_fresh_network_keeps_variances_and_what_its_branches_add_does_not_grow_with_depth(layers: int) -> None:
    torch.manual_seed(0)
    model = Composer(ModelSettings(size="tiny", d_model=64, n_layers=layers, n_heads=4))
    with torch.no_grad():
        for block in blocks(model):
            for layer, variance in (
                (block.qkv, 1),
                (block.up, 1),
                (block.out, 0.5 / layers),
                (block.down, 0.5 / layers),
            ):
                y = layer(torch.randn(1000, layer.in_features))
                assert float(y.var()) == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize(("size", "lowest", "highest"), [("tiny", 0.8, 1.3), ("small", 6, 8), ("base", 25, 28)])
def test_the_named_sizes_have_the_parameters_people_expect(size: str, lowest: float, highest: float) -> None:
    model = Composer(ModelSettings.model_validate({"size": size}))
    assert lowest * 1e6 < sum(weight.numel() for weight in model.parameters()) < highest * 1e6


@pytest.mark.parametrize(
    "parts", [[1] * T, [T], [7, 5, 12], [10, *[1] * 14], [1, 9, 1, 1, 12]], ids=lambda parts: f"{len(parts)} parts"
)
def test_the_cached_path_equals_the_full_pass(parts: list[int], model: Composer) -> None:
    notes, conditions = random_notes(), random_conditions()
    full = views(model, notes, *conditions)
    cache, seen = Cache(model, B), []
    with torch.no_grad():
        condition = model.condition(*conditions)
        for some, its in zip(torch.split(notes, parts, 1), torch.split(condition, parts, 1), strict=True):
            seen.append(model(some, its, cache))
    assert (cache.length, cache.room) == (T, model.settings.context_notes - T)
    assert is_same(torch.cat(seen, dim=1), full)


@pytest.mark.parametrize("rows", [[0, 2], [1, 2], [1], [0, 1, 2]], ids=str)
def test_dropped_rows_leave_the_others_of_a_cache_as_they_were(rows: list[int], model: Composer) -> None:
    notes, conditions = random_notes(), random_conditions()
    full = views(model, notes, *conditions)
    cache, kept = Cache(model, B), torch.tensor(rows)
    with torch.no_grad():
        condition = model.condition(*conditions)
        model(notes[:, :20], condition[:, :20], cache)
        cache.keep(kept)
        rest = model(notes[kept, 20:], condition[kept, 20:], cache)
    assert is_same(rest, full[kept, 20:])


def test_a_cleared_cache_is_a_new_one(model: Composer) -> None:
    notes, conditions = random_notes(), random_conditions()
    full = views(model, notes, *conditions)
    cache = Cache(model, B)
    with torch.no_grad():
        condition = model.condition(*conditions)
        model(random_notes(seed=1), condition, cache)
        cache.clear()
        assert not cache.time_s.any()  # times that only grow would lose their fractions
        again = model(notes, condition, cache)
    assert is_same(again, full)


def test_a_note_changes_what_follows_and_nothing_before_it(model: Composer) -> None:
    notes, conditions = random_notes(), random_conditions()
    before = views(model, notes, *conditions)
    for family, size in enumerate(SIZES):
        for at in (0, 11, T - 1):
            other = notes.clone()
            other[:, at, family] = (other[:, at, family].int() + 3) % size
            after = views(model, other, *conditions)
            assert torch.equal(before[:, :at], after[:, :at]), FAMILIES[family]
            changed = (before - after).abs().amax(dim=(0, 2))
            assert (changed[at:] > 1e-3).all(), (FAMILIES[family], at)


def test_a_time_remaining_changes_what_follows_and_nothing_before_it(model: Composer) -> None:
    notes, (emotion, plan, remaining_s) = random_notes(), random_conditions()
    before = views(model, notes, emotion, plan, remaining_s)
    remaining_s[:, 11] += 5
    after = views(model, notes, emotion, plan, remaining_s)
    assert torch.equal(before[:, :11], after[:, :11])
    assert ((before - after).abs().amax(dim=(0, 2))[11:] > 1e-3).all()


def test_pieces_of_a_batch_do_not_see_each_other(model: Composer) -> None:
    notes, conditions = random_notes(), random_conditions()
    others, other_conditions = random_notes(seed=1), random_conditions(seed=1)
    others[1] = notes[1]
    for other, its in zip(other_conditions, conditions, strict=True):
        other[1] = its[1]
    a, b = views(model, notes, *conditions), views(model, others, *other_conditions)
    assert torch.equal(a[1], b[1])
    assert not is_same(a[0], b[0])


@pytest.mark.parametrize("which", range(3), ids=["emotion", "plan", "time"])
def test_every_condition_counts_and_can_be_hidden(which: int, model: Composer) -> None:
    notes, conditions = random_notes(), list(random_conditions())
    told = views(model, notes, *conditions)
    conditions[which] = conditions[which] + 0.7
    other = views(model, notes, *conditions)
    conditions[which] = torch.zeros(B, len(EMOTIONS)) if which == 0 else torch.full_like(conditions[which], math.nan)
    hidden = views(model, notes, *conditions)
    assert hidden.isfinite().all()
    for a, b in ((told, other), (told, hidden), (other, hidden)):
        assert ((a - b).abs().amax(dim=-1) > 1e-3).all()  # at every note of every piece


def test_all_conditions_can_be_hidden_at_once(model: Composer) -> None:
    hidden = (torch.zeros(B, len(EMOTIONS)), torch.full((B, len(ENTRIES)), math.nan), torch.full((B, T), math.nan))
    assert views(model, random_notes(), *hidden).isfinite().all()


@pytest.mark.parametrize("entry", range(len(ENTRIES)), ids=ENTRIES)
def test_a_plan_entry_that_is_hidden_is_not_one_that_is_average(entry: int, model: Composer) -> None:
    notes, (emotion, plan, remaining_s) = random_notes(), random_conditions()
    plan[:, entry] = 0
    average = views(model, notes, emotion, plan, remaining_s)
    plan[:, entry] = math.nan
    assert not is_same(views(model, notes, emotion, plan, remaining_s), average)


def test_all_times_far_from_the_end_are_one(model: Composer) -> None:
    emotion, plan, _ = random_conditions()
    times_s = torch.tensor([FAR_S - 2, FAR_S, 2 * FAR_S, 600.0]).expand(B, -1)
    with torch.no_grad():
        condition = model.condition(emotion, plan, times_s)
    assert torch.equal(condition[:, 1], condition[:, 2])
    assert torch.equal(condition[:, 1], condition[:, 3])
    assert not is_same(condition[:, 0], condition[:, 1])


def test_a_time_that_is_hidden_is_not_the_end(model: Composer) -> None:
    notes, (emotion, plan, remaining_s) = random_notes(), random_conditions()
    ending = views(model, notes, emotion, plan, torch.zeros_like(remaining_s))
    assert not is_same(views(model, notes, emotion, plan, torch.full_like(remaining_s, math.nan)), ending)


def test_attention_sees_differences_of_number_time_and_pitch_only(model: Composer) -> None:
    rng = torch.Generator().manual_seed(0)
    width = model.settings.d_model // model.settings.n_heads
    q, k = torch.randn(2, 1, 1, 1, width, generator=rng).expand(-1, -1, -1, 8, -1)
    notes = random_notes(8)[:1]
    notes[:, 4:] = notes[:, :4]  # the second half is as the first, later and a third higher
    notes[:, :, COLUMN.pitch] = notes[:, :, COLUMN.pitch] % 80 + torch.tensor([0] * 4 + [4] * 4, dtype=torch.uint8)
    turn = model.rotation(notes, None)
    seen = (rotate(q, turn) @ rotate(k, turn).transpose(-1, -2))[0, 0]
    assert torch.allclose(seen[:4, :4], seen[4:, 4:], atol=1e-4)
    for family in (COLUMN.shift, COLUMN.pitch):
        other = notes.clone()
        other[:, 3, family] += 2
        assert not torch.allclose(rotate(q, model.rotation(other, None)), rotate(q, turn), atol=1e-2)


@pytest.mark.parametrize("head_width", [8, 16, 24, 392])  # a quarter of 392 / 2 is 49, and 49 times 1 / 49 is not 1
def test_heads_of_any_width_the_settings_allow_can_attend(head_width: int) -> None:
    model = Composer(ModelSettings(size="tiny", d_model=head_width, n_layers=1, n_heads=1, context_notes=4))
    assert model.rotation(random_notes(4), None).shape == (2, B, 1, 4, head_width)
    assert views(model, random_notes(4), *random_conditions(4)).isfinite().all()


def test_padding_costs_nothing(model: Composer) -> None:
    notes, (emotion, plan, remaining_s) = random_notes(T + 1), random_conditions()
    exact = nats(model, notes, emotion, plan, remaining_s)
    padded = torch.cat([notes, torch.from_numpy(SILENCE).expand(B, 6, 4)], dim=1)
    more = nats(model, padded, emotion, plan, torch.cat([remaining_s, torch.zeros(B, 6)], dim=1))
    assert torch.allclose(more, exact)


def test_the_end_of_a_piece_counts_for_its_shift_alone(model: Composer) -> None:
    notes, (emotion, plan, remaining_s) = random_notes(T + 1), random_conditions()
    without = nats(model, notes[:, :-1], emotion, plan, remaining_s[:, :-1])
    notes[:, -1:] = torch.from_numpy(end_row(3000))
    costs = nats(model, notes, emotion, plan, remaining_s) - without
    assert costs[COLUMN.shift] > 0.1
    assert torch.allclose(costs[1:], torch.zeros(3), atol=1e-3)


@pytest.mark.parametrize("family", range(4), ids=FAMILIES)
def test_the_chances_of_a_family_add_up_to_one_so_it_never_sees_what_it_predicts(family: int, model: Composer) -> None:
    notes, (emotion, plan, remaining_s) = random_notes(T + 1)[:1], (one[:1] for one in random_conditions())
    before = nats(model, notes[:, :-1], emotion, plan, remaining_s[:, :-1])
    chances = []
    for value in range(SIZES[family]):
        notes[0, -1, family] = value
        chances.append(math.exp(-float((nats(model, notes, emotion, plan, remaining_s) - before)[family])))
    assert sum(chances) == pytest.approx(1, abs=1e-3)


def test_a_family_sees_those_drawn_before_it_and_none_after(model: Composer) -> None:
    notes, conditions = random_notes(T + 1), random_conditions()
    before = nats(model, notes, *conditions)
    for family, size in enumerate(SIZES):
        other = notes.clone()
        other[:, -1, family] = (other[:, -1, family].int() + 1) % size
        changed = (nats(model, other, *conditions) - before).abs() > 1e-4
        assert changed.tolist() == [later >= family for later in range(4)], FAMILIES[family]


def test_bfloat16_is_close_to_float32(model: Composer) -> None:
    notes, conditions = random_notes(T + 1), random_conditions()
    exact = nats(model, notes, *conditions)
    with torch.autocast("cpu", torch.bfloat16):
        rough = nats(model, notes, *conditions)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, exact, rtol=0.02)
    assert not torch.equal(rough, exact)


def test_gradients_reach_every_parameter() -> None:
    model = tiny.composer()
    model.loss(random_notes(T + 1), *random_conditions()).sum().backward()  # type: ignore[no-untyped-call]
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not idle


def test_every_parameter_of_a_fresh_network_learns_within_three_steps() -> None:
    torch.manual_seed(0)
    model = Composer(tiny.SETTINGS)
    fresh = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for _ in range(3):
        model.zero_grad()
        model.loss(random_notes(T + 1), *random_conditions()).sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for weight in model.parameters():
                assert weight.grad is not None
                weight.sub_(1e-3 * weight.grad)
    assert not [name for name, weight in model.named_parameters() if torch.equal(weight, fresh[name])]


def test_dropout_is_for_training_only() -> None:
    model = tiny.composer(tiny.SETTINGS.model_copy(update={"dropout": 0.5}))
    notes, conditions = random_notes(), random_conditions()
    assert torch.equal(views(model, notes, *conditions), views(model, notes, *conditions))
    model.train()
    assert not is_same(views(model, notes, *conditions), views(model, notes, *conditions))


@pytest.mark.parametrize("where", ["embedding", "attention", "feed-forward"])
def test_in_training_the_embedding_and_each_branch_drop_out(where: str) -> None:
    model = tiny.composer(tiny.SETTINGS.model_copy(update={"dropout": 0.5})).train()
    if where != "embedding":
        model.settings = tiny.SETTINGS
    for block in blocks(model):  # all other places out of action
        if where == "embedding":
            block.dropout = 0.0
        else:
            torch.nn.init.zeros_((block.down if where == "attention" else block.out).weight)
    notes, conditions = random_notes(), random_conditions()
    assert not is_same(views(model, notes, *conditions), views(model, notes, *conditions))


# ---- networks that are told charts


CHARTED = tiny.SETTINGS.model_copy(update={"chart": True})


def told(length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random place, followed, landing, bins and references of B windows; a note lands where it is struck."""
    rng = np.random.default_rng(seed)
    moments = rng.normal(size=(B, length + 1, position.WIDTH)).astype(np.float32)
    followed = rng.integers(0, (*SIZES, recall.BUCKETS), (B, length, 5)).astype(np.uint8)
    bins = rng.integers(0, position.UNKNOWN + 1, (B, length, SIZES[0])).astype(np.uint8)
    references = rng.integers(0, relative.NOTHING, (B, length, 4)).astype(np.uint8)
    place, landing = moments[:, :-1].copy(), moments[:, 1:].copy()
    a, b, c, d, e = map(torch.from_numpy, (place, followed, landing, bins, references))
    return a, b, c, d, e


@pytest.mark.parametrize("first", [1, 9, T], ids=lambda first: f"{first} at once")
def test_while_composing_a_note_costs_what_it_costs_in_training(first: int) -> None:
    model = tiny.composer(CHARTED)
    notes, (emotion, plan, remaining_s) = random_notes(T + 1), random_conditions()
    place, followed, landing, bins, references = told(T)
    with torch.no_grad():
        nats, _ = model.nats(notes, emotion, plan, remaining_s, place, followed, landing, bins, references)
    reader, rows = Reader(model, B), torch.arange(B)
    for end in range(first, T + 1):
        some = slice(0 if end == first else end - 1, end)
        reader.read(
            notes[:, some].numpy(), emotion.numpy(), plan.numpy(), remaining_s[:, some].numpy(),
            place[:, some].numpy(), followed[:, some].numpy(),
        )  # fmt: skip
        says = bins[:, end - 1].numpy(), references[:, end - 1].numpy(), None, None
        for family, told_now in enumerate(says):
            drawn = notes[:, end, family].long()
            logits = torch.from_numpy(reader.logits(family, told_now))
            cost = -logits.log_softmax(-1)[rows, drawn]
            known = cost < 60  # what costs more has the least chance there is
            assert torch.allclose(cost[known], nats[:, end - 1, family][known], atol=2e-3), (end, FAMILIES[family])
            if family < 3:
                reader.see(family, drawn.numpy(), landing[:, end - 1].numpy())


def test_every_part_of_a_charted_network_learns() -> None:
    torch.manual_seed(0)
    model = Composer(CHARTED)
    notes, conditions = random_notes(T + 1), random_conditions()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("gains.", "logits.", "pulse.", "relative.", "trust.")):
                weight.normal_(std=0.1)
    model.loss(notes, *conditions, *told(T)).sum().backward()  # type: ignore[no-untyped-call]
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not idle


def test_a_pointer_gives_an_id_the_chances_of_all_places_where_it_was_drawn() -> None:
    pointer = Pointer(8)
    h, logits = torch.randn(1, 5, 8), torch.randn(1, 5, 3)
    ids = torch.tensor([[2, 0, 2, 1, 2]])
    with torch.no_grad():
        scores, sentinel = pointer.scores(h, pointer.key(h))
        share = torch.cat([scores[0, 4, :4], sentinel[0, 4]]).softmax(0)
        expected = share[0] + share[2] + share[4] * logits[0, 4].softmax(0)[2]
        assert pointer.nats(h, logits, ids)[0, 4].item() == pytest.approx(-expected.log().item(), abs=1e-5)
        mixed = pointer.mixed(h[:, 4], logits[:, 4], pointer.key(h)[:, :4], ids[:, :4])
        assert mixed[0, 2].item() == pytest.approx(expected.log().item(), abs=1e-5)
        assert mixed.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_in_a_charted_head_every_other_pair_is_not_turned() -> None:
    angles = rotary.angles(32, 100, halved=True)
    for table in angles:
        assert not table[..., 1::2].any()
        assert table[..., ::2].any()


def test_what_has_no_chance_has_a_finite_score_all_the_same() -> None:
    pointer = Pointer(8)
    logits = torch.tensor([[0.0, -1000.0]])
    with torch.no_grad():
        mixed = pointer.mixed(torch.randn(1, 8), logits, torch.zeros(1, 0, POINT), torch.zeros(1, 0, dtype=torch.uint8))
    assert mixed.isfinite().all()
    assert mixed[0, 1] < -60
