"""The yardstick: the same measures of any systems' pieces, beside real clips, with what a disturbance does to each.

Every row is the mean of a number that each piece has, each quadrant counting the same, with its 95 % interval by
bootstrap over songs; so rows of two systems can be subtracted, piece by piece where their files have the same names.
What pieces are compared with are the test clips of a prepared corpus. No model is known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from emogen import __version__
from emogen.data.corpus import Corpus
from emogen.data.shared_runs import Memory
from emogen.ear import craft
from emogen.ear.fitted import BUNDLED, Ear
from emogen.errors import EmogenError
from emogen.evaluation.apart import told_apart
from emogen.evaluation.rows import ROWS, Measured, coherences, facts_of, features, measure_system, shared_out
from emogen.evaluation.sections import DRAWS, MEASURES, Heard, Report, diversity, overlap
from emogen.evaluation.systems import TEST, System, by_chance, clips
from emogen.music.notes import Floats, Piece
from emogen.music.tokens import encode
from emogen.system.files import checksum

LABELLED = ("quadrant", "arousal", "valence", "second_quadrant", "second_arousal", "second_valence")
"""The rows that shuffled labels should hurt."""
APART_BY = "shuffled"
"""The disturbance of real clips that should be told apart from real clips."""


def compare(
    systems: Sequence[System],
    corpus: Corpus,
    ear: Ear,
    seconds: float,
    tell: Callable[[float], None] = lambda share: None,
) -> Report:
    """Everything that can be said of systems beside the corpus's test clips; plain numbers, ready for JSON.

    Raises:
        EmogenError: the corpus has no labelled test clips.
    """
    real, others = (clips(name, corpus, split, seconds) for name, split in ((TEST, "test"), ("", "valid")))
    if not len(real):
        hint = "prepare EMOPIA, or choose --data"
        raise EmogenError(f"{corpus.manifest.name} has no labelled test clips to compare with", hint)
    wrecks = [craft.disturbed(piece, APART_BY) for piece in real.heard.pieces]
    groups = [real.heard.pieces, *(system.heard.pieces for system in systems), others.heard.pieces, wrecks]
    *found, of_others, of_wrecks = facts_of(groups, tell)
    memory, scores = Memory.training(corpus), coherences(ear, found[0])
    measured = [
        measure_system(system, facts, corpus, ear, memory, scores, seconds)
        for system, facts in zip((real, *systems), found, strict=True)
    ]
    described = {one.system.name: _described(one, measured[0]) for one in measured}
    broken = replace(
        real, heard=Heard(wrecks, [encode(piece) for piece in wrecks], real.heard.emotion, real.heard.song)
    )
    shuffled, chance = (
        measure_system(system, facts, corpus, ear, memory, scores, seconds)
        for system, facts in ((broken, of_wrecks), (by_chance(real), found[0]))
    )
    disturbed = _disturbed(measured[0], shuffled, chance)
    if len(others):
        unlike = features(of_others), others.songs
        described[TEST]["told_apart"] = told_apart(measured[0].features, unlike[0], real.songs, unlike[1])
        apart = told_apart(features(of_wrecks), unlike[0], real.songs, unlike[1])
        disturbed["told_apart"] = {"by": APART_BY, **apart}
    return {
        "emogen": __version__,
        "data": {name: getattr(corpus.manifest, name) for name in ("name", "fingerprint", "settings")},
        "judges": {
            "first": ear.scores._asdict(),
            "second": ear.second_scores._asdict(),
            "coherence": ear.coherence.aucs,
            "file": checksum(BUNDLED),
        },
        "seconds": seconds,
        "systems": described,
        "disturbed": disturbed,
        "differences": [_difference(one, other) for one, other in combinations(measured, 2)],
    }


def _described(one: Measured, real: Measured) -> Report:
    """A system's numbers; of the real one without ``told_apart``, for which others are needed."""
    system, quadrant = one.system, one.system.heard.quadrant
    mean, drawn = bootstrapped(one.values, one.weight, system.songs, seed=0)
    audible, real_audible = (~np.isnan(some.points[:, 0]) for some in (one, real))
    ratios = diversity(
        one.points[audible], quadrant[audible], real.points[real_audible], real.system.heard.quadrant[real_audible]
    )
    confusion = np.zeros((2, 4, 4), dtype=int)
    for judge in (0, 1):
        np.add.at(confusion[judge], (quadrant - 1, one.heard[judge] - 1), 1)
    found: Report = {
        "folder": system.folder,
        "pieces": len(system),
        "songs": len(set(system.songs)),
        "quadrants": system.quadrants,
        "left_out": [list(each) for each in system.left_out],
        "remarks": list(system.remarks),
        "rows": {row.name: _interval(mean[at], drawn[:, at], one.values[:, at]) for at, row in enumerate(ROWS)},
        "files": system.files,
        "values": {row.name: list(map(_number, one.values[:, at].tolist())) for at, row in enumerate(ROWS)},
        "overlap": {
            row.name: _overlap(one.values[:, at], real.values[:, at])
            for at, row in enumerate(ROWS)
            if row.name in (*craft.NAMES, *MEASURES)
        },
        "confusion": confusion[0].tolist(),
        "confusion_of_second": confusion[1].tolist(),
        "variety": {f"Q{label}": ratio for label, ratio in ratios.items()},
        "longest_run": one.longest[0],
        "longest_run_from": one.longest[1],
    }
    found["told_apart"] = None
    if one is not real:
        found["told_apart"] = told_apart(one.features, real.features, system.songs, real.system.songs)
    return found


def _overlap(one: Floats, real: Floats) -> float | None:
    """Of two distributions, where both are more than nothing."""
    one, real = one[~np.isnan(one)], real[~np.isnan(real)]
    return overlap(one, real) if len(one) and len(real) else None


def bootstrapped(values: Floats, weight: Floats, songs: Sequence[str], seed: int) -> tuple[Floats, Floats]:
    """Weighted means (K,) of values (N, K) without their NaNs, and those of samples of whole songs (DRAWS, K)."""
    place = np.unique(songs, return_inverse=True)[1]
    count = int(place.max()) + 1
    there = ~np.isnan(values)
    sums, sizes = np.zeros((2, count, values.shape[1]))
    np.add.at(sums, place, np.where(there, values, 0) * weight[:, None])
    np.add.at(sizes, place, there * weight[:, None])
    drawn = np.zeros((DRAWS, count))
    np.add.at(drawn, (np.arange(DRAWS)[:, None], np.random.default_rng(seed).integers(0, count, (DRAWS, count))), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums.sum(0) / sizes.sum(0), (drawn @ sums) / (drawn @ sizes)


def _interval(mean: float, drawn: Floats, values: Floats) -> Report | None:
    """A mean with its 95 % interval; None where no piece has such a number."""
    count = int((~np.isnan(values)).sum())
    if not count:
        return None
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return {"mean": float(mean), "low": float(low), "high": float(high), "count": count}


PAIRED = 0.9
"""Files of the same names are compared piece by piece where they are at least this share of either system."""


def _difference(one: Measured, other: Measured) -> Report:
    """The first less the second, row by row; paired by the names of files where they are mostly the same."""
    places = {name: at for at, name in enumerate(other.system.files)}
    pairs = [(at, places[name]) for at, name in enumerate(one.system.files) if name in places]
    paired = len(pairs) >= PAIRED * max(len(one.system), len(other.system))
    if paired:
        mine, theirs = np.array(pairs).T
        values = one.values[mine] - other.values[theirs]
        songs = [one.system.songs[at] for at in mine]
        mean, drawn = bootstrapped(values, one.weight[mine], songs, seed=0)
    else:
        (mean, drawn), (less, lesser) = (
            bootstrapped(some.values, some.weight, some.system.songs, seed=seed)
            for seed, some in enumerate((one, other), 1)
        )
        values = np.where(np.isnan(mean - less), np.nan, 0.0)[None]
        mean, drawn = mean - less, drawn - lesser
    rows = {}
    for at, row in enumerate(ROWS):
        found = _interval(mean[at], drawn[:, at], values[:, at])
        rows[row.name] = found and {name: found[name] for name in ("mean", "low", "high")}
    return {"one": one.system.name, "other": other.system.name, "paired": paired, "rows": rows}


def _disturbed(real: Measured, shuffled: Measured, chance: Measured) -> Report:
    """What real clips give after the disturbance that should hurt each row, and how many standard errors it moves.

    ``shuffled`` are the clips with their pitches in random order, ``chance`` with their labels.
    """
    names = [row.name for row in ROWS]
    how = dict.fromkeys(LABELLED, "labels") | dict.fromkeys(("coherence", "repetition"), APART_BY)
    how |= {name: craft.DISTURBED[craft.KIND[name]] for name in craft.NAMES}
    after = np.where([name in LABELLED for name in names], chance.values, shuffled.values)
    after[:, [names.index(name) for name in craft.NAMES]] = shared_out(_after_disturbances, real.system.heard.pieces)
    mean, drawn = bootstrapped(np.hstack([after, after - real.values]), real.weight, real.system.songs, seed=0)
    moved, again = np.split(mean, 2)[1], np.split(drawn, 2, axis=1)[1]
    return {
        name: {
            "by": how[name],
            "mean": float(mean[at]),
            "errors": float(moved[at] / max(np.nanstd(again[:, at]), 1e-12)),
        }
        for at, name in enumerate(names)
        if name in how and not np.isnan(moved[at])
    }


def _after_disturbances(pieces: Sequence[Piece]) -> list[list[float]]:
    """The measures of craft of each piece, each after its disturbance."""
    rows = []
    for piece in pieces:
        found = {kind: craft.of_kind(craft.disturbed(piece, how), kind) for kind, how in craft.DISTURBED.items()}
        rows.append([value for kind in craft.DISTURBED for value in found[kind]])
    return rows


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
