from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emogen.composing import originality
from emogen.composing.drafts import Drafts
from emogen.composing.generate import generate
from emogen.composing.originality import FILE, NOTES, Originality
from emogen.composing.rules import copies_no_song
from emogen.composing.wish import Wish
from emogen.errors import EmogenError
from emogen.music.tokens import COLUMN, encode
from emogen.settings import SampleSettings
from tests import tiny
from tests.drafting import PLANS, drawn
from tests.music import random_tokens

BITS = 100_000


def song(notes: int = 60, seed: int = 0) -> np.ndarray:
    return random_tokens(np.random.default_rng(seed), notes)


def test_each_run_of_a_song_is_known_in_every_key_and_rhythm() -> None:
    notes = song()
    notes[:, COLUMN.pitch] = 20 + notes[:, COLUMN.pitch] % 40
    known = Originality.of([notes], BITS)
    pitch = notes[:, COLUMN.pitch].astype(np.int64)
    for key in (-7, 0, 11):
        before = np.lib.stride_tricks.sliding_window_view(pitch + key, NOTES - 1)[:-1]
        completes = known.knows(before)
        assert completes[np.arange(len(before)), pitch[NOTES - 1 :] + key].all()
        assert completes.mean() < 0.02  # the one key, and chance


def test_a_shorter_run_and_another_one_are_not_known() -> None:
    notes = song()
    known = Originality.of([notes], BITS)
    pitch = notes[: NOTES - 1, COLUMN.pitch].astype(np.int64)[None].copy()
    pitch[0, 0] = (pitch[0, 0] + 1) % 88  # nineteen notes agree
    assert not known.knows(pitch)[0, notes[NOTES - 1, COLUMN.pitch]]
    assert not Originality.of([notes[: NOTES - 1]], BITS).bits.any()
    assert not Originality.of([], BITS).bits.any()


def test_a_piece_that_would_copy_a_song_leaves_it_after_nineteen_notes() -> None:
    """The song is a piece that the same network composes with the same seed: unhindered, it would be drawn again."""
    network, wishes, sample = tiny.in_numpy(tiny.composer()), [Wish({"happy": 1.0}, 20, 1, {})], SampleSettings()
    (piece,) = generate(network, PLANS, wishes, sample)
    training = encode(piece)
    known = Originality.of([training], BITS)
    (other,) = generate(network, PLANS, wishes, sample, known=known)
    notes = encode(other)
    pitch = notes[:, COLUMN.pitch].astype(np.int64)
    assert pitch[: NOTES - 1].tolist() == training[: NOTES - 1, COLUMN.pitch].tolist()
    runs = np.lib.stride_tricks.sliding_window_view(np.diff(pitch), NOTES - 1)
    theirs = np.lib.stride_tricks.sliding_window_view(np.diff(training[:, COLUMN.pitch].astype(np.int64)), NOTES - 1)
    assert not (runs[:, None] == theirs).all(-1).any()


def test_without_a_filter_or_with_few_notes_nothing_is_forbidden() -> None:
    drafts = Drafts([Wish({"happy": 1.0}, 20, 1, {})], PLANS)
    assert not copies_no_song(drafts, drawn(0)).any()
    drafts.known = Originality(np.full(10, 255, dtype=np.uint8))  # takes everything for known
    assert not copies_no_song(drafts, drawn(0)).any()
    for pitch in range(NOTES - 1):
        drafts.add(np.array([[5, pitch, 16, 40]]), np.array([50]))
    nats = copies_no_song(drafts, drawn(0))
    assert (nats == -100).all()
    assert np.isfinite(nats).all()  # something can always be drawn


def test_it_is_kept_beside_the_weights(tmp_path: Path) -> None:
    known = Originality.of([song()], BITS)
    assert Originality.beside(tmp_path) is None
    known.save(tmp_path / FILE)
    found = Originality.beside(tmp_path)
    assert found is not None
    assert np.array_equal(found.bits, known.bits)


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"\0" * 5000])
def test_a_damaged_filter_is_refused_in_one_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(EmogenError, match="cannot be used") as refused:
        Originality.beside(tmp_path)
    assert refused.value.hint


def test_the_bundled_voice_has_its_songs() -> None:
    from emogen.model.checkpoint import VOICE

    known = Originality.beside(VOICE)
    assert known is not None
    assert len(known.bits) < 6e6
    assert 0.05 < np.unpackbits(known.bits).mean() < 0.5
    random = np.random.default_rng(0).integers(0, 88, (1000, originality.NOTES - 1))
    assert known.knows(random).mean() < 0.002
