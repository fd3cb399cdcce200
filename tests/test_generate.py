from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch

from emogen.composing import generate as generation
from emogen.composing import steering
from emogen.composing.drafts import LAST_STRIKE_MS, Drafts, Drawn, ring
from emogen.composing.generate import AS_LEARNT, LENGTH, chances, draw, draw_note, generate, tilted
from emogen.composing.rules import BEGIN_MS, PAUSE_MS
from emogen.composing.wish import Wish
from emogen.model.network import Composer
from emogen.model.numpy_growing import NumpyReader
from emogen.model.opening import reader_of
from emogen.music.measures import TONICS, silences_ms, unit
from emogen.music.notes import HIGHEST_KEY, LOWEST_KEY, Piece
from emogen.music.tokens import (
    COLUMN,
    DURATION_MS,
    FAMILIES,
    NO_NOTE,
    SHIFT_MS,
    SIZES,
    SPREAD_MS,
    decode,
    encode,
)
from emogen.settings import SampleSettings
from tests import tiny
from tests.drafting import PLANS, random_notes, strike, wish
from tests.music import is_same, random_piece

PLAIN: dict[str, float] = {"guidance": 1, "top_p": 0.9, "temperature": 1}
"""Half the work; guidance has its own tests."""
SAMPLE = SampleSettings.model_validate(PLAIN)
LENGTHS_S = (5, 5.001, 7.3, 12, 60, 180, 600)


@pytest.fixture(scope="module")
def model() -> Composer:
    return tiny.composer()


def make(model: Composer, *wishes: Wish, opening: Piece | None = None, **sample: float) -> list[Drawn]:
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


def test_a_network_that_never_moves_on_is_moved_on_when_it_runs_out_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emogen.composing.rules.MOST_NOTES", 1000)  # before it would be moved on for its density
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


def seen_by(model: Composer, drafts: Drafts) -> npt.NDArray[np.float32]:
    """What a network makes of all notes of the drafts."""
    reader = NumpyReader(tiny.in_numpy(model), len(drafts) * (1 if drafts.guidance == 1 else 2))
    generation.read(reader, drafts, drafts.length)
    return reader.h


def told_of(one: Wish, guidance: float = 1) -> Drafts:
    """A draft that has five chords already."""
    drafts = Drafts([one], PLANS, None, guidance)
    strike(drafts, random_notes(5))
    return drafts


def test_the_two_halves_of_guidance_are_told_all_and_nothing_but_the_time(model: Composer) -> None:
    drafts, twice = told_of(wish(8, 0, "sad")), told_of(wish(8, 0, "sad"), 1.5)
    drafts.steer()
    twice.steer()
    both = seen_by(model, twice)
    hidden = told_of(wish(8, 0, "sad"))
    hidden.steering.emotion[:], hidden.steering.plan[:] = 0, np.nan
    told, untold = (seen_by(model, one) for one in (drafts, hidden))
    assert both == pytest.approx(np.concatenate([told, untold]), abs=1e-5)
    assert not np.allclose(told, untold, atol=1e-2)


def test_who_watches_is_told_of_more_and_more_music_up_to_all_of_it(model: Composer) -> None:
    told: list[float] = []
    generate(tiny.in_numpy(model), PLANS, [wish(5), wish(7, 1)], SAMPLE, tell=told.append)
    assert told == sorted(told)
    assert len(set(told)) > 10
    assert told[-1] == 12


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


def test_what_is_drawn_lies_within_the_rules_of_keyboard_and_clock(model: Composer) -> None:
    network, drafts = tiny.in_numpy(model), Drafts([wish(3, seed) for seed in range(200)], PLANS)
    for _ in range(12):
        drafts.steer()
        reader = reader_of(network, len(drafts))
        generation.read(reader, drafts, drafts.length)
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


def reference(model: Composer, one: Wish, sample: SampleSettings) -> tuple[Piece, int]:
    """The piece drawn without a cache, everything read anew for each note; and how many notes it had."""
    context = model.settings.context_notes
    drafts, first = Drafts([one], PLANS), 0
    while True:
        if drafts.length - first > context:
            first = drafts.length - context // 2
        drafts.steer()
        notes, remaining_s = drafts.notes[:, first : drafts.length], drafts.remaining_s[:, first : drafts.length]
        with torch.no_grad():
            conditions = map(torch.from_numpy, (drafts.steering.emotion, drafts.steering.plan, remaining_s))
            reader = reader_of(model, 1)
            reader.h = model(torch.from_numpy(notes), model.condition(*conditions))[:, -1]
            note, ended = draw_note(reader, drafts, sample)
        if ended[0]:
            piece = decode(drafts.notes[0, 1 : drafts.length], spread_seed=one.seed)
            return ring(piece, round(one.seconds * 1000)), drafts.length - 1
        drafts.add(note, SHIFT_MS[note[:, COLUMN.shift]])


def test_the_sliding_window_equals_reading_the_latest_notes_anew(
    model: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "GAIN", 0.0)  # what was read under an older plan is not read again under a new one
    expected, notes = reference(model, wish(30), SAMPLE)
    assert notes > 4 * model.settings.context_notes
    assert is_same(make(model, wish(30))[0], expected)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_memory_is_constant_and_only_shrinks_as_pieces_end(
    guidance: float, model: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    read = generation.read

    def watched(reader: NumpyReader, drafts: Drafts, unread: int) -> None:
        read(reader, drafts, unread)
        layers, batch, heads, context, _ = reader.keys.shape
        assert reader.values.shape == reader.keys.shape
        assert (layers, heads, context) == (2, 2, model.settings.context_notes)
        assert reader.length <= context
        assert batch == len(drafts) * (1 if guidance == 1 else 2)
        batches.append(batch)

    monkeypatch.setattr(generation, "read", watched)
    make(model, wish(30), wish(10, 1), guidance=guidance)
    assert len(batches) > 3 * model.settings.context_notes
    assert batches == sorted(batches, reverse=True)
    assert len(set(batches)) == 2


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


def rows_of(logits: torch.Tensor, rows: int) -> npt.NDArray[np.float32]:
    """The same logits (V,) in every row."""
    return logits.expand(rows, -1).numpy()


def only(logits: torch.Tensor, possible: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Logits of which some are forbidden."""
    return np.where(possible, logits.numpy(), np.float32(-np.inf))


def test_draws_follow_the_probabilities() -> None:
    rng, draws = np.random.default_rng(0), 20_000
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -3.0])
    drawn = draw(rows_of(logits, draws), 1 - rng.random(draws))
    expected = logits.double().softmax(0).numpy() * draws
    chi_square = ((np.bincount(drawn, minlength=6) - expected) ** 2 / expected).sum()
    assert chi_square < 20.5  # 5 degrees of freedom, one in a thousand


def test_temperature_flattens_or_sharpens() -> None:
    rng, draws = np.random.default_rng(0), 20_000
    logits = torch.tensor([0.0, 1.0, 2.0])
    for temperature in (0.5, 2.0):
        drawn = draw(rows_of(logits, draws), 1 - rng.random(draws), rules(temperature=temperature))
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
    assert np.array_equal(draw(only(logits, possible), 1 - chance, rules(**rule)), likeliest)


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
        drawn = draw(rows_of(p.log(), draws), 1 - rng.random(draws), rules(**rule))
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
    drawn = draw(only(logits, possible), chance, rules(**rule))
    assert possible[np.arange(draws), drawn].all()


def test_rows_are_drawn_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    logits, chance = only(torch.randn(50, 30), rng.random((50, 30)) < 0.7), 1 - rng.random(50)
    by = rules(temperature=0.9, top_p=0.8, top_k=12, min_p=0.01)
    together = draw(logits, chance, by)
    alone = [draw(logits[i : i + 1], chance[i : i + 1], by)[0] for i in range(50)]
    assert together.tolist() == alone


class Reads:
    """What a network expects, whatever it has read."""

    def __init__(self, rows: int) -> None:
        rng = np.random.default_rng(0)
        self.expected = [rng.normal(0, 1, (rows, size)).astype(np.float32) for size in SIZES]
        self.seen: list[int] = []

    def logits(self, family: int) -> npt.NDArray[np.float32]:
        return self.expected[family]

    def see(self, family: int, drawn: npt.NDArray[np.int64], landing: None) -> None:
        self.seen.append(family)


def test_only_pitches_are_truncated() -> None:
    """Truncated to the likeliest: one pitch of each draft; all else has the spread that the network expects, or for
    durations its mean."""
    rows = 4000
    strict = SampleSettings(temperature=0.1, top_k=1, top_p=0.01, min_p=0.99, guidance=1)
    reader = Reads(rows)
    for family in range(4):
        reader.expected[family] = np.tile(reader.expected[family][:1], (rows, 1))
    drafts = Drafts([wish(60, seed) for seed in range(rows)], PLANS)
    note, _ = draw_note(cast(Any, reader), drafts, strict)
    assert set(note[:, COLUMN.pitch].tolist()) == {int(reader.expected[COLUMN.pitch][0].argmax())}
    long = chances(reader.expected[COLUMN.duration][:1].astype(float))[0]
    assert abs(LENGTH[note[:, COLUMN.duration]].mean() - long @ LENGTH) < 0.05
    for family in (COLUMN.shift, COLUMN.velocity):
        expected = np.exp(reader.expected[family][0])
        if family == COLUMN.shift:
            expected[SHIFT_MS > BEGIN_MS] = 0
        expected /= expected.sum()
        drawn = np.bincount(note[:, family], minlength=SIZES[family]) / rows
        assert np.abs(drawn - expected).sum() < 0.15, FAMILIES[family]
    assert reader.seen == [0, 1, 2]  # what each head needs of those before


def test_the_notes_of_a_chord_are_spread_by_a_few_milliseconds(pieces: Mapping[float, Piece]) -> None:
    gaps_ms = np.diff(pieces[60].onset_ms)
    assert ((gaps_ms > 0) & (gaps_ms <= SPREAD_MS)).any()


def test_a_piece_has_more_of_the_harmony_of_its_plan_than_a_piece_of_another() -> None:
    wishes = [
        wish(20, seed, **dict(zip(TONICS, unit((np.arange(12) == only) * 1.0), strict=True)))
        for only in (3, 9)  # E flat alone, A alone
        for seed in range(32)
    ]
    indifferent = wanting(pitch=0.0)
    e_flat = np.array([(piece.pitch % 12 == 3).mean() for piece in make(indifferent, *wishes)])
    assert e_flat[:32].mean() > 1.2 * e_flat[32:].mean()


def test_a_lower_temperature_keeps_the_mean_of_what_is_drawn() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 95)).astype(np.float32) * np.linspace(0.5, 2, 50, dtype=np.float32)[:, None]
    logits[10:20, 40:] = -np.inf  # of the rules
    before = chances(logits.astype(np.float64))
    after = chances(tilted(logits, 0.7, LENGTH).astype(np.float64))
    plain = chances(logits.astype(np.float64) / 0.7)
    np.testing.assert_allclose(after @ LENGTH, before @ LENGTH, atol=0.02)
    assert np.abs(plain @ LENGTH - before @ LENGTH).mean() > 0.03
    assert (after[10:20, 40:] == 0).all()
    assert ((after**2).sum(1) > (before**2).sum(1)).mean() > 0.9  # sharper


def test_where_one_value_is_possible_a_tilt_leaves_it() -> None:
    logits = np.full((2, 95), -np.inf, dtype=np.float32)
    logits[0, 0] = logits[1, 94] = 3.0
    assert tilted(logits, 0.7, LENGTH).argmax(1).tolist() == [0, 94]
