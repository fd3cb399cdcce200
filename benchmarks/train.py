"""``python -m benchmarks.train``: optimizer steps beside peers, and what an epoch of the prepared corpus takes.

The same windows of music for all, in the same arithmetic: emogen's own step on full windows of random notes, and
Hugging Face's GPT-2 and x-transformers of the same shape on flat tokens, which are four times as many positions. The
peers take a batch in parts, so that it fits into memory, and drop nothing; emogen has the dropout of its defaults.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks import machine
from benchmarks.machine import Engine, Report, in_turns, timed
from benchmarks.peers import VOCABULARY, gpt2, x_transformer
from emogen.data.batches import Batch, Batches
from emogen.data.corpus import Corpus, open_corpus
from emogen.emotion import EMOTIONS
from emogen.errors import EmogenError
from emogen.model.checkpoint import EpochLoss
from emogen.music.plan import ENTRIES
from emogen.music.tokens import SIZES
from emogen.settings import SIZES as MODEL_SIZES
from emogen.settings import ModelSettings, Settings, load
from emogen.system.devices import default_threads
from emogen.training.run import Run
from emogen.training.trainer import Trainer, count_notes
from tests import training

POSITIONS_A_NOTE = 4
"""Of flat tokens: shift, pitch, velocity, duration."""


def main() -> None:
    """Print a table of steps, and one of an epoch where a corpus is prepared."""
    parser = machine.parser(__doc__, threads=default_threads())
    parser.add_argument("--data", default="", help="a prepared corpus (the one prepared last)")
    parser.add_argument("--size", choices=MODEL_SIZES, default="base")
    parser.add_argument("--batch-size", type=int, default=8, help="windows a step (%(default)s)")
    parser.add_argument("--part", type=int, default=2, help="windows that a peer computes at once (%(default)s)")
    parser.add_argument("--precision", choices=["auto", "bf16", "float32"], default="auto")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch that are timed (%(default)s)")
    args = parser.parse_args()
    options = {"batch_size": args.batch_size, "threads": args.threads, "precision": args.precision, "device": "cpu"}
    settings = load({"model": {"size": args.size}, "train": options}).settings
    with closing(Report(args)) as report, TemporaryDirectory() as folder, Run(Path(folder), "speed") as run:
        corpus = prepared(settings, args.data, report)
        trainer = Trainer(corpus or training.music(), settings, run)
        trainer.settle(Told(report))
        steps(trainer, args, report)
        if corpus:
            epoch(trainer, args.steps, report)


def prepared(settings: Settings, name: str, report: Report) -> Corpus | None:
    """A prepared corpus; without one its absence is told."""
    try:
        return open_corpus(settings.paths.data_home, name)
    except EmogenError as error:
        report.skip("seconds an epoch", f"{error}; {error.hint}")
        return None


class Told:
    """What a trainer has to say goes into the report."""

    def __init__(self, report: Report) -> None:
        self.say = report.say

    def step(self, epoch: int, batch: int, batches: int, loss: float, notes_per_s: float, left_s: float) -> None:
        """Nothing."""

    def epoch(self, loss: EpochLoss) -> None:
        """Nothing."""


def steps(trainer: Trainer, args: argparse.Namespace, report: Report) -> None:
    """Whole steps, from the batch to the changed weights."""
    shape, precision = trainer.settings.model, "bfloat16" if trainer.bf16 else "float32"
    rows, length = trainer.settings.train.batch_size, shape.context_notes
    ours = partial(trainer.step, full_batch(rows, length), Told(report))
    engines: dict[str, Engine] = {"emogen": partial(timed, ours)}
    positions, models = {"emogen": 1}, {"emogen": trainer.model}
    peers: dict[str, tuple[str, Callable[[ModelSettings, int], Any]]] = {
        "Hugging Face GPT-2": ("transformers", gpt2),
        "x-transformers": ("x-transformers", x_transformer),
    }
    for name, (package, make) in peers.items():
        if report.has(name, package):
            models[name], positions[name] = make(shape, POSITIONS_A_NOTE * length), POSITIONS_A_NOTE
            engines[name] = partial(timed, flat_step(models[name], rows, POSITIONS_A_NOTE * length, args.part, trainer))
    in_turns(engines, 1)  # what is slow once only
    engines["peak"] = lambda: 1 / machine.matmul_peak(precision)
    seconds = in_turns(engines, args.runs)
    s_a_flop = seconds.pop("peak")
    table = machine.compared(seconds, dict.fromkeys(seconds, rows * length), "notes")
    for row in table:
        name = row["engine"]
        work = train_flop(machine.multiply_adds(models[name]), shape, rows, length * positions[name])
        row["share_of_peak"] = work * machine.times_faster(seconds[name], s_a_flop)
        row["parameters"] = sum(weight.numel() for weight in models[name].parameters())
        row["positions"] = rows * length * positions[name]
    peak = 1 / statistics.median(s_a_flop)
    title = f"one step of {rows} x {length} notes, {args.size}, {precision}, threads {args.threads}; "
    report.table(f"{title}peak {peak / 1e9:,.0f} GFLOP/s", table)


def full_batch(rows: int, length: int) -> Batch:
    """Windows of random notes without padding, every condition known."""
    rng = np.random.default_rng(0)
    notes = rng.integers(0, SIZES, (rows, length + 1, 4), dtype=np.uint8)
    emotion = np.eye(len(EMOTIONS), dtype=np.float32)[rng.integers(0, len(EMOTIONS), rows)]
    plan = rng.normal(size=(rows, len(ENTRIES))).astype(np.float32)
    remaining_s = rng.uniform(0, 60, (rows, length)).astype(np.float32)
    no_charts = [torch.empty(rows, length, 0)] * 5
    return Batch(*map(torch.from_numpy, (notes, emotion, plan, remaining_s)), *no_charts)


def flat_step(model: Any, rows: int, positions: int, part: int, trainer: Trainer) -> Callable[[], None]:
    """A step of a peer on random tokens (rows, positions), with our optimizer, clipping and arithmetic."""
    ids = torch.randint(VOCABULARY, (rows, positions))
    by_hugging_face = hasattr(model, "transformer")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def step() -> None:
        for some in torch.split(ids, part):
            with torch.autocast("cpu", torch.bfloat16, enabled=bool(trainer.bf16)):
                loss = model(some, labels=some).loss if by_hugging_face else model(some)
            (loss * (len(some) / rows)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), trainer.settings.train.grad_clip)
        optimizer.step()
        optimizer.zero_grad()

    return step


def train_flop(weights: int, shape: ModelSettings, rows: int, positions: int) -> float:
    """Floating-point operations of a step: forward once, backward twice, a multiply-add is two.

    A position meets each of ``weights`` once, and in every layer half of the others twice (scores and their sum).
    """
    attention = shape.n_layers * shape.d_model * positions
    return 3 * 2 * rows * positions * (weights + attention)


def padding(batches: Batches, epoch: int = 0) -> tuple[int, float]:
    """Notes of an epoch, and the share of its positions that hold none."""
    lengths = [windows[:, 2] for windows in batches.epoch(epoch)]
    notes = sum(int(some.sum()) for some in lengths)
    return notes, 1 - notes / sum(len(some) * int(some.max()) for some in lengths)


def epoch(trainer: Trainer, steps: int, report: Report) -> None:
    """An epoch of the prepared corpus, from some of its steps; each batch is made while nothing else is done."""
    notes, padded = padding(trainer.train_batches)
    batches, watch = len(trainer.train_batches.epoch(0)), Told(report)
    trainer.step(trainer.train_batches.batch(0, 0), watch)
    done, waiting_s, total_s = 0, 0.0, 0.0
    for number in np.linspace(0, batches - 1, min(steps, batches)).astype(int).tolist():
        began = time.perf_counter()
        batch = trainer.train_batches.batch(0, number)
        waiting_s += time.perf_counter() - began
        trainer.step(batch, watch)
        total_s += time.perf_counter() - began
        done += count_notes(batch)
    row = {
        "notes": notes,
        "steps": batches,
        "steps_timed": min(steps, batches),
        "notes_per_s": done / total_s,
        "s_an_epoch": notes * total_s / done,
        "padding": padded,
        "waiting_for_data": waiting_s / total_s,
    }
    report.table(f"an epoch of {trainer.corpus.manifest.name}", [row])


if __name__ == "__main__":
    main()
