"""Steering: the plan of each passage, and what the passage lacks of it so far.

Each passage of a piece follows the plan (see ``music.plan``) of a real clip that is typical of the emotion. The model
only leans towards its plan. So every few notes the passage is measured: what it lacks is added to the plan that the
model receives, and two rules act on the logits directly (``rules.towards_density``,
``rules.towards_harmony``). The figures behind this are in benchmarks/recipe.md, "How pieces are drawn".

Shapes: B drafts, P plan entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from emogen.composing import feelings
from emogen.composing.wish import Wish
from emogen.emotion import EMOTIONS
from emogen.music.notes import Ints
from emogen.music.plan import ENTRIES, HARMONY, Plans, PlanTable, Typical, measure
from emogen.music.songbook import Progression
from emogen.music.tokens import COLUMN, Tokens

PLAN_S = 40.0
"""How long a plan holds; after it another plan of the emotion is drawn, but the harmony stays. Chosen without
comparison; the clips of EMOPIA, on which plans are measured, last 36 s on average."""
NEAREST = 8
"""Where the mode is given, the plan is one of this number whose own mode is nearest. Chosen without comparison."""
MODE = ENTRIES.index("mode")
CORRECT_NOTES = 8
"""Notes from one measurement of the passage to the next. Chosen without comparison."""
GAIN = 3.0
"""How much of what a passage lacks is added to its plan, once there are many notes. With half of it, and with plans of
any clip of the emotion, the judge heard the intended quadrant in .59 of the pieces; with this and typical plans in .78
(rows 1 and 2 of the recipe's table)."""
TRUST_NOTES = 32
"""Notes after which half of GAIN is added: a few notes say little of a passage. Chosen without comparison."""
LACK_SDS = 3.0
"""The largest lack that counts, in SDs of the corpus: beyond it, plans are unlike any that the model has seen."""


ANY = Typical(np.zeros(1, dtype=np.int64), np.full((1, len(ENTRIES)), np.nan, dtype=np.float32))
"""The plan of an emotion of which none are known: all open."""


class Source(NamedTuple):
    """A real clip after which a theme goes."""

    plan: Plans
    """(P,), standardised."""
    progression: Progression | None
    """Its bars, where they are known."""


class Steering:
    """The plans of B drafts. Rows leave when a draft is done."""

    BY_ROW = ("emotion", "planned", "plan", "lack", "begins", "until_ms", "step", "theme", "heard_from")
    """The arrays with a row per draft."""

    def __init__(self, wishes: Sequence[Wish], plans: PlanTable, charted: bool = False) -> None:
        """With ``charted`` the harmony is left to charts, and plans are those of clips whose bars are known."""
        rows = len(wishes)
        self.wishes, self.plans, self.typical = list(wishes), plans, plans.typical()
        self.charted = charted
        self.steps = [wish.steps for wish in wishes]
        self.themes = [feelings.themes(wish.path) for wish in wishes]
        self.drawn: list[dict[int, Plans]] = [{} for _ in wishes]
        """The plan (P,) of each draft's themes at present, standardised."""
        self.sources: list[dict[int, Source]] = [{} for _ in wishes]
        """The clips whose plans the themes of each draft had first."""
        self.emotion = np.zeros((rows, len(EMOTIONS)), dtype=np.float32)
        """The emotion (B, E) of the present step as the model takes it."""
        self.planned: Plans = np.zeros((rows, len(ENTRIES)), dtype=np.float32)
        """The plan (B, P) of the present step, standardised; NaN is left open."""
        self.plan = self.planned.copy()
        """The plan (B, P) that the model receives: ``planned`` plus ``lack``."""
        self.lack = self.planned.copy()
        """What the passage lacks of its plan (B, P), in SDs times the gain; 0 where the plan is open."""
        self.begins = np.ones(rows, dtype=np.int64)
        """The step's first note (B,); note 0 is the silence before the piece."""
        self.until_ms = np.zeros(rows)
        """When the plan is renewed (B,)."""
        self.step = np.full(rows, -1)
        """The number of the present step (B,)."""
        self.theme = np.full(rows, -1)
        """The theme (B,) that has the greatest share in it."""
        self.heard_from = np.zeros(rows, dtype=np.int64)
        """The first note (B,) that the network remembers: the last one before another feeling took over. Remembering
        all, it would go on as before (benchmarks/recipe.md, "Passages")."""

    def keep(self, rows: Ints) -> None:
        """Keep only some of the drafts (indices)."""
        for name in self.BY_ROW:
            setattr(self, name, getattr(self, name)[rows])
        self.wishes = [self.wishes[row] for row in rows]
        for name in ("steps", "themes", "drawn", "sources"):
            setattr(self, name, [getattr(self, name)[row] for row in rows])

    def renew(self, onset_ms: Ints, length: int, rngs: Sequence[np.random.Generator]) -> None:
        """A plan for each draft whose time is over, after ``length`` notes, the last of them at ``onset_ms`` (B,).

        Where one theme goes on for longer than PLAN_S, its plan is drawn again.
        """
        for row in np.flatnonzero(onset_ms >= self.until_ms).tolist():
            wish, steps, themes, drawn = self.wishes[row], self.steps[row], self.themes[row], self.drawn[row]
            over = [number for number, step in enumerate(steps) if step.until_s * 1000 <= onset_ms[row]]
            number = min(len(over), len(steps) - 1)
            shares = steps[number].shares
            if not drawn:
                for theme in dict.fromkeys(themes):
                    drawn[theme], progression = self._drawn(wish, wish.path[theme].emotion, rngs[row])
                    self.sources[row][theme] = Source(drawn[theme], progression)
            elif number == self.step[row]:
                for theme in dict.fromkeys(themes[passage] for passage in shares):
                    drawn[theme] = self._drawn(wish, wish.path[theme].emotion, rngs[row])[0]
            now = {themes[passage]: share for passage, share in shares.items()}
            self._follow(row, now)
            theme = max(now, key=lambda one: now[one])
            if self.theme[row] not in (-1, theme):
                self.heard_from[row] = length - 1
            self.step[row], self.theme[row] = number, theme
            self.begins[row] = length
            last = number == len(steps) - 1
            ends_ms = np.inf if last else steps[number].until_s * 1000
            self.until_ms[row] = min(ends_ms, onset_ms[row] + PLAN_S * 1000)

    def _follow(self, row: int, shares: dict[int, float]) -> None:
        """Let a draft follow the plans and emotions of its themes, each in its share."""
        wish = self.wishes[row]
        plan = sum((share * self.drawn[row][theme] for theme, share in shares.items()), np.float32(0))
        plan = np.asarray(plan, dtype=np.float32)
        plan[HARMONY] = np.nan if self.charted else self.sources[row][0].plan[HARMONY]  # a piece stays in its key
        if self.charted and (wish.chords or wish.chart is not None):  # which have a mode already
            plan[MODE] = np.nan
        self.planned[row] = self.plan[row] = plan
        self.lack[row] = 0
        self.emotion[row] = [
            sum(share * wish.path[theme].emotion.get(name, 0) for theme, share in shares.items()) for name in EMOTIONS
        ]

    def _drawn(
        self, wish: Wish, emotion: Mapping[str, float], rng: np.random.Generator
    ) -> tuple[Plans, Progression | None]:
        """A plan (P,) typical of an emotion, with what the wish gives in its place; and its clip's bars."""
        name = str(rng.choice(list(emotion), p=list(emotion.values())))
        bars = self.plans.progressions.get(name, ())
        rows, typical = self.typical.get(name, ANY)
        if self.charted and bars and (known := [at for at, row in enumerate(rows.tolist()) if bars[row]]):
            rows, typical = rows[known], typical[known]
        pins = np.array([wish.pins.get(entry, np.nan) for entry in ENTRIES])
        pinned = self.plans.standardise(pins)
        if "mode" in wish.pins:  # with a harmony that has it
            mode = ENTRIES.index("mode")
            near = np.abs(typical[:, mode] - pinned[mode]).argsort()[:NEAREST]
            typical, rows = typical[near], rows[near]
        drawn = int(rng.integers(len(typical)))
        plan = np.where(np.isnan(pins), typical[drawn], pinned)
        source = bars[rows[drawn]] if bars else None
        return (plan if wish.tonic is None else self.plans.moved_to(wish.tonic, plan)), source

    def correct(self, notes: Tokens, held: npt.NDArray[np.uint8], length: int) -> None:
        """Measure the passages and correct their plans; the longer a passage, the more of its lack counts.

        Args:
            notes: the drafts' notes (B, room, 4), of which ``length`` are drawn.
            held: their durations (B, room), as ids, where striking a key again has ended a note early.
        """
        played = length - self.begins
        if played.max() < 1 or length % CORRECT_NOTES:
            return
        window = self.begins[:, None] + np.arange(played.max())
        passage = np.arange(len(notes))[:, None], np.minimum(window, length - 1)
        sounding = notes[passage]
        sounding[..., COLUMN.duration] = held[passage]
        measured = self.plans.standardise(measure(sounding, np.maximum(played, 1)))
        gain = (GAIN * played / (played + TRUST_NOTES)).astype(np.float32)[:, None]
        self.lack = np.nan_to_num(gain * np.clip(self.planned - measured, -LACK_SDS, LACK_SDS))
        self.plan = self.planned + self.lack
