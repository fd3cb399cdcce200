from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from emogen import checkpoint, generate, int8
from emogen.errors import EmogenError
from emogen.generate import Wish
from emogen.int8 import MOST_ROWS, FewRows, shrink
from emogen.model import Composer
from emogen.settings import SampleSettings
from tests import tiny

INT8 = SampleSettings(precision="int8", guidance=1)


def layers() -> tuple[nn.Linear, FewRows]:
    """A linear layer whose outputs differ much in size, and the same with weights of one byte."""
    torch.manual_seed(0)
    exact = nn.Linear(256, 160)
    with torch.no_grad():
        exact.weight.mul_(torch.logspace(-3, 1, 160)[:, None])
    return exact, FewRows(exact)


@torch.inference_mode()
def test_few_rows_come_out_nearly_as_in_float32() -> None:
    exact, few = layers()
    x = torch.randn(2, 3, 256)
    expected, found = exact(x), few(x)
    assert (found.shape, found.dtype) == (expected.shape, torch.float32)
    size = (expected - exact.bias).square().mean((0, 1)).sqrt()  # of each output
    off = (found - expected).square().mean((0, 1)).sqrt() / size
    assert 0 < off.max() < 0.05
    assert off.mean() < 0.02


@torch.inference_mode()
def test_many_rows_come_out_exactly_as_in_float32() -> None:
    exact, few = layers()
    x = torch.randn(MOST_ROWS + 1, 1, 256)
    assert torch.equal(few(x), exact(x))
    assert not torch.equal(few(x[1:]), exact(x[1:]))


@torch.inference_mode()
def test_each_row_comes_out_as_it_does_alone() -> None:
    _, few = layers()
    x = torch.randn(MOST_ROWS, 1, 256) * torch.logspace(-2, 2, MOST_ROWS)[:, None, None]
    assert torch.equal(few(x), torch.cat([few(row) for row in torch.split(x, 1)]))


def test_layers_are_shrunk_that_are_large_and_of_whole_strides() -> None:
    large, odd, odder, small = nn.Linear(512, 64), nn.Linear(1024, 95), nn.Linear(1000, 96), nn.Linear(32, 32)
    model = nn.Sequential(large, nn.Sequential(odd, large), odder, small, nn.Embedding(999, 96))
    shrink(model)
    assert [type(one) for one in model] == [FewRows, nn.Sequential, nn.Linear, nn.Linear, nn.Embedding]
    assert [type(one) for one in model[1].children()] == [nn.Linear, FewRows]


@pytest.fixture
def composer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Composer:
    """A tiny network opened to compose with weights of one byte."""
    monkeypatch.setattr(int8, "LEAST_WEIGHTS", 1)
    path = tiny.save(tmp_path)
    return generate.open_model(path, checkpoint.read_meta(path), INT8)


def test_a_network_opened_with_one_byte_weights_composes_and_the_same_seed_makes_the_same_piece(
    composer: Composer,
) -> None:
    assert isinstance(composer.get_submodule("blocks.1.up"), FewRows)
    wishes = [Wish({"happy": 1.0}, 5, seed, {}) for seed in range(3)]
    first, again = (generate.generate(composer, tiny.plans(), wishes, INT8) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert one.end_ms == 5000
        assert np.array_equal(one.onset_ms, other.onset_ms)
        assert np.array_equal(one.pitch, other.pitch)
    assert not np.array_equal(first[0].pitch, first[1].pitch)


def test_one_byte_weights_are_refused_elsewhere_than_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "pick_device", torch.device)
    path = tiny.save(tmp_path)
    with pytest.raises(EmogenError, match="int8 is for the CPU, not for cuda"):
        generate.open_model(path, checkpoint.read_meta(path), INT8.model_copy(update={"device": "cuda"}))
