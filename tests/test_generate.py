from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch

from emogen.composing import generate as generation
from emogen.composing.generate import (
    AS_LEARNT,
    BEGIN_MS,
    CORRECT_NOTES,
    GAIN,
    LACK_SDS,
    LAST_STRIKE_MS,
    NEAREST,
    PAUSE_MS,
    PITCH_PULL,
    PLAN_S,
    RING_MS,
    SHIFT_PULL,
    TRUST_NOTES,
    Drafts,
    draw,
    draw_note,
    generate,
    ring,
)
from emogen.composing.wish import Wish
from emogen.emotion import EMOTIONS
from emogen.model.network import Composer
from emogen.model.numpy_network import NumpyReader
from emogen.music.measures import TONICS, key_fit, silences_ms, unit
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Piece
from emogen.music.plan import ENTRIES, HARMONY, measure
from emogen.music.tokens import (
    COLUMN,
    DURATION_MS,
    FAMILIES,
    NO_NOTE,
    SHIFT_MS,
    SIZES,
    SPREAD_MS,
    Tokens,
    decode,
    encode,
)
from emogen.settings import SampleSettings
from tests import tiny
from tests.music import is_same, random_piece

PLANS = tiny.plans()
OWN = slice(0, HARMONY.start)
"""The entries that each passage has of its own."""
PLAIN: dict[str, float] = {"guidance": 1, "top_p": 0.9}
"""Half the work; guidance has its own tests."""
SAMPLE = SampleSettings.model_validate(PLAIN)
LENGTHS_S = (5, 5.001, 7.3, 12, 60, 180, 600)


@pytest.fixture(scope="module")
def model() -> Composer:
    return tiny.composer()


def wish(seconds: float = 8, seed: int = 0, emotion: str = "happy", /, **pins: float) -> Wish:
    return Wish({emotion: 1.0}, seconds, seed, pins)


def make(model: Composer, *wishes: Wish, opening: Piece | None = None, **sample: float) -> list[Piece]:
    notes = count()

    def tell(seconds: float) -> None:
        assert next(notes) < 2000, "it goes on and on"

    return generate(tiny.in_numpy(model), PLANS, wishes, SampleSettings.model_validate(PLAIN | sample), opening, tell)


def rules(**given: float) -> SampleSettings:
    """Nothing but the rules given."""
    return AS_LEARNT.model_copy(update=given)


def wanting(**slopes: float) -> Composer:
    """A network whose opinion of some families never changes: their logits rise or fall by a step from id to id."""
    model = tiny.composer()
    with torch.no_grad():
        for name, slope in slopes.items():
            family = FAMILIES.index(name)
            model.get_parameter(f"logits.{family}.weight").zero_()
            model.get_parameter(f"logits.{family}.bias").copy_(slope * torch.arange(SIZES[family]))
    return model


def check_lawful(piece: Piece, seconds: float) -> None:
    """What holds for every piece, whatever network made it."""
    assert piece.end_ms == round(seconds * 1000)
    assert silences_ms(piece).max() <= PAUSE_MS
    assert piece.onset_ms[0] <= BEGIN_MS
    assert piece.onset_ms.max() <= max(piece.end_ms - LAST_STRIKE_MS + SPREAD_MS, 0)
    assert piece.onset_ms.min() >= 0
    assert piece.duration_ms.min() >= 1
    assert piece.pitch.min() >= LOWEST_KEY
    assert piece.pitch.max() <= HIGHEST_KEY
    assert piece.velocity.min() >= 1
    assert piece.velocity.max() <= 127


@pytest.fixture(scope="module")
def pieces() -> Mapping[float, Piece]:
    """A piece of every length, made in one batch."""
    made = generate(tiny.in_numpy(wanting(shift=-0.01)), PLANS, [wish(seconds, 3) for seconds in LENGTHS_S], SAMPLE)
    return dict(zip(LENGTHS_S, made, strict=True))


@pytest.mark.parametrize("seconds", LENGTHS_S)
def test_a_piece_of_any_length_ends_to_the_millisecond(seconds: float, pieces: Mapping[float, Piece]) -> None:
    check_lawful(pieces[seconds], seconds)
    assert len(pieces[seconds]) > seconds / 2


def test_pieces_of_many_seeds_and_lengths_are_lawful(model: Composer) -> None:
    lengths_s = np.random.default_rng(0).uniform(5, 9, 40).round(3).tolist()
    for piece, seconds in zip(make(model, *map(wish, lengths_s, range(40))), lengths_s, strict=True):
        check_lawful(piece, seconds)


@pytest.mark.parametrize(
    "slopes",
    [
        {"shift": 50, "duration": -50},  # longest shift, shortest note
        {"shift": 50, "duration": 50},
        {"shift": 50, "pitch": -50, "duration": 0},  # one key again and again: striking it ends its last long note
        {"pitch": 50, "velocity": 50},  # always the highest key
        {"shift": -0.3, "velocity": -50, "duration": 50},  # thick and held
    ],
    ids=str,
)
def test_networks_with_one_wish_still_make_lawful_pieces(slopes: dict[str, float]) -> None:
    lengths_s = [5, 5.9, 6.723, 8]
    for piece, seconds in zip(make(wanting(**slopes), *map(wish, lengths_s, range(4))), lengths_s, strict=True):
        check_lawful(piece, seconds)


def test_a_network_that_never_moves_on_is_moved_on_when_it_runs_out_of_keys() -> None:
    (piece,) = make(wanting(shift=-50, pitch=-50, duration=-50), wish(0.27))
    assert piece.end_ms == 270
    assert len(piece) == 3 * 88


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_same_seed_makes_the_same_piece_and_another_another(guidance: float, model: Composer) -> None:
    first, again, other = (make(model, wish(8, seed), guidance=guidance)[0] for seed in (5, 5, 6))
    assert is_same(first, again)
    assert not np.array_equal(first.pitch, other.pitch)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_pieces_of_a_batch_are_those_made_alone(guidance: float, model: Composer) -> None:
    wishes = [wish(5, 1), wish(7, 2, "sad"), wish(6, 3, "calm", density=2.0), wish(7, 4)]
    together = make(model, *wishes, guidance=guidance)
    for one, piece in zip(wishes, together, strict=True):
        assert is_same(make(model, one, guidance=guidance)[0], piece), one


def test_emotions_pins_and_temperature_change_a_piece(model: Composer) -> None:
    plain = make(model, wish())[0]
    for other in (
        make(model, wish(8, 0, "sad"))[0],
        make(model, wish(density=0.1))[0],
        make(model, wish(), temperature=0.5)[0],
        make(model, wish(), top_p=0.3)[0],
        make(model, wish(), top_k=2)[0],
        make(model, wish(), guidance=2)[0],
    ):
        assert not is_same(plain, other)


def test_hardly_any_temperature_and_a_top_k_of_one_both_draw_the_likeliest(model: Composer) -> None:
    cold = make(model, wish(8, 2), temperature=1e-40, top_p=1)[0]
    assert is_same(cold, make(model, wish(8, 2), top_k=1)[0])
    assert len(np.unique(cold.pitch)) > 1


def test_guidance_one_is_the_way_without_guidance(model: Composer) -> None:
    assert is_same(make(model, wish())[0], make(model, wish(), guidance=1 + 1e-9)[0])


def test_no_guidance_at_all_follows_neither_emotion_nor_plan(model: Composer) -> None:
    assert is_same(*make(model, wish(), wish(8, 0, "sad", density=0.1), guidance=0))


def seen_by(model: Composer, drafts: Drafts, guided: bool) -> npt.NDArray[np.float32]:
    """What a network makes of all notes of the drafts."""
    reader = tiny.in_numpy(model).reader(len(drafts) * (1 + guided))
    generation.read(reader, drafts, drafts.length, guided)
    return reader.h


def told_of(one: Wish) -> Drafts:
    """A draft that has five chords already."""
    drafts = Drafts([one], PLANS)
    strike(drafts, random_notes(5))
    return drafts


def test_the_two_halves_of_guidance_are_told_all_and_nothing_but_the_time(model: Composer) -> None:
    drafts = told_of(wish(8, 0, "sad"))
    drafts.renew_plans()
    both = seen_by(model, drafts, guided=True)
    hidden = told_of(wish(8, 0, "sad"))
    hidden.emotion[:], hidden.plan[:] = 0, np.nan
    told, untold = (seen_by(model, one, guided=False) for one in (drafts, hidden))
    assert both == pytest.approx(np.concatenate([told, untold]), abs=1e-5)
    assert not np.allclose(told, untold, atol=1e-2)


def test_who_watches_is_told_of_more_and_more_music_up_to_all_of_it(model: Composer) -> None:
    told: list[float] = []
    generate(tiny.in_numpy(model), PLANS, [wish(5), wish(7, 1)], SAMPLE, tell=told.append)
    assert told == sorted(told)
    assert len(set(told)) > 10
    assert told[-1] == 12


def strike(drafts: Drafts, notes: Tokens) -> None:
    """Every draft gets these notes."""
    for note in notes:
        drafts.add(np.tile(note, (len(drafts), 1)), np.full(len(drafts), SHIFT_MS[note[COLUMN.shift]]))


def random_notes(chords: int) -> Tokens:
    return encode(random_piece(1, chords, gap_ms=(40, 200)))


@pytest.mark.parametrize("chords", [1, 4, 25])  # the last is longer than the context
@pytest.mark.parametrize("offset_ms", [0, 3, 8500])  # the last is a longer silence than tokens can tell
def test_a_piece_begins_with_the_very_notes_of_its_opening_and_continues(
    chords: int, offset_ms: int, model: Composer
) -> None:
    played = random_piece(1, chords, gap_ms=(40, 200))
    lasting_ms = np.minimum(played.duration_ms, 300)
    opening = Piece.of(played.onset_ms + offset_ms, played.pitch, played.velocity, lasting_ms)
    assert (len(encode(opening)) > model.settings.context_notes) == (chords == 25)
    (piece,) = make(model, wish(20), opening=opening)
    own = piece.crop(0, int(opening.onset_ms[-1]) + 1)  # the notes of its last chord may end earlier
    assert is_same(own.crop(0, int(own.onset_ms[-1])), opening.crop(0, int(own.onset_ms[-1])))
    struck = [set(zip(part.onset_ms, part.pitch, part.velocity, strict=True)) for part in (opening, own)]
    assert struck[0] <= struck[1]
    assert len(piece) > len(opening) + 10
    assert piece.end_ms == 20_000


def test_the_clock_of_what_is_drawn_goes_on_from_the_last_chord_of_the_opening(model: Composer) -> None:
    opening = Piece.of([1234, 12_003, 12_030], [60, 64, 67], [60, 61, 62], [900, 500, 200])
    drafts = Drafts([wish(60)], PLANS, opening)
    assert drafts.onset_ms.tolist() == [12_003]
    assert drafts.remaining_s[0, : drafts.length].tolist() == pytest.approx([60, 58.766, 47.997, 47.997])
    strike(drafts, np.array([[0, 80, 10, 10], [10, 20, 10, 10]], dtype=np.uint8))
    piece = drafts.piece(0)
    assert piece.pitch.tolist() == [60, 64, 101, 67, 41]
    assert piece.onset_ms.tolist() == [1234, 12_003, 12_003, 12_030, 12_103]
    assert piece.velocity[[0, 1, 3]].tolist() == [60, 61, 62]
    assert piece.duration_ms[[0, 1, 3]].tolist() == [900, 500, 200]


def test_an_opening_after_which_nothing_is_drawn_rings_to_the_end() -> None:
    opening = Piece.of([0, 500], [60, 64], [60, 61], [900, 300])
    assert Drafts([wish(5)], PLANS, opening).piece(0).duration_ms.tolist() == [5000, 4500]


def test_what_is_drawn_lies_within_the_rules_of_keyboard_and_clock(model: Composer) -> None:
    network, drafts = tiny.in_numpy(model), Drafts([wish(3, seed) for seed in range(200)], PLANS)
    for _ in range(12):
        drafts.renew_plans()
        reader = network.reader(len(drafts))
        generation.read(reader, drafts, drafts.length, guided=False)
        before_pitch, before_ms = drafts.pitch.copy(), drafts.onset_ms.copy()
        note, ended = draw_note(reader, drafts, SAMPLE)
        in_chord = (note[:, COLUMN.shift] == 0) & (before_pitch != NO_NOTE[COLUMN.pitch])
        assert (note[in_chord, COLUMN.pitch] > before_pitch[in_chord]).all()
        onset_ms = before_ms + SHIFT_MS[note[:, COLUMN.shift]]
        assert np.array_equal(ended, onset_ms > 3000 - LAST_STRIKE_MS)
        release_ms = (onset_ms + DURATION_MS[note[:, COLUMN.duration]])[~ended]
        assert (release_ms <= np.maximum(3000, onset_ms[~ended] + DURATION_MS[0])).all()
        drafts.keep(np.flatnonzero(~ended))
        drafts.add(note[~ended], SHIFT_MS[note[~ended, COLUMN.shift]])
    assert in_chord.any()
    assert 0 < len(drafts) < 200


def shifts_ms(drafts: Drafts) -> list[int]:
    """What the first draft may draw as its next shift."""
    return SHIFT_MS[drafts.possible(COLUMN.shift, np.zeros(1, dtype=np.int64))[0]].tolist()


def on_grid(lowest_ms: float, highest_ms: float) -> list[int]:
    """Shifts between two bounds, both included."""
    return SHIFT_MS[(lowest_ms <= SHIFT_MS) & (highest_ms >= SHIFT_MS)].tolist()


def test_the_first_note_is_struck_soon_and_no_pause_is_long() -> None:
    drafts = Drafts([wish(60)], PLANS)
    assert shifts_ms(drafts) == on_grid(0, 500)
    strike(drafts, np.array([[10, 30, 15, len(DURATION_MS) - 1]], dtype=np.uint8))
    assert shifts_ms(drafts) == on_grid(0, 2000)  # however long it sounds


@pytest.mark.parametrize("left_ms", [5000, 2400, 2250, 300, 260, 250, 240, 20])
@pytest.mark.parametrize("duration", [0, 40, len(DURATION_MS) - 1])
def test_a_key_is_struck_while_it_can_sound_and_the_end_is_near_the_last_release(left_ms: int, duration: int) -> None:
    drafts = Drafts([wish(60)], PLANS)
    drafts.onset_ms[:] = 60_000 - left_ms
    strike(drafts, np.array([[0, 30, 15, duration]], dtype=np.uint8))
    strikes = on_grid(0, min(2000, left_ms - 250))
    ends = on_grid(left_ms - 249, 8000) if left_ms - DURATION_MS[duration] <= 3000 else []
    assert shifts_ms(drafts) == strikes + ends
    assert strikes + ends


def test_a_note_struck_again_sounds_no_longer() -> None:
    drafts = Drafts([wish(60)], PLANS)
    drafts.onset_ms[:] = 60_000 - 4000
    strike(drafts, np.array([[0, 30, 15, len(DURATION_MS) - 1]], dtype=np.uint8))
    assert shifts_ms(drafts)[-1] == 8000  # beyond the end
    strike(drafts, np.array([[10, 30, 15, 0]], dtype=np.uint8))
    assert shifts_ms(drafts)[-1] == 2000


def test_drafts_remember_every_note_and_its_time_however_many_there_are() -> None:
    drafts, notes = Drafts([wish(600), wish(500, 1)], PLANS), random_notes(600)
    strike(drafts, notes)
    onset_ms = SHIFT_MS[notes[:, COLUMN.shift]].cumsum()
    for row, seconds in enumerate((600, 500)):
        assert np.array_equal(drafts.notes[row, 1 : drafts.length], notes)
        assert drafts.remaining_s[row, 1 : drafts.length] == pytest.approx(seconds - onset_ms / 1000, abs=1e-4)
    assert drafts.notes[:, 0].tolist() == [list(NO_NOTE)] * 2


def reference(model: Composer, one: Wish, sample: SampleSettings) -> tuple[Piece, int]:
    """The piece drawn without a cache, everything read anew for each note; and how many notes it had."""
    context = model.settings.context_notes
    drafts, first = Drafts([one], PLANS), 0
    while True:
        if drafts.length - first > context:
            first = drafts.length - context // 2
        drafts.renew_plans()
        notes, remaining_s = drafts.notes[:, first : drafts.length], drafts.remaining_s[:, first : drafts.length]
        with torch.no_grad():
            conditions = map(torch.from_numpy, (drafts.emotion, drafts.plan, remaining_s))
            reader = model.reader(1)
            reader.h = model(torch.from_numpy(notes), model.condition(*conditions))[:, -1]
            note, ended = draw_note(reader, drafts, sample)
        if ended[0]:
            piece = decode(drafts.notes[0, 1 : drafts.length], spread_seed=one.seed)
            return ring(piece, round(one.seconds * 1000)), drafts.length - 1
        drafts.add(note, SHIFT_MS[note[:, COLUMN.shift]])


def test_the_sliding_window_equals_reading_the_latest_notes_anew(
    model: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "GAIN", 0.0)  # what was read under an older plan is not read again under a new one
    expected, notes = reference(model, wish(30), SAMPLE)
    assert notes > 4 * model.settings.context_notes
    assert is_same(make(model, wish(30))[0], expected)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_memory_is_constant_and_only_shrinks_as_pieces_end(
    guidance: float, model: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    read = generation.read

    def watched(reader: NumpyReader, drafts: Drafts, unread: int, guided: bool) -> None:
        read(reader, drafts, unread, guided)
        layers, batch, heads, context, _ = reader.keys.shape
        assert reader.values.shape == reader.keys.shape
        assert (layers, heads, context) == (2, 2, model.settings.context_notes)
        assert reader.length <= context
        assert batch == len(drafts) * (2 if guided else 1)
        batches.append(batch)

    monkeypatch.setattr(generation, "read", watched)
    make(model, wish(30), wish(10, 1), guidance=guidance)
    assert len(batches) > 3 * model.settings.context_notes
    assert batches == sorted(batches, reverse=True)
    assert len(set(batches)) == 2


def test_a_plan_is_one_typical_of_the_emotion_and_is_renewed_when_its_time_is_over() -> None:
    drafts = Drafts([wish(200, seed, "calm") for seed in range(20)], PLANS)
    own = PLANS.typical()["calm"]
    note, eight_s = np.full((20, 4), 30), np.full(20, 8000)
    plans = []
    for _ in range(16):
        drafts.renew_plans()
        assert (drafts.plan[:, None, OWN] == own[:, OWN]).all(-1).any(-1).all()
        plans.append(drafts.plan.copy())
        drafts.add(note, eight_s)
    changed = [(after != before).any() for before, after in pairwise(plans)]
    assert PLAN_S == 40
    assert np.flatnonzero(changed).tolist() == [4, 9, 14]  # at 40, 80 and 120 s
    assert len(np.unique(plans[0], axis=0)) > 1


def test_a_piece_keeps_its_harmony_through_all_passages() -> None:
    drafts = Drafts([wish(200, seed, "calm") for seed in range(20)], PLANS)
    drafts.renew_plans()
    first = drafts.plan.copy()
    drafts.onset_ms += 40_000
    drafts.renew_plans()
    assert np.array_equal(drafts.plan[:, HARMONY], first[:, HARMONY])
    assert not np.array_equal(drafts.plan[:, OWN], first[:, OWN])


@pytest.mark.parametrize("mode", [-0.2, 0.2])
def test_where_the_mode_is_given_the_harmony_is_of_a_clip_that_has_it(mode: float) -> None:
    drafts = Drafts([wish(30, seed, "calm", mode=mode) for seed in range(200)], PLANS)
    drafts.renew_plans()
    own = PLANS.typical()["calm"]
    near = np.abs(own[:, ENTRIES.index("mode")] * PLANS.sd[5] + PLANS.mean[5] - mode).argsort()[:NEAREST]
    drawn = (drafts.plan[:, None, HARMONY] == own[:, HARMONY]).all(-1)
    assert drawn.any(0).nonzero()[0].tolist() == sorted(near)


def test_where_the_key_is_given_the_harmony_of_every_passage_is_in_it() -> None:
    drafts = Drafts([replace(wish(200, seed, mode=-0.2), tonic=9) for seed in range(20)], PLANS)
    for _ in range(2):
        drafts.renew_plans()
        raw = drafts.plan * np.array(PLANS.sd) + np.array(PLANS.mean)
        assert (key_fit(raw[:, HARMONY])[:, 12:].argmax(1) == 9).all()
        drafts.onset_ms += 40_000


def test_after_a_long_opening_a_plan_holds_as_long_as_any() -> None:
    opening = np.tile(np.array([[144, 30, 10, 30]], dtype=np.uint8), (12, 1))  # 96 s
    drafts = Drafts([wish(200, seed) for seed in range(20)], PLANS)
    strike(drafts, opening)
    drafts.renew_plans()
    first = drafts.plan.copy()
    drafts.add(np.full((20, 4), 30), np.full(20, 8000))
    drafts.renew_plans()
    assert np.array_equal(drafts.plan, first)


def test_pins_take_their_places_in_every_plan_standardised() -> None:
    pins = {"density": math.log(3), "mode": -0.2}
    drafts = Drafts([wish(100, seed, **pins) for seed in range(5)], PLANS)
    for _ in range(2):
        drafts.renew_plans()
        for name, value in pins.items():
            i = ENTRIES.index(name)
            assert drafts.plan[:, i] == pytest.approx((value - PLANS.mean[i]) / PLANS.sd[i])
        assert not np.array_equal(drafts.plan[0], drafts.plan[1])  # what is not pinned is drawn
        drafts.onset_ms += 40_000


def test_an_emotion_without_plans_has_an_unknown_one_but_for_the_pins() -> None:
    bare = PLANS.model_copy(update={"by_emotion": {}})
    drafts = Drafts([wish(pitch=60.0)], bare)
    drafts.renew_plans()
    assert np.isnan(drafts.plan[0]).tolist() == [name != "pitch" for name in ENTRIES]


def test_a_mixture_draws_plans_of_its_emotions_in_their_proportions() -> None:
    mixture = {"happy": 0.75, "calm": 0.25}
    drafts = Drafts([Wish(mixture, 10, seed, {}) for seed in range(400)], PLANS)
    drafts.renew_plans()
    assert drafts.emotion[7].tolist() == [mixture.get(name, 0) for name in EMOTIONS]
    share = {
        name: (drafts.plan[:, None] == np.array(PLANS.by_emotion[name], dtype=np.float32)).all(-1).any(-1).mean()
        for name in EMOTIONS
    }
    assert share["happy"] + share["calm"] == 1
    assert share["happy"] == pytest.approx(0.75, abs=0.07)


def test_a_mixture_makes_a_piece_of_its_own(model: Composer) -> None:
    mixed, happy, calm = generate(
        tiny.in_numpy(model),
        PLANS,
        [Wish(m, 6) for m in ({"happy": 0.5, "calm": 0.5}, {"happy": 1}, {"calm": 1})],
        SAMPLE,
    )
    check_lawful(mixed, 6)
    assert not is_same(mixed, happy)
    assert not is_same(mixed, calm)


def rows_of(logits: torch.Tensor, rows: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The same logits (V,) in every row, all ids possible."""
    return logits.expand(rows, -1).numpy(), np.ones((rows, len(logits)), dtype=bool)


def test_draws_follow_the_probabilities() -> None:
    rng, draws = np.random.default_rng(0), 20_000
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -3.0])
    drawn = draw(*rows_of(logits, draws), 1 - rng.random(draws))
    expected = logits.double().softmax(0).numpy() * draws
    chi_square = ((np.bincount(drawn, minlength=6) - expected) ** 2 / expected).sum()
    assert chi_square < 20.5  # 5 degrees of freedom, one in a thousand


def test_temperature_flattens_or_sharpens() -> None:
    rng, draws = np.random.default_rng(0), 20_000
    logits = torch.tensor([0.0, 1.0, 2.0])
    for temperature in (0.5, 2.0):
        drawn = draw(*rows_of(logits, draws), 1 - rng.random(draws), rules(temperature=temperature))
        expected = (logits.double() / temperature).softmax(0).numpy()
        assert np.bincount(drawn, minlength=3) / draws == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    "rule",
    [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999999}, *({"temperature": t} for t in (1e-7, 1e-40, 5e-324))],
    ids=str,
)  # fmt: skip
def test_the_strictest_rules_draw_the_likeliest(rule: dict[str, float]) -> None:
    logits = torch.randn(500, 88, generator=torch.Generator().manual_seed(0)) * 3
    possible = np.random.default_rng(0).random((500, 88)) < 0.5
    chance = np.random.default_rng(1).random(500)
    likeliest = logits.masked_fill(torch.from_numpy(~possible), -torch.inf).argmax(-1)
    assert np.array_equal(draw(logits.numpy(), possible, 1 - chance, rules(**rule)), likeliest)


def test_top_k_and_top_p_keep_the_likeliest_and_their_proportions() -> None:
    rng, draws = np.random.default_rng(0), 20_000
    p = torch.tensor([0.05, 0.4, 0.15, 0.3, 0.1])
    for rule, kept in (
        ({"top_k": 2}, (1, 3)),
        ({"top_p": 0.71}, (1, 2, 3)),
        ({"top_p": 0.69}, (1, 3)),
        ({"min_p": 0.36}, (1, 2, 3)),
        ({"min_p": 0.39}, (1, 3)),
        ({"min_p": 0.3, "top_p": 0.8}, (1, 3)),
    ):
        drawn = draw(*rows_of(p.log(), draws), 1 - rng.random(draws), rules(**rule))
        assert tuple(np.unique(drawn)) == kept
        expected = p[list(kept)] / p[list(kept)].sum()
        assert np.bincount(drawn)[list(kept)] / draws == pytest.approx(expected.numpy(), abs=0.012)


@pytest.mark.parametrize("rule", [{}, {"temperature": 5.0}, {"top_p": 0.5}, {"top_k": 40}, {"min_p": 0.9}], ids=str)
def test_what_is_impossible_is_never_drawn(rule: dict[str, float]) -> None:
    rng, draws, size = np.random.default_rng(0), 10_000, 88
    logits = torch.randn(draws, size, generator=torch.Generator().manual_seed(0)) * 10
    possible = rng.random((draws, size)) < 0.2
    possible[np.arange(draws), rng.integers(0, size, draws)] = True
    chance = 1 - rng.random(draws)
    chance[:3000], chance[3000:6000] = 1.0, 2.0**-53
    drawn = draw(logits.numpy(), possible, chance, rules(**rule))
    assert possible[np.arange(draws), drawn].all()


def test_rows_are_drawn_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    logits, possible, chance = torch.randn(50, 30).numpy(), rng.random((50, 30)) < 0.7, 1 - rng.random(50)
    by = rules(temperature=0.9, top_p=0.8, top_k=12, min_p=0.01)
    together = draw(logits, possible, chance, by)
    alone = [draw(logits[i : i + 1], possible[i : i + 1], chance[i : i + 1], by)[0] for i in range(50)]
    assert together.tolist() == alone


def test_the_last_sound_rings_to_the_end_and_no_other() -> None:
    loose = Piece.of([0, 900, 900, 1000], [60, 64, 67, 72], [64] * 4, [1649, 750, 1000, 700])
    piece = ring(loose, 10_000)
    assert RING_MS == 250
    assert (piece.onset_ms + piece.duration_ms).tolist() == [1649, 10_000, 10_000, 10_000]
    assert piece.onset_ms.tolist() == loose.onset_ms.tolist()


def test_what_sounds_beyond_the_end_is_released_there_and_what_ends_there_is_left_alone() -> None:
    exact = Piece.of([0, 500, 900], [60, 64, 67], [64, 70, 80], [800, 100, 9100])
    assert is_same(ring(exact, 10_000), exact)
    assert is_same(ring(Piece.of([0, 500, 900], [60, 64, 67], [64, 70, 80], [800, 100, 9800]), 10_000), exact)


def test_the_notes_of_a_chord_are_spread_by_a_few_milliseconds(pieces: Mapping[float, Piece]) -> None:
    gaps_ms = np.diff(pieces[60].onset_ms)
    assert ((gaps_ms > 0) & (gaps_ms <= SPREAD_MS)).any()


def test_every_size_of_id_fits_the_bytes_it_is_kept_in() -> None:
    assert max(SIZES) < 256


# ---- plans that are kept


def drafts_of(notes: Tokens, planned: npt.ArrayLike, begins: int = 1) -> Drafts:
    """Two drafts that have played the same notes of a passage, which begins at that row."""
    drafts = Drafts([wish(60), wish(60, 1)], PLANS)
    strike(drafts, notes)
    drafts.planned[:] = planned
    drafts.plan = drafts.planned.copy()
    drafts.plan_from[:] = begins
    drafts.plan_until_ms[:] = 1e9
    return drafts


def test_what_a_passage_lacks_of_its_plan_is_asked_for_on_top() -> None:
    notes = encode(random_piece(2, 30))[: 4 * CORRECT_NOTES - 1]
    (measured,) = PLANS.standardise(measure(notes[None], [len(notes)]))
    lack = np.zeros(len(ENTRIES))
    lack[:5] = 0.5, -0.5, 9.0, -9.0, np.nan
    drafts = drafts_of(notes, measured + lack)
    drafts.correct_plans()
    share = GAIN * len(notes) / (len(notes) + TRUST_NOTES)
    expected = np.clip(lack, -LACK_SDS, LACK_SDS) * share
    for row in drafts.plan - drafts.planned:
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_pitches_of_a_class_that_the_passage_lacks_are_favoured() -> None:
    notes = encode(random_piece(2, 30))[: 4 * CORRECT_NOTES - 1]
    (measured,) = PLANS.standardise(measure(notes[None], [len(notes)]))
    lack = np.zeros(len(ENTRIES))
    lack[ENTRIES.index("A")], lack[ENTRIES.index("C")], lack[ENTRIES.index("G")] = 1, -1, np.nan
    drafts = drafts_of(notes, measured + lack)
    drafts.correct_plans()
    lacking = drafts.pull(COLUMN.pitch) / PITCH_PULL
    share = GAIN * len(notes) / (len(notes) + TRUST_NOTES)
    for pitch in range(LOWEST_KEY, HIGHEST_KEY + 1):
        np.testing.assert_allclose(lacking[:, pitch - LOWEST_KEY], {9: share, 0: -share}.get(pitch % 12, 0), atol=1e-5)


@pytest.mark.parametrize("lack", [2.0, -2.0])
def test_where_a_passage_lacks_density_short_shifts_are_favoured_and_long_ones_where_it_has_too_much(
    lack: float,
) -> None:
    drafts = drafts_of(encode(random_piece(2, 30))[: 4 * CORRECT_NOTES], np.full(len(ENTRIES), np.nan))
    drafts.lack[:, ENTRIES.index("density")] = lack
    favour = drafts.pull(COLUMN.shift)[0]
    assert (np.sign(np.diff(favour)) == -np.sign(lack)).all()
    shift = np.flatnonzero(SHIFT_MS + 50 == 200)[0], np.flatnonzero(SHIFT_MS + 50 == 100)[0]
    assert favour[shift[1]] - favour[shift[0]] == pytest.approx(SHIFT_PULL * lack, abs=1e-6)
    assert not drafts.pull(COLUMN.velocity).any()
    assert not drafts.pull(COLUMN.duration).any()


def test_a_note_struck_again_counts_as_long_as_it_was_held() -> None:
    drafts = Drafts([wish(30)], PLANS)
    long = int(np.flatnonzero(DURATION_MS >= 4000)[0])
    for pitch, shift in ((40, 10), (44, 10), (40, 20)):  # the first key again after the shifts of two notes
        note = np.array([[shift, pitch, 20, long]])
        drafts.add(note, SHIFT_MS[note[:, COLUMN.shift]])
    held_ms = SHIFT_MS[10] + SHIFT_MS[20]
    assert abs(DURATION_MS[drafts.held[0, 1]] - held_ms) <= held_ms * 0.05
    assert drafts.held[0, 2:4].tolist() == [long, long]
    assert drafts.notes[0, 1:4, COLUMN.duration].tolist() == [long] * 3  # the network goes on from what it drew


def test_a_piece_has_more_of_the_harmony_of_its_plan_than_a_piece_of_another(model: Composer) -> None:
    wishes = [
        wish(20, seed, **dict(zip(TONICS, unit((np.arange(12) == only) * 1.0), strict=True)))
        for only in (3, 9)  # E flat alone, A alone
        for seed in range(8)
    ]
    e_flat = np.array([(piece.pitch % 12 == 3).mean() for piece in make(model, *wishes)])
    assert e_flat[:8].mean() > 1.2 * e_flat[8:].mean()


def test_only_the_notes_of_the_passage_count_and_only_now_and_then() -> None:
    notes = encode(random_piece(2, 30))[: 4 * CORRECT_NOTES - 1]
    drafts = drafts_of(notes, 0.0, begins=1 + CORRECT_NOTES)
    drafts.correct_plans()
    passage = notes[CORRECT_NOTES:]
    (measured,) = PLANS.standardise(measure(passage[None], [len(passage)]))
    share = GAIN * len(passage) / (len(passage) + TRUST_NOTES)
    np.testing.assert_allclose(drafts.plan[0], share * np.clip(-measured, -LACK_SDS, LACK_SDS), atol=1e-5)
    before = drafts.plan.copy()
    drafts.add(np.full((2, 4), 5), np.full(2, 50))
    drafts.correct_plans()
    assert np.array_equal(drafts.plan, before)


def test_a_new_plan_is_told_as_it_is_drawn() -> None:
    notes = encode(random_piece(2, 30))[: 4 * CORRECT_NOTES - 1]
    drafts = drafts_of(notes, 0.0)
    drafts.plan_until_ms[:] = 0
    drafts.renew_plans()
    drafts.correct_plans()
    assert np.array_equal(drafts.plan, drafts.planned)
    assert drafts.planned.any()
