"""The rules of drawing: a rule is what is added to the logits, in nats; minus infinity forbids.

RULES holds them all, by family; ``generate`` adds them up. A new rule is a function below, beside its constant and its
reason, and its name in RULES. Together they leave at least one id possible in every draw. (Above 300 lines: rules act
on the same draw, so whoever changes one should see the others.)

Shapes: B drafts, and the values of the family that a rule is for: 145 shifts, 88 pitches, 95 durations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from emogen.composing import originality
from emogen.composing.drafts import Drafts
from emogen.composing.wish import RETURNS
from emogen.music import position
from emogen.music.notes import LOWEST_KEY, Ints, Piece
from emogen.music.plan import ENTRIES, HARMONY
from emogen.music.tokens import CHORD_MS, COLUMN, DURATION_MS, NO_NOTE, SHIFT_MS, SIZES, VELOCITY_STEP, nearest

Nats = npt.NDArray[np.float32]
Rule = Callable[[Drafts, Ints], Nats]
"""``rule(drafts, note)``: what is added to the logits (B, size) of a family. ``note`` (B, 4) holds the ids of the note
being drawn; zeros for what is not drawn yet."""


NOTHING: Nats = np.zeros((1, 1), dtype=np.float32)
"""What a rule adds that has nothing to say."""


def only(possible: npt.NDArray[np.bool_]) -> Nats:
    """Forbid everything that is not possible."""
    return np.where(possible, np.float32(0), np.float32(-np.inf))


BEGIN_MS = 500
"""Latest onset of a piece's first note. People expect sound when they press play."""


def begins_soon(drafts: Drafts, note: Ints) -> Nats:
    """A piece begins with a note, and soon; what follows an opening is not of its last chord."""
    if drafts.length > drafts.drawn_from or drafts.wishes[0].window_s:
        return NOTHING
    first = SHIFT_MS <= BEGIN_MS if drafts.opening is None else SHIFT_MS > 0
    return only(first & ~drafts.ends(SHIFT_MS))


PAUSE_MS = 2000
"""Longest time between two onsets; in real clips one in 500 is longer. Without it a model now and then takes a long
note for the end of its song, and waits for seconds: 14 of 36 pieces had a pause above 2.9 s (benchmarks/recipe.md)."""
BRIEF = SHIFT_MS <= PAUSE_MS
ONLY_BRIEF = only(BRIEF[None])


def pauses_briefly(drafts: Drafts, note: Ints) -> Nats:
    """Successive onsets are close, except before the end of the piece."""
    return only(BRIEF | drafts.ends(SHIFT_MS)) if drafts.near_end else ONLY_BRIEF


LAST_STRUCK_MS = 2500
"""Longest time from the last onset to the end; a piece of SHORT_S or longer may hold its last bar. Of pieces without
this rule 28 % struck nothing in their last 2.5 s; of real clips, which are cut from songs, 14 % (96 pieces of 30 s)."""
SHORT_S = 30
LOOP_STRUCK_MS = 1000
"""The same in a loop, which does not come to rest."""


def ends_soon_after_its_last_note(drafts: Drafts, note: Ints) -> Nats:
    """The last sound is held for a bar at most."""
    if not drafts.near_end:
        return NOTHING
    held_ms = np.full(len(drafts), LAST_STRUCK_MS)
    if drafts.following:
        is_long = np.array([wish.seconds >= SHORT_S for wish in drafts.steering.wishes])
        held_ms = np.where(is_long, np.maximum(held_ms, drafts.following.beside.last_bar_ms), held_ms)
    is_loop = np.array([wish.loop for wish in drafts.steering.wishes])
    soon = drafts.end_ms - drafts.onset_ms <= np.where(is_loop, LOOP_STRUCK_MS, held_ms)
    return only(soon[:, None] | ~drafts.ends(SHIFT_MS))


MARKER_MS, BEFORE_MS = 20, 120
"""How near a note is to its marker, and for how long before there is none: the blow falls into silence."""
MARKER_NATS = np.arange(SIZES[COLUMN.velocity], dtype=np.float32) * 0.5
"""For each velocity of a note on a marker: it is some 12 louder."""


def strikes_at_markers(drafts: Drafts, note: Ints) -> Nats:
    """A note is struck at each marker."""
    if not drafts.has_markers or not np.isfinite(next_ms := _next_marker_ms(drafts, drafts.onset_ms)).any():
        return NOTHING
    before_ms = next_ms[:, None] - (drafts.onset_ms[:, None] + SHIFT_MS)
    return only((before_ms >= BEFORE_MS) | (np.abs(before_ms) <= MARKER_MS) | (SHIFT_MS == 0))


def strikes_markers_hard(drafts: Drafts, note: Ints) -> Nats:
    """The notes at a marker are louder."""
    if not drafts.has_markers:
        return NOTHING
    landing_ms = _landing_ms(drafts, note)
    is_at = np.array(
        [
            any(abs(at_ms - marker_s * 1000) <= MARKER_MS for marker_s in wish.markers_s)
            for at_ms, wish in zip(landing_ms.tolist(), drafts.steering.wishes, strict=True)
        ],
        dtype=np.float32,
    )
    return is_at[:, None] * MARKER_NATS if is_at.any() else NOTHING


def _next_marker_ms(drafts: Drafts, at_ms: Ints) -> npt.NDArray[np.float64]:
    """The next marker (B,) that has not been struck at some times (B,); infinity for none."""
    return np.array(
        [
            next((1000 * marker_s for marker_s in wish.markers_s if 1000 * marker_s > now_ms + MARKER_MS), np.inf)
            for now_ms, wish in zip(at_ms.tolist(), drafts.steering.wishes, strict=True)
        ]
    )


MOST_NOTES, WITHIN_MS = 128, 1000
"""Most notes that are drawn within a time. In POP909 and EMOPIA no second has more than 56, in SUPRA's piano rolls 96;
but weights can be such that a piece of them would never end."""


def takes_its_time(drafts: Drafts, note: Ints) -> Nats:
    """However dense a passage, the clock goes on."""
    if drafts.length <= MOST_NOTES:
        return NOTHING
    left_ms = np.rint(drafts.remaining_s[:, drafts.length - MOST_NOTES] * 1000)
    earliest_ms = drafts.counted_ms - left_ms + WITHIN_MS
    if (drafts.onset_ms >= earliest_ms).all():
        return NOTHING
    return only(drafts.onset_ms[:, None] + SHIFT_MS >= earliest_ms[:, None])


def leaves_the_highest_key(drafts: Drafts, note: Ints) -> Nats:
    """A chord that has reached the highest key is complete: its notes come from bass to top."""
    is_highest = drafts.pitch == SIZES[COLUMN.pitch] - 1
    return only(~is_highest[:, None] | (SHIFT_MS > 0)) if is_highest.any() else NOTHING


def rises_in_a_chord(drafts: Drafts, note: Ints) -> Nats:
    """In a chord each pitch is above the one before, as ``tokens.encode`` orders them."""
    in_chord = (note[:, COLUMN.shift] == 0) & (drafts.pitch < NO_NOTE[COLUMN.pitch])
    if not in_chord.any():
        return NOTHING
    below = np.where(in_chord, drafts.pitch.astype(int), -1)
    return only(np.arange(SIZES[COLUMN.pitch]) > below[:, None])


def is_released_in_time(drafts: Drafts, note: Ints) -> Nats:
    """A note ends with the piece or earlier; after a shift that ends the piece the shortest is drawn, and unused."""
    left_ms = drafts.end_ms - _landing_ms(drafts, note)
    if (left_ms >= DURATION_MS[-1]).all():
        return NOTHING
    return only(np.maximum(left_ms, DURATION_MS[0])[:, None] >= DURATION_MS)


RELEASED_MS = 60
"""How long a note may sound into a chord that it does not belong to: a pianist's pedal follows the harmony."""


def is_released_with_its_chord(drafts: Drafts, note: Ints) -> Nats:
    """Where chords were asked for, a note of the old chord does not sound into one that lacks it."""
    if not drafts.following or not (asked := _asks_for_chords(drafts)).any():
        return NOTHING
    landing_ms = _landing_ms(drafts, note)
    until_ms = drafts.following.changes_ms(landing_ms, note[:, COLUMN.pitch] + LOWEST_KEY)
    longest_ms = np.where(asked, until_ms - landing_ms + RELEASED_MS, np.inf)
    return only(np.maximum(longest_ms, DURATION_MS[0])[:, None] >= DURATION_MS)


DENSITY_PULL = 0.1
"""Nats per SD of density that a passage lacks, per halving of (shift + 50 ms); times the guidance. With it,
and with notes struck again counted as long as they were held, the density of a quadrant's pieces was .82 to 1.04 of
that of real clips, before .76 to 1.26 (rows 2 and 3 of the table in benchmarks/recipe.md)."""
DENSITY, SHORTNESS = ENTRIES.index("density"), -np.log2(SHIFT_MS + 50, dtype=np.float32)


def towards_density(drafts: Drafts, note: Ints) -> Nats:
    """The fewer notes a passage has against its plan, the likelier are short shifts; a plan alone has less effect."""
    return drafts.guidance * (DENSITY_PULL * drafts.steering.lack[:, DENSITY, None] * SHORTNESS)


HARMONY_PULL = 0.15
"""Nats per SD that a passage lacks of a pitch class; times the guidance. Chosen without comparison."""
OF_KEY = HARMONY.start + (np.arange(SIZES[COLUMN.pitch]) + LOWEST_KEY) % 12
"""The plan entry of each key's pitch class, (88,)."""


def towards_harmony(drafts: Drafts, note: Ints) -> Nats:
    """The less a passage has of a pitch class against its plan, the likelier are the keys of that class."""
    return drafts.guidance * (HARMONY_PULL * drafts.steering.lack[:, OF_KEY])


CHORD_PULL, CHORD_FADES = 1.0, (60, 72)
"""Nats between the keys of the chord's pitch classes and the others where chords were asked for, in full up to the
first pitch, fading to none at the second: accompaniment plays the chord, a melody moves through it. Chords that nobody
asked for are left to the network: pulled, harmony is narrower than real harmony (benchmarks/recipe.md)."""
ROOT_PULL, BASS_BELOW = 1.0, 52
"""Nats for the chord's root below a pitch; twice as many where chords were asked for."""
PITCH = np.arange(SIZES[COLUMN.pitch]) + LOWEST_KEY
BASS_CLASS = np.where(PITCH < BASS_BELOW, PITCH % 12, -1)
"""The pitch class of each key in the bass; -1 above."""
CHORD_WEIGHT = np.interp(PITCH, CHORD_FADES, (1, 0)).astype(np.float32)


def plays_the_chord(drafts: Drafts, note: Ints) -> Nats:
    """What a chart asks for is heard: the chord's tones are likelier, and its root in the bass."""
    if not drafts.following:
        return NOTHING
    is_root = drafts.following.root[:, None] == BASS_CLASS
    if not (is_asked := _asks_for_chords(drafts)).any():
        return np.float32(ROOT_PULL) * is_root
    asked = is_asked[:, None].astype(np.float32)
    tones = drafts.following.landing[:, position.BEAT + 1 : position.BEAT + 13]
    sounds = tones.any(axis=1, keepdims=True)
    tones_pull = asked * sounds * CHORD_WEIGHT * CHORD_PULL * (tones[:, PITCH % 12] - 0.5)
    return tones_pull + np.float32(ROOT_PULL) * (1 + asked) * is_root


RETURN_SHIFT, RETURN_PITCH = np.float32(2.25), np.float32(3.0)
"""Nats for shifts and keys that a section had at the same place when it was heard before, with ``Wish.returns`` as it
is if nobody asks: pieces then return to themselves about as real ones do (benchmarks/recipe.md)."""


def returns_in_rhythm(drafts: Drafts, note: Ints) -> Nats:
    """A section that was heard before has its rhythm again."""
    if not drafts.following:
        return NOTHING
    returning = drafts.following.returning_shifts(drafts.onset_ms, drafts.length)
    return NOTHING if returning is None else RETURN_SHIFT * _returns(drafts) * returning


def returns_in_pitch(drafts: Drafts, note: Ints) -> Nats:
    """A section that was heard before has its notes again."""
    if not drafts.following:
        return NOTHING
    returning = drafts.following.returning_pitches(drafts.notes, drafts.length)
    return NOTHING if returning is None else RETURN_PITCH * _returns(drafts) * returning


COPIED = np.float32(-100)
"""Nats for a key that would complete a copy: it is drawn only where nothing else can be."""


def copies_no_song(drafts: Drafts, note: Ints) -> Nats:
    """No run of notes is completed that a training song has."""
    first = drafts.length - originality.NOTES + 1
    if drafts.known is None or first < 1:  # note 0 is the silence before the piece
        return NOTHING
    pitch = drafts.notes[:, first : drafts.length, COLUMN.pitch].astype(np.int64)
    return COPIED * drafts.known.knows(pitch)


def _landing_ms(drafts: Drafts, note: Ints) -> Ints:
    """When the note being drawn is struck (B,)."""
    landing: Ints = drafts.onset_ms + SHIFT_MS[note[:, COLUMN.shift]]
    return landing


def _asks_for_chords(drafts: Drafts) -> npt.NDArray[np.bool_]:
    """Of which drafts (B,) the chords were given."""
    return np.array([bool(wish.chords) or wish.chart is not None for wish in drafts.steering.wishes], dtype=bool)


def _returns(drafts: Drafts) -> Nats:
    """How strongly the themes of each draft return (B, 1), 1 as a rule."""
    return np.array([wish.returns for wish in drafts.steering.wishes], dtype=np.float32)[:, None] / RETURNS


LIKE_NATS, LEAST_AMOUNT = np.float32(2.0), 0.02
"""Nats for what the music has that a draft resembles, at an amount of one half; at 1 none, towards 0 many."""


def like_in_rhythm(drafts: Drafts, note: Ints) -> Nats:
    """Where a draft resembles other music, the next onset falls where the next one of that music does."""
    return _like(drafts, note, COLUMN.shift)


def like_in_pitch(drafts: Drafts, note: Ints) -> Nats:
    """The same for its keys."""
    return _like(drafts, note, COLUMN.pitch)


def like_in_velocity(drafts: Drafts, note: Ints) -> Nats:
    """The same for how loud they are."""
    return _like(drafts, note, COLUMN.velocity)


def like_in_duration(drafts: Drafts, note: Ints) -> Nats:
    """The same for how long they last."""
    return _like(drafts, note, COLUMN.duration)


def _like(drafts: Drafts, note: Ints, family: int) -> Nats:
    """What draws a family towards the music that drafts resemble."""
    wishes = drafts.steering.wishes
    if all(wish.like is None for wish in wishes):
        return NOTHING
    pull = np.zeros((len(drafts), SIZES[family]), dtype=np.float32)
    landing_ms = _landing_ms(drafts, note)
    for row, wish in enumerate(wishes):
        if wish.like is not None:
            ids = resembled(
                wish.like, family, int(drafts.onset_ms[row]), int(landing_ms[row]), drafts.pitch[row], note[row]
            )
            pull[row, ids] = LIKE_NATS * (1 / max(wish.amount, LEAST_AMOUNT) - 1)
    return pull


def resembled(like: Piece, family: int, onset_ms: int, landing_ms: int, last: int, note: Ints) -> Ints:
    """The ids of a family with which a note would be as in other music.

    Args:
        onset_ms: of the note before, whose key is ``last``, as an id.
        landing_ms: of this one.
        note: its ids (4,) so far.
    """
    at = slice(*np.searchsorted(like.onset_ms, (landing_ms - CHORD_MS, landing_ms + CHORD_MS + 1)).tolist())
    here = like.pitch[at] - LOWEST_KEY
    if family == COLUMN.shift:
        if last < NO_NOTE[COLUMN.pitch] and (here > last).any():  # its chord is not complete; nothing is drawn yet
            return np.zeros(1, dtype=np.int64)
        after = like.onset_ms[np.searchsorted(like.onset_ms, onset_ms + CHORD_MS, side="right") :]
        return nearest(SHIFT_MS, after[:1] - onset_ms)
    if family == COLUMN.pitch:
        above = here[here > last] if note[COLUMN.shift] == 0 and last < NO_NOTE[COLUMN.pitch] else here
        return above[:1] if len(above) == 0 else np.array([above.min()])
    same = np.flatnonzero(here == note[COLUMN.pitch]) + at.start
    if family == COLUMN.velocity:
        return like.velocity[same] // VELOCITY_STEP
    return nearest(DURATION_MS, like.duration_ms[same])


def leaves_given_keys(drafts: Drafts, note: Ints) -> Nats:
    """Keys that the opening still holds are left alone."""
    return COPIED * (drafts.given_ms > _landing_ms(drafts, note)[:, None]) if drafts.given_ms.any() else NOTHING


RULES: tuple[tuple[Rule, ...], ...] = (
    (
        begins_soon,
        pauses_briefly,
        ends_soon_after_its_last_note,
        strikes_at_markers,
        leaves_the_highest_key,
        takes_its_time,
        towards_density,
        returns_in_rhythm,
        like_in_rhythm,
    ),  # shift
    (
        rises_in_a_chord,
        towards_harmony,
        plays_the_chord,
        returns_in_pitch,
        copies_no_song,
        like_in_pitch,
        leaves_given_keys,
    ),  # pitch
    (strikes_markers_hard, like_in_velocity),  # velocity
    (is_released_in_time, is_released_with_its_chord, like_in_duration),  # duration
)
"""The rules of each family, in the order of ``tokens.FAMILIES``."""
