from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emogen.composing.generate import generate
from emogen.composing.wish import Wish
from emogen.errors import EmogenError
from emogen.model import checkpoint, int8, opening
from emogen.model.int8 import MOST_ROWS, ByteMatrix, shrink
from emogen.model.numpy_network import NumpyComposer
from emogen.model.rotary import Floats32
from emogen.settings import ModelSettings, SampleSettings
from tests import tiny

INT8 = SampleSettings(precision="int8", guidance=1)


def random(*shape: int) -> Floats32:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def matrices() -> tuple[Floats32, ByteMatrix]:
    """A matrix whose outputs differ much in size, and the same with weights of one byte."""
    exact = random(256, 160) * np.logspace(-3, 1, 160, dtype=np.float32)
    return exact, ByteMatrix(exact)


def test_few_rows_come_out_nearly_as_in_float32() -> None:
    exact, few = matrices()
    x = random(6, 256)
    expected, found = x @ exact, x @ few
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    off = np.sqrt(np.square(found - expected).mean(0) / np.square(expected).mean(0))  # of each output
    assert 0 < off.max() < 0.05
    assert off.mean() < 0.02


def test_many_rows_come_out_exactly_as_in_float32() -> None:
    exact, few = matrices()
    x = random(MOST_ROWS + 1, 256)
    assert np.array_equal(x @ few, x @ exact)
    assert not np.array_equal(x[1:] @ few, x[1:] @ exact)


def test_each_row_comes_out_as_it_does_alone() -> None:
    _, few = matrices()
    x = random(MOST_ROWS, 256) * np.logspace(-2, 2, MOST_ROWS, dtype=np.float32)[:, None]
    assert np.array_equal(x @ few, np.concatenate([row[None] @ few for row in x]))


def test_outputs_without_weights_stay_without() -> None:
    assert not (random(2, 256) @ ByteMatrix(np.zeros((256, 160), np.float32))).any()


def network(width: int) -> NumpyComposer:
    return tiny.in_numpy(tiny.composer(ModelSettings(size="tiny", d_model=width, n_layers=2, n_heads=2, chart=False)))


def test_matrices_are_shrunk_that_are_large_and_of_whole_strides() -> None:
    narrow, wide = network(80), network(96)
    for one in (narrow, wide, wide):  # what is small already stays as it is
        shrink(one)
    for block in narrow.blocks:  # 80 x 240, 80 x 80, 80 x 480, 480 x 80
        assert [type(matrix) for matrix in block] == [np.ndarray, np.ndarray, ByteMatrix, ByteMatrix]
    assert isinstance(wide.blocks[1][3].exact, np.ndarray)
    assert isinstance(wide.gains[0], np.ndarray)  # 64 x 480
    larger = network(256)
    shrink(larger)
    assert isinstance(larger.gains[0], ByteMatrix)
    assert [(type(mix[0]), type(logits[0])) for mix, logits in larger.heads] == [(ByteMatrix, np.ndarray)] * 4
    odd = random(1000, 90)
    assert int8.shrunk(odd) is odd


def test_a_network_with_one_byte_weights_composes_and_the_same_seed_makes_the_same_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "LEAST_WEIGHTS", 1)
    path = tiny.save(tmp_path)
    network = opening.open_network(path, checkpoint.read_meta(path), "cpu", "int8")
    assert isinstance(network, NumpyComposer)
    assert all(isinstance(matrix, ByteMatrix) for block in network.blocks for matrix in block)
    wishes = [Wish({"happy": 1.0}, 5, seed, {}) for seed in range(3)]
    first, again = (generate(network, tiny.plans(), wishes, INT8) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.end_ms == 5000
        assert np.array_equal(one.onset_ms, other.onset_ms)
        assert np.array_equal(one.pitch, other.pitch)
    assert not np.array_equal(first[0].pitch, first[1].pitch)


def test_one_byte_weights_are_refused_elsewhere_than_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "pick_device", torch.device)
    path = tiny.save(tmp_path)
    with pytest.raises(EmogenError, match="int8 is for the CPU, not for cuda"):
        opening.open_network(path, checkpoint.read_meta(path), "cuda", "int8")
