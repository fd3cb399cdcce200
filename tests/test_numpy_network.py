"""NumPy's network beside PyTorch's."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from emogen.composing.generate import generate
from emogen.composing.wish import Wish
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.model import checkpoint, opening
from emogen.model.growing import Reader
from emogen.model.network import Composer
from emogen.model.numpy_growing import READ_AT_ONCE, NumpyReader, gelu, softmax
from emogen.model.numpy_network import NumpyComposer
from emogen.model.opening import open_in_torch, open_network
from emogen.music import position, recall, relative
from emogen.music.plan import ENTRIES
from emogen.music.tokens import COLUMN, NO_NOTE, SIZES, Tokens
from emogen.settings import SampleSettings
from tests import tiny

B, T = 3, 90
SETTINGS = tiny.SETTINGS.model_copy(update={"context_notes": 96})

Conditions = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def model() -> Composer:
    return tiny.composer(SETTINGS)


def random_notes() -> Tokens:
    """(B, T, 4), the first of each piece being the silence before it."""
    rng = np.random.default_rng(0)
    notes = np.stack([rng.integers(0, size, (B, T)) for size in (60, *SIZES[1:])], axis=-1)
    notes[:, 0] = NO_NOTE
    return notes.astype(np.uint8)


def random_conditions() -> Conditions:
    """Emotion (B, E), plan (B, P) of which some is not known, and time remaining (B, T)."""
    rng = np.random.default_rng(1)
    plan = rng.normal(size=(B, len(ENTRIES)))
    plan[0], plan[1, 3:7] = np.nan, np.nan
    parts = rng.random((B, len(EMOTIONS))), plan, np.linspace(50, -0.5, T)[None].repeat(B, 0)
    return parts[0].astype(np.float32), parts[1].astype(np.float32), parts[2].astype(np.float32)


def both(model: Composer, rows: int = B) -> tuple[Reader, NumpyReader]:
    return Reader(model, rows), NumpyReader(tiny.in_numpy(model), rows)


def expectations(reader: Reader | NumpyReader, rows: int = B) -> list[npt.NDArray[np.float32]]:
    """The logits of all families of the next note, some ids being drawn."""
    found = []
    for family in range(4):
        found.append(reader.logits(family))
        if family < 3:
            reader.see(family, np.arange(rows) + 5)
    return found


def check_same(readers: tuple[Reader, NumpyReader], rows: int = B) -> None:
    torchs, numpys = readers
    assert torchs.room == numpys.room
    for one, other in zip(expectations(torchs, rows), expectations(numpys, rows), strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(other, one, atol=1e-4)
        assert np.ptp(one) > 0.5


@pytest.mark.parametrize(
    "parts", [[1] * T, [T], [7, 45, 38], [40, *[1] * 50]], ids=lambda parts: f"{len(parts)} parts"
)  # of more notes than are read at once, and fewer
def test_numpy_expects_what_torch_expects(parts: list[int], model: Composer) -> None:
    assert READ_AT_ONCE < T
    notes, (emotion, plan, remaining_s) = random_notes(), random_conditions()
    readers, at = both(model), 0
    for length in parts:
        some = slice(at, at + length)
        for reader in readers:
            reader.read(notes[:, some], emotion, plan, remaining_s[:, some])
        at += length
    check_same(readers)


def test_both_forget_pieces_and_notes_alike(model: Composer) -> None:
    notes, (emotion, plan, remaining_s) = random_notes(), random_conditions()
    readers, rows = both(model), np.array([0, 2])
    for reader in readers:
        reader.read(notes[:, :50], emotion, plan, remaining_s[:, :50])
        reader.keep(rows)
    check_same(readers, 2)
    for reader in readers:
        reader.read(notes[rows, 50:60], emotion[rows], plan[rows], remaining_s[rows, 50:60])
    check_same(readers, 2)
    for reader in readers:
        reader.clear()
        assert reader.room == SETTINGS.context_notes
        reader.read(notes[rows, 40:70], emotion[rows], plan[rows], remaining_s[rows, 40:70])
    check_same(readers, 2)


def test_a_piece_composed_in_numpy_is_the_one_composed_in_torch(model: Composer) -> None:
    wishes = [Wish({"happy": 1.0}, 40, 1, {}), Wish({"sad": 1.0}, 14, 2, {"density": 1.5})]
    sample = SampleSettings(guidance=1.5)

    pieces = [generate(network, tiny.plans(), wishes, sample) for network in (tiny.in_numpy(model), model)]
    assert max(map(len, pieces[0])) > SETTINGS.context_notes
    for one, other in zip(*pieces, strict=True):
        assert np.array_equal(one.onset_ms, other.onset_ms)
        assert np.array_equal(one.pitch, other.pitch)
        assert np.array_equal(one.duration_ms, other.duration_ms)


def test_the_error_function_is_close() -> None:
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    assert gelu(x) == pytest.approx(F.gelu(torch.from_numpy(x)).numpy(), abs=3e-6)


def without(name: str) -> Callable[[dict[str, npt.NDArray[np.float32]]], object]:
    return lambda weights: weights.pop(name)


@pytest.mark.parametrize(
    "change",
    [
        without("blocks.1.up.weight"),
        without("gains.bias"),
        lambda weights: weights.update({"blocks.2.up.weight": weights["blocks.1.up.weight"]}),
        lambda weights: weights.update({"blocks.1.down.weight": weights["blocks.1.up.weight"]}),
        lambda weights: weights.update({"embed.1.weight": weights["embed.1.weight"][:-1]}),
        lambda weights: weights.update({"seen.1.weight": weights["seen.1.weight"][:-9]}),
        lambda weights: weights.update({"plan.weight": weights["plan.weight"][:, :-4]}),
        lambda weights: weights.update({"logits.2.bias": weights["logits.2.bias"][:1]}),
        lambda weights: weights.update({"enter.weight": np.float32(1).reshape(())}),
    ],
)
def test_weights_of_another_network_are_refused(
    change: Callable[[dict[str, npt.NDArray[np.float32]]], object], model: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    NumpyComposer(SETTINGS, weights)
    change(weights)
    monkeypatch.setattr(checkpoint, "load_arrays", lambda path: weights)
    meta = tiny.meta(model)
    with pytest.raises(EmogenError, match="do not fit this emogen's network"):
        checkpoint.load_numpy(Path("some"), meta)


def test_weights_that_are_no_numbers_are_noticed(model: Composer) -> None:
    weights = {name: weight.numpy().copy() for name, weight in model.state_dict().items()}
    assert NumpyComposer(SETTINGS, weights).is_finite()
    weights["gains.weight"][3, 3] = math.inf
    assert not NumpyComposer(SETTINGS, weights).is_finite()


def test_the_command_composes_without_importing_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from emogen.cli import main; sys.argv = ['emogen', *sys.argv[1:]]\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)"
    )
    words = ["generate", "-e", "calm", "-s", "5", "--checkpoint", str(tiny.save(tmp_path)), "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "False"), done.stderr
    assert list(tmp_path.glob("*.mid"))


def test_both_are_opened_with_the_same_weights(tmp_path: Path) -> None:
    path = tiny.save(tmp_path)
    meta = checkpoint.read_meta(path)
    opened = open_network(path, meta)
    assert isinstance(opened, NumpyComposer)
    readers = Reader(open_in_torch(path, meta, "cpu"), B), NumpyReader(opened, B)
    notes, (emotion, plan, remaining_s) = random_notes()[:, :20], random_conditions()
    for reader in readers:
        reader.read(notes, emotion, plan, remaining_s[:, :20])
    check_same(readers)


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_a_cpu_composes_in_numpy(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "pick_device", lambda name: torch.device("cpu"))
    path = tiny.save(tmp_path)
    assert isinstance(open_network(path, checkpoint.read_meta(path), device), NumpyComposer)


def test_any_other_device_composes_in_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "pick_device", lambda name: torch.device("meta"))  # the only other one there
    path = tiny.save(tmp_path)
    opened = open_network(path, checkpoint.read_meta(path), "cuda")
    assert isinstance(opened, Composer)
    assert not opened.training


CHARTED = SETTINGS.model_copy(update={"chart": True})


class Told(NamedTuple):
    """Random things that a chart and an earlier match may say of B pieces of T notes."""

    place: npt.NDArray[np.float32]
    followed: npt.NDArray[np.uint8]
    landing: npt.NDArray[np.float32]
    bins: npt.NDArray[np.uint8]
    references: npt.NDArray[np.uint8]


def told(seed: int = 0) -> Told:
    rng = np.random.default_rng(seed)
    place, landing = rng.normal(size=(2, B, T, position.WIDTH)).astype(np.float32)
    followed = rng.integers(0, (*(size + 1 for size in SIZES), recall.BUCKETS), (B, T, 5))
    followed[followed[..., 4] == 0, :4] = NO_NOTE
    bins = rng.integers(0, position.UNKNOWN + 1, (B, T, SIZES[0]))
    references = rng.integers(0, (*3 * [relative.KEYS + 1], relative.NO_ROOT + 1), (B, T, 4))
    return Told(place, followed.astype(np.uint8), landing, bins.astype(np.uint8), references.astype(np.uint8))


def test_numpy_expects_what_torch_expects_of_a_charted_piece() -> None:
    """Read in parts, every family and every piece; and each thing that is told makes a difference."""
    model = tiny.composer(CHARTED)
    notes, (emotion, plan, remaining_s) = random_notes(), random_conditions()
    readers = both(model)

    def logits(reader: Reader | NumpyReader, say: Told) -> list[npt.NDArray[np.float32]]:
        reader.clear()
        for part in (slice(0, 60), *(slice(at, at + 1) for at in range(60, T))):
            left = remaining_s[:, part]
            reader.read(notes[:, part], emotion, plan, left, say.place[:, part], say.followed[:, part])
        found = []
        for family, which in enumerate((say.bins[:, -1], say.references[:, -1], None, None)):
            found.append(reader.logits(family, which))
            if family < 3:
                reader.see(family, np.arange(B) + 5, None if family else say.landing[:, -1])
        return found

    say = told()
    torch_logits, numpy_logits = (logits(reader, say) for reader in readers)
    for one, other in zip(torch_logits, numpy_logits, strict=True):
        assert np.allclose(one, other, rtol=1e-3, atol=3e-3)
    for name, values in told(1)._asdict().items():
        changed = logits(readers[1], say._replace(**{name: values}))
        assert any(not np.allclose(one, other, atol=1e-2) for one, other in zip(numpy_logits, changed, strict=True)), (
            name
        )


@pytest.mark.parametrize("since", [[76, 0, 78], [89, 80, 75]])
def test_what_is_forgotten_makes_no_difference_and_is_forgotten_alike(since: list[int]) -> None:
    """Each piece forgets what is before a note when that note is read, as ``generate`` lets it; only what a pointer
    compares of this note still has a trace of it."""
    model = tiny.composer(CHARTED)
    notes, (emotion, plan, remaining_s) = random_notes(), random_conditions()
    say, readers = told(), both(model)

    def logits(reader: Reader | NumpyReader, notes: Tokens) -> list[npt.NDArray[np.float32]]:
        reader.clear()
        for part in (slice(0, 60), slice(60, 75), *(slice(at, at + 1) for at in range(75, T))):
            first = np.where(np.array(since) <= part.start, since, 0) if part.start >= 75 else None
            left = remaining_s[:, part]
            reader.read(notes[:, part], emotion, plan, left, say.place[:, part], say.followed[:, part], first)
        return [reader.logits(COLUMN.velocity), reader.logits(COLUMN.duration)]

    for one, other in zip(*(logits(reader, notes) for reader in readers), strict=True):
        assert np.allclose(one, other, rtol=1e-3, atol=3e-3)
    whole = logits(readers[1], notes)
    for row, first in enumerate(since):
        for at, changes in ((first, True), (first - 2, False)):
            if at < 0:
                continue
            other = notes.copy()
            other[row, at, COLUMN.pitch] = (other[row, at, COLUMN.pitch] + 20) % SIZES[COLUMN.pitch]
            moved = max(np.abs(a[row] - b[row]).max() for a, b in zip(whole, logits(readers[1], other), strict=True))
            assert (moved > 5e-3) == changes, (row, at, moved)


def test_a_sharper_pulse_moves_notes_to_the_parts_preferred_nearby_and_leaves_chords_as_likely() -> None:
    model = tiny.composer(CHARTED)
    notes, (emotion, plan, remaining_s) = random_notes(), random_conditions()
    readers, say = both(model), told()
    found = []
    for reader in readers:
        reader.read(notes, emotion, plan, remaining_s, say.place, say.followed)
        found.append([softmax(reader.logits(0, say.bins[:, -1], sharpness)) for sharpness in (0.0, 3.0)])
    for one, other in zip(*found, strict=True):
        assert np.allclose(one, other, atol=1e-3)
    plain, sharp = found[1]
    assert np.allclose(plain[:, 0], sharp[:, 0], atol=1e-5)
    assert (np.abs(plain - sharp).sum(1) > 0.02).all()
    parts = readers[1].network.pulse
    assert (sharp.max(1) >= plain.max(1) - 1e-3).all()
    assert parts.shape[1] == position.PARTS + 1
