from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from emogen import __version__
from emogen.data.batches import Batch, Batches
from emogen.data.corpus import Corpus
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.model import checkpoint
from emogen.model.checkpoint import EpochLoss, load_trainer, load_weights, read_meta
from emogen.model.network import Composer
from emogen.music import tokens
from emogen.music.plan import ENTRIES
from emogen.settings import ModelSettings
from emogen.system.devices import COMPILERS
from emogen.training import shelf
from emogen.training import trainer as loop
from emogen.training.distributed import Team
from emogen.training.optimizer import FALLS, learning_rate
from emogen.training.progress import advise
from emogen.training.run import Run
from emogen.training.shelf import resumable
from emogen.training.trainer import Trainer, count_notes
from tests.hostile import forget_checksums
from tests.music import corpus_of, random_tokens
from tests.training import SHAPE, SPLIT, Notebook, music, new_trainer, settings


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def without_times(history: list[EpochLoss]) -> list[EpochLoss]:
    return [loss.model_copy(update={"seconds": 0.0}) for loss in history]


def assert_same_training(one: Trainer, other: Trainer) -> None:
    """Weights, optimizer, place and losses are equal to the last bit."""
    assert_same_weights(one.model.state_dict(), other.model.state_dict())
    state, other_state = one.optimizer.state_dict(), other.optimizer.state_dict()
    assert state["param_groups"] == other_state["param_groups"]
    assert state["state"].keys() == other_state["state"].keys()
    for weight, moments in state["state"].items():
        assert_same_weights(moments, other_state["state"][weight])
    place, other_place = vars(one.progress), vars(other.progress)
    assert without_times(place["history"]) == without_times(other_place["history"])
    assert [place[name] for name in ("epoch", "batch", "step", "nats", "notes")] == [
        other_place[name] for name in ("epoch", "batch", "step", "nats", "notes")
    ]


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Trainer, list[int]]]:
    """Trainings that nobody stopped, by ``accumulate``, with the number of batches of each epoch."""
    done: dict[int, tuple[Trainer, list[int]]] = {}

    def get(accumulate: int) -> tuple[Trainer, list[int]]:
        if accumulate not in done:
            trainer, notebook = new_trainer(tmp_path_factory.mktemp("runs"), accumulate=accumulate), Notebook()
            assert trainer.learn(notebook)
            done[accumulate] = trainer, [batches for _, batch, batches, *_ in notebook.steps if batch == batches]
        return done[accumulate]

    return get


def go_on(runs: Path, **options: Any) -> Trainer:
    """A new process's trainer, where the last one stopped."""
    trainer = new_trainer(runs, **options)
    trainer.resume(resumable(trainer.run.checkpoints)[0])
    return trainer


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("place", ["first step", "mid-epoch", "last batch of an epoch", "second epoch"])
def test_stopping_anywhere_and_going_on_is_the_same_as_one_go(
    place: str, accumulate: int, tmp_path: Path, in_one_go: Callable[[int], tuple[Trainer, list[int]]]
) -> None:
    whole, batches = in_one_go(accumulate)
    after = {"first step": 1, "mid-epoch": 3, "last batch of an epoch": batches[0], "second epoch": batches[0] + 2}
    first = new_trainer(tmp_path, accumulate=accumulate)
    assert not first.learn(Notebook(after[place], interrupt))
    assert first.progress.step == after[place] < whole.progress.step
    second = go_on(tmp_path, accumulate=accumulate)
    assert second.learn(Notebook())
    assert_same_training(second, whole)


def test_stopping_before_the_first_step_saves_and_goes_on_as_in_one_go(
    tmp_path: Path, in_one_go: Callable[[int], tuple[Trainer, list[int]]]
) -> None:
    first = new_trainer(tmp_path)
    windows = first.train_batches.epoch

    def epoch(number: int) -> list[Any]:
        interrupt()
        return windows(number)

    first.train_batches.epoch = epoch  # type: ignore[assignment]
    assert not first.learn(Notebook())
    assert [path.name for path in resumable(first.run.checkpoints)] == ["last_epoch_000_step_00000000"]
    second = go_on(tmp_path)
    assert second.learn(Notebook())
    assert_same_training(second, in_one_go(1)[0])


def test_a_stop_asked_for_while_an_epoch_is_evaluated_saves_the_finished_epoch(
    tmp_path: Path, in_one_go: Callable[[int], tuple[Trainer, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_trainer(tmp_path)
    evaluate = first.evaluate

    def evaluate_and_interrupt() -> dict[str, float]:
        interrupt()
        return evaluate()

    monkeypatch.setattr(first, "evaluate", evaluate_and_interrupt)
    notebook = Notebook()
    assert not first.learn(notebook)
    assert (first.progress.epoch, first.progress.batch, len(notebook.losses)) == (1, 0, 1)
    second = go_on(tmp_path)
    assert second.progress.epoch == 1
    assert second.learn(Notebook())
    assert_same_training(second, in_one_go(1)[0])


def test_stopping_twice_and_saving_often_changes_nothing(
    tmp_path: Path, in_one_go: Callable[[int], tuple[Trainer, list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e6)
    assert not new_trainer(tmp_path, save_every_s=1e-9).learn(Notebook(2, interrupt))
    assert not go_on(tmp_path, save_every_s=1e-9).learn(Notebook(3, interrupt))
    last = go_on(tmp_path, save_every_s=1e-9)
    assert last.progress.step == 5
    assert last.learn(Notebook())
    assert_same_training(last, in_one_go(1)[0])


def test_last_is_saved_within_an_epoch_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e6)
    trainer = new_trainer(tmp_path, save_every_s=1e-9)
    saved: list[str] = []
    trainer.learn(Notebook(3, lambda: saved.extend(names(trainer))))
    assert saved == ["last_epoch_000_step_00000002"]


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    one, other = new_trainer(tmp_path), new_trainer(tmp_path, seed=2**32 - 1)
    assert not torch.equal(one.model.embed[0].weight, other.model.embed[0].weight)  # type: ignore[arg-type]
    assert other.step(other.train_batches.batch(0, 0), Notebook())[1] > 0


def test_dropout_and_augmentation_are_on_in_training(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, dropout=0.5)
    assert trainer.train_batches.augment
    batch = trainer.train_batches.batch(0, 0)
    trainer.step(batch, Notebook())  # before it the network has no opinion, whatever is dropped
    torch.manual_seed(1)
    first, _ = trainer.gradients(batch)
    second, _ = trainer.gradients(batch)
    assert first != second


# ---- the step


def gradient(trainer: Trainer, batch: Batch) -> list[Tensor]:
    trainer.optimizer.zero_grad()
    nats, notes = trainer.gradients(batch)
    assert nats == pytest.approx(trainer.model.loss(*batch).sum().item(), rel=1e-4)
    assert notes == count_notes(batch)
    return [weight.grad.clone() for weight in trainer.model.parameters() if weight.grad is not None]


@pytest.mark.parametrize("parts", [2, 3, 4, 7])
def test_parts_do_not_change_the_gradient(parts: int, tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, dropout=0.0, batch_size=7, precision="float32")
    trainer.step(trainer.train_batches.batch(0, 0), Notebook())
    batch = trainer.train_batches.batch(0, 1)
    whole = gradient(trainer, batch)
    trainer.parts = parts
    in_parts = gradient(trainer, batch)
    assert max(float(grad.abs().max()) for grad in whole) > 0.01
    for one, other in zip(whole, in_parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_that_of_the_mean_over_notes_and_steps_add_up_nothing(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, dropout=0.0)
    batch = trainer.train_batches.batch(0, 0)
    whole = gradient(trainer, batch)
    trainer.model.zero_grad()
    (trainer.model.loss(*batch).sum() / count_notes(batch)).backward()  # type: ignore[no-untyped-call]
    for one, other in zip(whole, [weight.grad for weight in trainer.model.parameters()], strict=True):
        torch.testing.assert_close(one, other)
    trainer.step(batch, Notebook())
    assert not any(weight.grad is not None and weight.grad.any() for weight in trainer.model.parameters())


def test_a_long_gradient_is_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = new_trainer(tmp_path, grad_clip=1e-3)
    norms = []

    def step() -> None:
        norms.append(torch.cat([w.grad.flatten() for w in trainer.model.parameters() if w.grad is not None]).norm())

    monkeypatch.setattr(trainer.optimizer, "step", step)
    trainer.step(trainer.train_batches.batch(0, 0), Notebook())
    assert float(norms[0]) == pytest.approx(1e-3, rel=1e-3)


def test_every_step_has_the_learning_rate_of_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = new_trainer(tmp_path, epochs=5, warmup_steps=3, learning_rate=0.01)
    rates: list[float] = []
    step = trainer.optimizer.step

    def note_rate() -> None:
        rates.extend({group["lr"] for group in trainer.optimizer.param_groups})
        step()

    monkeypatch.setattr(trainer.optimizer, "step", note_rate)
    notebook = Notebook()
    trainer.learn(notebook)
    assert len(rates) == len(notebook.steps)
    for number, (rate, (epoch, batch, batches, *_)) in enumerate(zip(rates, notebook.steps, strict=True)):
        done = (epoch - 1 + (batch - 1) / batches) / 5
        assert rate == learning_rate(trainer.settings.train, number, done)
    assert rates[0] == pytest.approx(0.01 / 3)
    assert rates[-1] == pytest.approx(0.01 / FALLS * (1 - done), rel=1e-9)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_it_learns_in_either_precision(precision: str, tmp_path: Path) -> None:
    song = random_tokens(np.random.default_rng(0), 28)
    still = {"key_semitones": 0, "tempo_percent": 0, "velocity_steps": 0}
    corpus = corpus_of([song] * 20, 0, np.resize(SPLIT, 20))
    trainer = new_trainer(tmp_path, corpus, precision=precision, learning_rate=0.01, warmup_steps=0, **still)
    first = sum(trainer.evaluate().values())
    for number in range(36):
        nats, notes = trainer.step(trainer.train_batches.batch(0, number % 3), Notebook())
    assert trainer.bf16 == (precision == "bf16")
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
    assert first == pytest.approx(sum(map(math.log, tokens.SIZES)), abs=0.3)
    assert nats / notes < 11
    assert sum(trainer.evaluate().values()) < 11


def test_bf16_is_only_used_where_it_is_asked_for(tmp_path: Path) -> None:
    plain, short = new_trainer(tmp_path, dropout=0.0), new_trainer(tmp_path, dropout=0.0, precision="bf16")
    batch = plain.train_batches.batch(0, 0)
    for trainer in (plain, short):
        trainer.step(batch, Notebook())
    (one,), (other,) = list(plain.nats(batch)), list(short.nats(batch))
    assert one.dtype == other.dtype == torch.float32
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.02, atol=0.0)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    plain, compiled = (new_trainer(tmp_path, dropout=0.0, compile=compile) for compile in (False, True))
    compiled.settle(Notebook())
    assert compiled.model._compiled_call_impl is not None
    for number in range(2):  # of different lengths
        batch = plain.train_batches.batch(0, number)
        (nats, notes), (found, found_notes) = plain.step(batch, Notebook()), compiled.step(batch, Notebook())
        assert found == pytest.approx(nats, rel=1e-5)
        assert found_notes == notes
    for name, weight in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], weight, rtol=1e-3, atol=1e-5)


# ---- the arithmetic


def timed_as(speed: float, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Let timing find this, after real steps; returns a list that the steps are put into."""
    steps: list[tuple[int, bool]] = []

    def time_steps(step: Callable[[int, bool], object], windows: int) -> float:
        for some, bf16 in ((1, False), (windows, False), (windows, True)):
            step(some, bf16)
            steps.append((some, bf16))
        return speed

    monkeypatch.setattr(loop, "speed_of_bf16", time_steps)
    return steps


def never_timed(*_: Any) -> float:
    raise AssertionError("timed")


@pytest.mark.slow
@pytest.mark.parametrize(("speed", "precision"), [(2.3, "bf16"), (1.05, "float32"), (0.7, "float32")])
def test_left_to_itself_it_trains_to_the_bit_as_with_the_precision_that_timing_found(
    speed: float, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = timed_as(speed, monkeypatch)
    by_itself, notebook = new_trainer(tmp_path / "auto", precision="auto"), Notebook()
    assert by_itself.bf16 is None
    assert by_itself.learn(notebook)
    assert steps == [(1, False), (4, False), (4, True)]
    name = {"bf16": "bfloat16"}.get(precision, precision)
    assert notebook.said == [f"computing in {name}: bfloat16 was timed to be {speed:.1f} times as fast as float32"]
    monkeypatch.setattr(loop, "speed_of_bf16", never_timed)
    given, silent = new_trainer(tmp_path / "given", precision=precision), Notebook()
    assert given.learn(silent)
    assert silent.said == []
    assert_same_training(by_itself, given)
    metas = [read_meta(resumable(trainer.run.checkpoints)[0]) for trainer in (by_itself, given)]
    assert [meta.bf16_on_cpu for meta in metas] == [precision == "bf16", None]


def test_timing_leaves_no_gradient_and_draws_no_random_number(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, precision="auto", dropout=0.5)
    before = torch.get_rng_state()
    trainer.settle(Notebook())
    assert torch.equal(torch.get_rng_state(), before)
    assert not [weight for weight in trainer.model.parameters() if weight.grad is not None]
    assert trainer.optimizer.state_dict()["state"] == {}


def test_somebody_who_stops_it_while_it_is_timed_finds_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> float:
        signal.raise_signal(signal.SIGINT)
        return 1.0

    monkeypatch.setattr(loop, "speed_of_bf16", stopped)
    trainer = new_trainer(tmp_path, precision="auto")
    assert not trainer.learn(Notebook())
    assert trainer.progress.step == 0
    assert resumable(trainer.run.checkpoints)


def test_real_timing_leaves_no_trace_in_training(tmp_path: Path) -> None:
    by_itself, notebook = new_trainer(tmp_path / "auto", precision="auto", dropout=0.5), Notebook()
    assert by_itself.learn(notebook)
    assert re.fullmatch(
        r"computing in \w+: bfloat16 was timed to be \d+\.\d times as fast as float32", notebook.said[0]
    )
    given = new_trainer(tmp_path / "given", precision="bf16" if by_itself.bf16 else "float32", dropout=0.5)
    assert given.learn(Notebook())
    assert_same_training(by_itself, given)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "today"), [(2.0, 0.5), (0.5, 2.0)])
def test_going_on_takes_the_arithmetic_of_before_without_timing_again(
    before: float, today: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_as(before, monkeypatch)
    whole = new_trainer(tmp_path / "whole", precision="auto")
    assert whole.learn(Notebook())
    assert not new_trainer(tmp_path, precision="auto").learn(Notebook(3, interrupt))
    monkeypatch.setattr(loop, "speed_of_bf16", never_timed)
    again = go_on(tmp_path, precision="auto")
    assert not again.learn(Notebook(1, interrupt))
    last = go_on(tmp_path, precision="auto")
    assert last.learn(Notebook())
    assert last.bf16 is (before > 1)
    assert_same_training(last, whole)


def test_a_run_that_was_never_timed_is_timed_when_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not new_trainer(tmp_path).learn(Notebook(3, interrupt))
    steps = timed_as(2.0, monkeypatch)
    trainer = go_on(tmp_path, precision="auto")
    trainer.settle(Notebook())
    trainer.settle(Notebook())
    assert (trainer.bf16, len(steps)) == (True, 3)


def test_a_gpu_is_not_timed_whatever_was_found_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(2.0, monkeypatch)
    assert not new_trainer(tmp_path, precision="auto").learn(Notebook(1, interrupt))
    monkeypatch.setattr(loop, "speed_of_bf16", never_timed)
    monkeypatch.setattr(loop, "faster_in_bf16", lambda device: False)
    trainer = go_on(tmp_path, precision="auto")
    assert not trainer.learn(Notebook(1, interrupt))
    assert trainer.bf16 is False
    assert read_meta(resumable(trainer.run.checkpoints)[0]).bf16_on_cpu is True, "and is remembered for the CPU"


def test_the_first_process_of_a_team_decides_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def any_of_us(self: Team, fact: bool) -> bool:
        told.append(fact)
        return not told[-1]

    monkeypatch.setattr(Team, "any", any_of_us)
    for rank, speed in ((0, 2.0), (1, 2.0)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        steps = timed_as(speed, monkeypatch)
        run = Run(tmp_path, "tiny")
        trainer = Trainer(music(), settings(precision="auto"), run, team=Team())
        trainer.settle(Notebook())
        assert trainer.bf16 is (rank == 1)
        assert steps[1] == (2, False), "of four windows two are each process's"
    assert told == [True, False]


def test_memory_that_runs_out_while_steps_are_timed_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_as(0.5, monkeypatch)
    short_of_memory(monkeypatch, 2, OUT_OF_MEMORY[2])
    trainer, notebook = new_trainer(tmp_path, precision="auto", epochs=1), Notebook()
    assert trainer.learn(notebook)
    assert "out of memory: each batch is now computed in 2 parts" in notebook.said[0]


def test_more_threads_than_cores_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    for asked, said in ((0, []), (2, []), (64, ["--threads 64 is more than this machine has cores for: 2 it is"])):
        notebook = Notebook()
        trainer = new_trainer(tmp_path, threads=asked)
        trainer.settle(notebook)
        trainer.settle(notebook)
        assert notebook.said == said, "and once"
    assert taken == [1, 2, 2]


# ---- evaluation


def test_evaluation_equals_one_window_at_a_time(tmp_path: Path) -> None:
    corpus = music(seed=3)
    trainer = new_trainer(tmp_path, corpus)
    for i in range(3):
        trainer.step(trainer.train_batches.batch(0, i), Notebook())
    found = trainer.evaluate()
    trainer.model.eval()
    single = Batches(corpus, "valid", 1, 32, trainer.plans)
    with torch.no_grad():
        nats = sum(trainer.model.loss(*single.batch(0, i)).double() for i in range(len(single.epoch(0))))
    notes = sum(len(corpus.notes(clip)) for clip in corpus.clips("valid").tolist())
    assert list(found) == list(tokens.FAMILIES)
    assert list(found.values()) == pytest.approx((nats / notes).tolist(), rel=1e-5)  # type: ignore[union-attr]


def test_evaluation_keeps_no_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = new_trainer(tmp_path)
    loss, seen = trainer.model.loss, []

    def watched(*batch: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return loss(*batch)

    monkeypatch.setattr(trainer.model, "loss", watched)
    trainer.evaluate()
    assert set(seen) == {False}


def test_evaluation_in_parts_finds_the_same(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path)
    trainer.step(trainer.train_batches.batch(0, 0), Notebook())
    whole = trainer.evaluate()
    trainer.parts = 3
    assert trainer.evaluate() == pytest.approx(whole, rel=1e-6)


def test_evaluation_leaves_no_trace_in_training(tmp_path: Path) -> None:
    one, other = new_trainer(tmp_path), new_trainer(tmp_path)
    for i in range(4):
        for trainer in (one, other):
            torch.manual_seed(i)
            trainer.step(trainer.train_batches.batch(0, i), Notebook())
            if trainer is one:
                trainer.evaluate()
    assert_same_weights(weights_of(one), weights_of(other))


# ---- it watches itself


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class InfiniteSlope(torch.autograd.Function):
    """A number as it is, but with a gradient that is infinite."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * torch.inf


@pytest.mark.parametrize(
    "wrong",
    [lambda nats: nats * torch.nan, lambda nats: nats + torch.inf, InfiniteSlope.apply],
    ids=["nan", "inf", "slope"],
)
def test_a_loss_that_is_no_number_stops_before_it_does_harm(
    wrong: Callable[[Tensor], Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path)
    trainer.save_last()
    before, weights = snapshot(trainer.run.checkpoints), weights_of(trainer)
    loss = trainer.model.loss
    monkeypatch.setattr(trainer.model, "loss", lambda *batch: wrong(loss(*batch)))
    with pytest.raises(EmogenError, match=r"no longer finite at step 1; the last checkpoint is untouched") as caught:
        trainer.learn(Notebook())
    assert "--learning-rate below 0.001" in caught.value.hint
    assert snapshot(trainer.run.checkpoints) == before
    assert_same_weights(weights_of(trainer), weights)


def test_a_valid_loss_that_is_no_number_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = new_trainer(tmp_path)
    monkeypatch.setattr(trainer, "evaluate", lambda: dict.fromkeys(tokens.FAMILIES, math.nan))
    with pytest.raises(EmogenError, match="no longer finite"):
        trainer.learn(Notebook())
    assert snapshot(trainer.run.folder) == {}


def short_of_memory(monkeypatch: pytest.MonkeyPatch, windows: int, error: Callable[[], RuntimeError]) -> None:
    """Computing with more than so many windows fails, half-way."""
    loss = Composer.loss

    def little_loss(self: Composer, notes: Tensor, *conditions: Tensor) -> Tensor:
        if len(notes) > windows and self.training:
            raise error()
        return loss(self, notes, *conditions)

    monkeypatch.setattr(Composer, "loss", little_loss)


OUT_OF_MEMORY: list[Callable[[], RuntimeError]] = [
    partial(torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB."),
    partial(RuntimeError, "MPS backend out of memory (MPS allocated: 9.07 GB)"),
    partial(RuntimeError, "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "mps", "cpu"])
def test_out_of_memory_computes_each_batch_in_more_parts_with_the_same_result(
    error: Callable[[], RuntimeError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = new_trainer(tmp_path / "by-hand", dropout=0.0, accumulate=4, epochs=1)
    by_hand.learn(Notebook())
    short_of_memory(monkeypatch, 1, error)
    trainer, notebook = new_trainer(tmp_path / "short", dropout=0.0, epochs=1), Notebook()
    assert trainer.learn(notebook)
    assert trainer.parts == 4
    assert notebook.said == [
        f"out of memory: each batch is now computed in {parts} parts (--accumulate {parts})" for parts in (2, 4)
    ]
    for name, weight in by_hand.model.state_dict().items():
        torch.testing.assert_close(weight, trainer.model.state_dict()[name], rtol=1e-4, atol=1e-5)
    assert trainer.progress.history[0].train == pytest.approx(by_hand.progress.history[0].train, rel=1e-5)


def test_memory_that_runs_out_in_a_later_part_does_not_count_the_earlier_ones_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path, dropout=0.0, accumulate=2)
    batch = trainer.train_batches.batch(0, 0)
    whole = gradient(trainer, batch)
    trainer.optimizer.zero_grad()
    loss, calls = trainer.model.loss, []

    def fail_once(*part: Tensor) -> Tensor:
        calls.append(len(part[0]))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return loss(*part)

    monkeypatch.setattr(trainer.model, "loss", fail_once)
    kept: list[Tensor] = []
    monkeypatch.setattr(
        trainer.optimizer,
        "step",
        lambda: kept.extend(weight.grad.clone() for weight in trainer.model.parameters() if weight.grad is not None),
    )
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(1.0))
    trainer.step(batch, Notebook())
    assert calls == [2, 2, 1, 1, 1, 1]
    for one, other in zip(whole, kept, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_too_little_memory_for_one_window_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of_memory(monkeypatch, 0, OUT_OF_MEMORY[0])
    trainer, notebook = new_trainer(tmp_path), Notebook()
    with pytest.raises(EmogenError, match="even with one window at a time") as caught:
        trainer.learn(notebook)
    assert "--size" in caught.value.hint
    assert [said.split()[9] for said in notebook.said] == ["2", "4"]


def test_any_other_failure_of_torch_is_not_taken_for_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, 0, partial(RuntimeError, "shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        new_trainer(tmp_path).learn(Notebook())


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("place", ["weights", "trainer", "sync"])
def test_a_full_disk_stops_with_a_hint_and_leaves_the_checkpoint_before(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path)
    assert not trainer.learn(Notebook(3, interrupt))
    before = snapshot(trainer.run.checkpoints)
    trainer = go_on(tmp_path)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e6)
    if place == "weights":
        monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    elif place == "sync":
        monkeypatch.setattr(os, "fsync", full_disk)
    else:
        path_open = Path.open
        full = partial(path_open, Path("/dev/full"), "wb")
        monkeypatch.setattr(
            Path, "open", lambda self, *a, **k: full() if self.suffix == ".pt" else path_open(self, *a, **k)
        )
    with pytest.raises(EmogenError, match="No space left on device") as caught:
        trainer.learn(Notebook(2, interrupt))
    assert "make room" in caught.value.hint
    monkeypatch.undo()
    assert snapshot(trainer.run.checkpoints) == before
    assert not list(trainer.run.checkpoints.glob(".*"))
    assert go_on(tmp_path).learn(Notebook())


def losses(trains: list[float], valids: list[float]) -> list[EpochLoss]:
    return [
        EpochLoss(epoch=epoch, train=one, valid=other, valid_by_family={}, seconds=1.0)
        for epoch, (one, other) in enumerate(zip(trains, valids, strict=True), 1)
    ]


def advice_by_epoch(trains: list[float], valids: list[float]) -> dict[int, str]:
    history = losses(trains, valids)
    said = {epoch: advise(history[:epoch]) for epoch in range(1, len(history) + 1)}
    return {epoch: text for epoch, text in said.items() if text}


def test_overfitting_is_told_once_for_each_best_epoch() -> None:
    trains = [12.0 - 0.3 * epoch for epoch in range(12)]
    said = advice_by_epoch(trains, [12, 11, 10, 10.1, 10.2, 10.3, 10.4, 9.9, 10, 10.1, 10.2, 10.3])
    assert sorted(said) == [6, 11]
    assert "not fallen since epoch 3 while train loss falls" in said[6]
    assert "not fallen since epoch 8" in said[11]
    assert "--patience" in said[6]


def test_a_loss_that_does_not_fall_is_told_once_for_each_time() -> None:
    flat = [12.0, 11.0, 11.0, 11.0, 11.0, 11.001, 11.0]
    said = advice_by_epoch([*flat, 9.0, 8.0, 8.0, 8.0, 8.0], [12.0, 11, *[11.5] * 10])
    assert sorted(said) == [5, 12]
    assert all("train loss has not fallen for 3 epochs" in text for text in said.values())


def test_nothing_is_said_while_all_is_well_or_too_young() -> None:
    assert advice_by_epoch([12.0 - epoch for epoch in range(9)], [13.0 - epoch for epoch in range(9)]) == {}
    assert advice_by_epoch([9, 10, 11], [9, 10, 11]) == {}
    assert advice_by_epoch([10.0] * 8, [12.0 - epoch for epoch in range(8)]) == {}, "valid still falls"


def with_valid_losses(trainer: Trainer, valids: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the training learn nothing and find these valid losses."""
    left = iter(valids)
    monkeypatch.setattr(trainer, "step", lambda batch, _: (17.0 * count_notes(batch), count_notes(batch)))
    monkeypatch.setattr(trainer, "evaluate", lambda: dict(zip(tokens.FAMILIES, (next(left), 0, 0, 0), strict=True)))


def test_advice_reaches_the_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, notebook = new_trainer(tmp_path, epochs=4), Notebook()
    with_valid_losses(trainer, [17.0, 17.1, 17.2, 17.3], monkeypatch)
    trainer.learn(notebook)
    assert len(notebook.said) == 1
    assert "train loss has not fallen" in notebook.said[0]


@pytest.mark.parametrize(
    ("patience", "valids", "epochs"),
    [
        (0, [5, 6, 7, 8, 9], 5),
        (2, [5, 6, 7, 4, 3], 3),
        (2, [5, 6, 4, 5, 4], 5),
        (2, [5, 5, 5, 4, 3], 3),
        (1, [5, 4, 3, 2, 1], 5),
    ],
)
def test_patience_stops_after_so_many_epochs_without_a_better_valid_loss(
    patience: int, valids: list[float], epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path, patience=patience, epochs=5)
    with_valid_losses(trainer, valids, monkeypatch)
    assert trainer.learn(Notebook())
    assert trainer.progress.epoch == epochs


# ---- checkpoints and logs


def names(trainer: Trainer) -> list[str]:
    return sorted(path.name for path in trainer.run.checkpoints.iterdir())


def test_the_best_the_periodic_and_one_last_checkpoint_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = new_trainer(tmp_path, epochs=7, checkpoint_every=2, keep_periodic=2, keep_best=3)
    with_valid_losses(trainer, [9.5, 8.25, 8.75, 8.12345, 9.0, 8.5, 11.0], monkeypatch)
    notebook = Notebook()
    trainer.learn(notebook)
    assert names(trainer) == [
        "best_epoch_002_loss_8.2500",
        "best_epoch_004_loss_8.1235",
        "best_epoch_006_loss_8.5000",
        "epoch_006",
        "epoch_007",  # the last epoch is always kept
        f"last_epoch_007_step_{len(notebook.steps):08d}",
    ]
    assert shelf.found(trainer.run.checkpoints, "best")[0].name == "best_epoch_004_loss_8.1235"
    with_trainer = [path.name for path in trainer.run.checkpoints.iterdir() if (path / checkpoint.TRAINER).exists()]
    assert sorted(with_trainer) == ["epoch_006", "epoch_007", f"last_epoch_007_step_{len(notebook.steps):08d}"]


def test_a_checkpoint_says_everything_about_itself(tmp_path: Path) -> None:
    corpus = music()
    trainer = new_trainer(tmp_path, corpus)
    trainer.learn(Notebook())
    path = resumable(trainer.run.checkpoints)[0]
    meta = read_meta(path)
    assert meta == checkpoint.Meta.model_validate_json((path / checkpoint.META).read_text(encoding="utf-8"))
    assert (meta.format, meta.emogen, meta.torch) == (checkpoint.FORMAT, __version__, torch.__version__)
    assert meta.created.endswith("+00:00")
    assert (meta.run, meta.epoch, meta.step) == ("tiny", 2, trainer.progress.step)
    assert list(meta.history) == trainer.progress.history
    assert meta.valid_loss == trainer.progress.history[-1].valid
    assert meta.parameters == sum(weight.numel() for weight in load_weights(path).values())
    assert (meta.model, meta.train) == (trainer.settings.model, trainer.settings.train.model_dump(mode="json"))
    assert (meta.vocabulary, meta.emotions) == (tokens.fingerprint(), EMOTIONS)
    assert (meta.dataset.name, meta.dataset.fingerprint) == (corpus.manifest.name, corpus.manifest.fingerprint)
    assert meta.dataset.clips == {"train": 12, "valid": 4, "test": 4}
    assert checkpoint.plans_of(path, meta) == trainer.plans
    assert meta.plan["by_emotion"].keys() == set(EMOTIONS)
    assert_same_weights(load_weights(path), weights_of(trainer))


def test_each_epoch_is_a_line_for_machines(tmp_path: Path) -> None:
    trainer, notebook = new_trainer(tmp_path), Notebook()
    trainer.learn(notebook)
    lines = [json.loads(line) for line in (trainer.run.folder / "log.jsonl").read_text().splitlines()]
    steps = [number for number, (_, batch, batches, *_) in enumerate(notebook.steps, 1) if batch == batches]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["step"] for line in lines] == steps
    for line, loss in zip(lines, notebook.losses, strict=True):
        assert EpochLoss.model_validate(line) == loss
        assert line["valid"] == pytest.approx(sum(line["valid_by_family"].values()))
        assert line["time"].endswith("+00:00")
    assert [loss.train for loss in notebook.losses] == [notebook.steps[step - 1][3] for step in steps]


def test_the_train_loss_of_an_epoch_is_that_of_its_own_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, notebook = new_trainer(tmp_path, epochs=3), Notebook()

    def step(batch: Batch, watch: Any) -> tuple[float, int]:
        notes = count_notes(batch)
        return notes * (9.0 - trainer.progress.epoch), notes

    monkeypatch.setattr(trainer, "step", step)
    trainer.learn(notebook)
    assert [loss.train for loss in notebook.losses] == pytest.approx([9, 8, 7])
    assert trainer.progress.seconds == 0


def test_the_watch_is_told_notes_a_second_and_the_time_left_in_all(tmp_path: Path) -> None:
    trainer, notebook = new_trainer(tmp_path), Notebook()
    trainer.learn(notebook)
    epoch, batch, batches, _, notes_per_s, left_s = notebook.steps[2]
    assert (epoch, batch) == (1, 3)
    assert notes_per_s > 0
    seconds = left_s / (2 * batches - 3) * 3
    assert 0 < seconds <= notebook.losses[0].seconds
    assert notebook.steps[-1][5] == pytest.approx(0, abs=1e-9)


def test_last_is_saved_when_it_is_old_and_less_often_when_saving_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    trainer = new_trainer(tmp_path, save_every_s=15)
    now += 14.9
    assert not trainer.save_is_due()
    now += 0.2
    assert trainer.save_is_due()
    monkeypatch.setattr(trainer, "save", lambda *_, **__: slow())

    def slow() -> None:
        nonlocal now
        now += 2.0

    trainer.save_last()
    now += 39.9
    assert not trainer.save_is_due(), "two seconds of saving are a twentieth of forty"
    now += 0.2
    assert trainer.save_is_due()


# ---- what it refuses


def test_a_corpus_without_training_or_validation_clips_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, lacking in ((0, "validation"), (1, "training")):
        corpus = corpus_of([random_tokens(rng, 20)] * 3, 0, split)
        with pytest.raises(EmogenError, match=f"no {lacking} clips") as caught:
            new_trainer(tmp_path, corpus)
        assert "emogen prepare" in caught.value.hint


def saved(runs: Path, corpus: Corpus | None = None) -> Path:
    trainer = new_trainer(runs, corpus)
    trainer.save_last()
    return resumable(trainer.run.checkpoints)[0]


def test_other_data_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(EmogenError, match=r"trained on other data \(music 0\) than this \(music 1\)") as caught:
        new_trainer(tmp_path, music(seed=1)).resume(path)
    assert "--data" in caught.value.hint


def test_a_checkpoint_of_weights_alone_is_refused(tmp_path: Path) -> None:
    trainer = new_trainer(tmp_path, epochs=1)
    trainer.learn(Notebook())
    (best,) = shelf.found(trainer.run.checkpoints, "best")
    with pytest.raises(EmogenError, match="holds weights only"):
        new_trainer(tmp_path).resume(best)


@pytest.mark.parametrize("wrong", ["list", "empty", "unknown place", "other optimizer", "other weights"])
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(wrong: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    state: Any = load_trainer(path)
    if wrong == "list":
        state = [state]
    elif wrong == "empty":
        state = {}
    elif wrong == "unknown place":
        state["progress"]["moon"] = 1
    elif wrong == "other optimizer":
        state["optimizer"]["param_groups"] = state["optimizer"]["param_groups"][:1]
    else:
        model = Composer(ModelSettings(size="tiny", d_model=64, n_layers=2, n_heads=2, context_notes=32))
        safetensors.torch.save_file(
            model.state_dict(), path / checkpoint.WEIGHTS, {"emogen": (path / checkpoint.META).read_text()}
        )
    torch.save(state, path / checkpoint.TRAINER)
    forget_checksums(path)
    with pytest.raises(EmogenError, match=r"(do not fit together|do not fit this emogen's network)") as caught:
        new_trainer(tmp_path).resume(path)
    assert "train" in caught.value.hint


# ---- beginning from a checkpoint


def test_a_training_begins_with_the_weights_and_the_scale_of_the_plans_it_is_given(tmp_path: Path) -> None:
    before = new_trainer(tmp_path / "before", corpus=music(1), epochs=1)
    before.learn(Notebook())
    (best,) = shelf.found(before.run.checkpoints, "best")
    run = Run(tmp_path, "after")
    run.checkpoints.mkdir(parents=True)
    trainer = Trainer(music(2), settings(), run, init=best)
    for name, weight in load_weights(best).items():
        assert torch.equal(trainer.model.state_dict()[name], weight), name
    assert (trainer.plans.mean, trainer.plans.sd) == (before.plans.mean, before.plans.sd)
    assert trainer.plans.by_emotion != before.plans.by_emotion
    assert trainer.progress.step == 0
    assert not trainer.optimizer.state

    trainer.save_last()
    resumed = Trainer(music(2), settings(), run)
    resumed.resume(shelf.found(run.checkpoints, "last")[0])
    for one in (trainer, resumed):
        assert one.init == f"tiny/{best.name}"
        assert [facts.name for facts in one.ancestors] == ["music 1"]
        assert one.train_batches.plans == one.valid_batches.plans == trainer.plans
    resumed.save("epoch", keep=1)
    meta = read_meta(shelf.found(run.checkpoints, "epoch")[0])
    assert (meta.init, meta.ancestors[0].fingerprint) == (f"tiny/{best.name}", before.corpus.manifest.fingerprint)
    trainer = Trainer(music(3), settings(), run, init=shelf.found(run.checkpoints, "epoch")[0])
    assert [facts.name for facts in trainer.ancestors] == ["music 1", "music 2"]


def test_a_training_begins_from_a_checkpoint_that_knows_fewer_plan_entries(tmp_path: Path) -> None:
    before = new_trainer(tmp_path / "before", corpus=music(1), epochs=1)
    weights = {name: torch.randn_like(weight) for name, weight in before.model.state_dict().items()}
    values, known = weights["plan.weight"].chunk(2, dim=1)
    older = {**weights, "plan.weight": torch.cat([values[:, :4], known[:, :4]], dim=1)}
    rows = {name: tuple(row[:4] for row in table) for name, table in before.plans.by_emotion.items()}
    known_entries = {"entries": ENTRIES[:4], "mean": before.plans.mean[:4], "sd": (2.0,) * 4, "by_emotion": rows}
    plans = before.plans.model_copy(update=known_entries)
    before.save_last()
    meta = read_meta(shelf.found(before.run.checkpoints, "last")[0])
    checkpoint.save(tmp_path / "older", meta.model_copy(update={"plan": plans.model_dump(mode="json")}), older)
    trainer = Trainer(music(1), settings(), before.run, init=tmp_path / "older")
    assert (trainer.plans.entries, trainer.plans.sd) == (ENTRIES, (2.0,) * 4 + before.plans.sd[4:])
    new = trainer.model.get_parameter("plan.weight").chunk(2, dim=1)
    for now, then in zip(new, (values, known), strict=True):
        assert torch.equal(now[:, :4], then[:, :4])
        assert not now[:, 4:].any()


def test_a_checkpoint_of_another_shape_is_no_beginning(tmp_path: Path) -> None:
    before = new_trainer(tmp_path, epochs=1)
    before.save_last()
    other = settings().model_copy(update={"model": ModelSettings(**SHAPE | {"d_model": 64})})
    with pytest.raises(EmogenError, match="do not fit"):
        Trainer(music(), other, before.run, init=shelf.found(before.run.checkpoints, "last")[0])


def test_small_numbers_are_small_again_after_training(tmp_path: Path) -> None:
    """Whoever composes in the same process counts on them."""
    smallest = float(np.float32(1e-42))
    assert new_trainer(tmp_path, epochs=1).learn(Notebook())
    assert torch.tensor(smallest).mul(0.5).item() > 0
    assert np.float32(smallest) * np.float32(0.5) > 0
