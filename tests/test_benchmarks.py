"""What the benchmarks reckon; nothing here is timed."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import machine
from benchmarks.machine import Report, compared, in_turns, times_faster
from benchmarks.peers import flat_tokens, nucleus
from benchmarks.prepare import replicate
from benchmarks.train import full_batch, padding, train_flop
from emogen.data.batches import Batches, plan_table
from emogen.model.network import Composer
from emogen.music.midi import read_piece
from emogen.music.pulse import Onsets
from emogen.music.tokens import Tokens, encode
from emogen.settings import ModelSettings, TrainSettings
from tests.midi_files import dataset
from tests.music import corpus_of, random_piece, random_tokens


def test_engines_are_timed_in_turns() -> None:
    order = []

    def engine(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    seconds = in_turns({"a": lambda: engine("a", 1.0), "b": lambda: engine("b", 2.0)}, 3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert seconds == {"a": [1.0, 1.0, 1.0], "b": [2.0, 2.0, 2.0]}


def test_a_ratio_is_taken_within_each_round() -> None:
    assert times_faster([1.0, 10.0, 10.0], [3.0, 30.0, 3.0]) == 3.0  # the ratio of the medians would be 0.3


def test_engines_that_do_different_amounts_are_compared_by_the_piece() -> None:
    ours, theirs = compared({"ours": [2.0, 2.0], "theirs": [4.0, 4.0]}, {"ours": 100, "theirs": 50}, "notes")
    assert (ours["notes_per_s"], theirs["notes_per_s"]) == (50, 12.5)
    assert (ours["emogen_faster"], theirs["emogen_faster"]) == (1, 4)


def test_thirty_seconds_of_music_are_so_many_flat_tokens() -> None:
    assert flat_tokens(350) == 1260


def test_peers_draw_only_from_the_nucleus() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(200, 1)
    assert set(nucleus(logits, 0.7).tolist()) == {0, 1}
    assert set(nucleus(logits, 1.0).tolist()) == {0, 1, 2, 3}


def test_the_work_of_a_step_is_what_torch_counts() -> None:
    shape = ModelSettings(size="tiny", context_notes=128, chart=False)
    model = Composer(shape)
    with torch.autograd.profiler.profile(with_flops=True) as profile:
        model.loss(*full_batch(2, 128)).sum().backward()  # type: ignore[no-untyped-call]
    products = sum(event.flops or 0 for event in profile.function_events if event.name in ("aten::mm", "aten::addmm"))
    assert train_flop(machine.multiply_adds(model), shape, 2, 128) - train_flop(0, shape, 2, 128) == pytest.approx(
        products, rel=0.005
    )


def test_a_position_attends_to_itself_and_those_before() -> None:
    shape = ModelSettings(size="tiny")
    multiply_adds = sum(2 * shape.d_model * (before + 1) for before in range(1000)) * shape.n_layers
    assert train_flop(0, shape, 1, 1000) == pytest.approx(6 * multiply_adds, rel=0.005)


@pytest.mark.parametrize(("lengths", "share"), [((20, 20), 0.0), ((10, 30), 1 / 3)])
def test_padding_is_the_share_of_positions_without_a_note(lengths: tuple[int, ...], share: float) -> None:
    rng = np.random.default_rng(0)
    corpus = corpus_of([random_tokens(rng, length) for length in lengths], [0, 1])
    batches = Batches(corpus, "train", 2, 64, plan_table(corpus, 64, 0), augment=TrainSettings())
    notes, padded = padding(batches)
    assert notes == sum(lengths)
    assert padded == pytest.approx(share)


def test_a_report_puts_json_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Namespace(json=True, threads=1, runs=5))
    assert not report.has("a peer", "no-such-package")
    report.table("speed", [{"engine": "emogen", "s": 0.5, "notes": 12345}, {"engine": "other"}])
    report.close()
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["tables"][0]["rows"][0] == {"engine": "emogen", "s": 0.5, "notes": 12345}
    assert told["machine"]["versions"]["torch"] == torch.__version__
    assert "skipped: a peer: not installed: pip install no-such-package" in err
    assert "emogen  0.500  12,345\nother" in err


def test_the_memory_of_a_command_is_its_own_and_not_ours(tmp_path: Path) -> None:
    small = [sys.executable, "-c", "pass"]
    large = [sys.executable, "-c", "b'x' * (100 << 20)"]
    seconds, peak_mib = machine.commands_in_turns({"small": small, "large": large}, tmp_path, 1)
    assert peak_mib["small"] < 60  # torch alone, which we have imported, takes more
    assert 100 < peak_mib["large"] < 160
    assert seconds["small"][0] > 0


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        machine.whole_command([sys.executable, "-c", "raise ValueError('no such thing')"], tmp_path)


def test_no_two_copies_of_a_file_hold_the_same_notes(tmp_path: Path) -> None:
    files = sorted(dataset(tmp_path / "EMOPIA", songs=2).glob("midis/*.mid"))
    replicate(files, tmp_path, 12)
    copies = sorted(tmp_path.glob("*.mid"))
    assert len(copies) == 12
    assert sum(path.name.startswith("Q2_") for path in copies) == 6
    tokens: list[Tokens] = [encode(read_piece(path)) for path in copies]
    assert len({some.tobytes() for some in tokens}) == 12


def test_shuffled_clips_have_the_same_chords_and_the_times_between_them_in_another_order() -> None:
    pytest.importorskip("mir_eval")
    from benchmarks.chart import shuffled

    piece = random_piece(0, 60)
    mixed = shuffled(piece, np.random.default_rng(0))
    before, after = (np.diff(one.onset_ms[Onsets.of(one).first]) for one in (piece, mixed))
    assert sorted(before) == sorted(after)
    assert before.tolist() != after.tolist()
    np.testing.assert_array_equal(piece.pitch, mixed.pitch)


def test_beats_are_also_right_twice_and_half_as_dense_but_not_between() -> None:
    pytest.importorskip("mir_eval")
    from benchmarks.chart import levels

    assert [level.tolist() for level in levels(np.array([0.0, 1.0, 2.0, 3.0]))] == [
        [0, 1, 2, 3], [0, 0.5, 1, 1.5, 2, 2.5, 3], [0, 2], [1, 3]
    ]  # fmt: skip
