"""Training: the loop on one page, and what it needs to stop anywhere and resume exactly there.

(Above 300 lines, by a few: what is saved and what is restored should be read together.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from emogen.data.batches import Batch, Batches, plan_table
from emogen.data.corpus import SPLITS, Corpus
from emogen.errors import EmogenError
from emogen.model import checkpoint
from emogen.model.checkpoint import DatasetFacts, EpochLoss, Meta
from emogen.model.network import Composer
from emogen.model.opening import open_in_torch
from emogen.music import tokens
from emogen.settings import Settings
from emogen.system.devices import (
    check_compiler,
    default_threads,
    faster_in_bf16,
    is_out_of_memory,
    most_threads,
    pick_device,
)
from emogen.system.files import shown
from emogen.training import restoring, shelf
from emogen.training.arithmetic import WORTH, speed_of_bf16
from emogen.training.distributed import Team
from emogen.training.optimizer import learning_rate, make_optimizer
from emogen.training.progress import Progress, Watch, advise
from emogen.training.run import Run, stop_requested

VOICE_NOTES = 40_000
"""Notes on which the bundled voice is measured, or some more: seconds on a CPU."""
SAVE_SHARE = 0.05
"""Largest share of the time that is spent on saving ``last``."""


class Trainer:
    """A model, its optimizer and their progress."""

    def __init__(
        self, corpus: Corpus, settings: Settings, run: Run, init: Path | None = None, team: Team | None = None
    ) -> None:
        """``init`` is a checkpoint of the same shape to start from: its weights, and the scale of its plans."""
        s = settings.train
        self.settings, self.corpus, self.run, self.team = settings, corpus, run, team or Team()
        self.device = pick_device(s.device)
        self.bf16 = {"bf16": True, "float32": False, "auto": faster_in_bf16(self.device)}[s.precision]
        """Whether the forward pass is computed in bfloat16; None: not known yet, see ``settle``."""
        self.bf16_on_cpu: bool | None = None
        """What was found to be faster, where it was timed, now or before the training went on."""
        self.settled = False
        here = self.team.here
        torch.set_num_threads(min(s.threads or default_threads(here), most_threads(here)))
        torch.manual_seed(s.seed)
        self.model = Composer(settings.model)
        self.init, scale = "", None
        self.ancestors: tuple[DatasetFacts, ...] = ()
        if init:
            begun = checkpoint.read_meta(init)
            self.init, self.ancestors = shelf.label(init, begun), (*begun.ancestors, begun.dataset)
            scale = checkpoint.plans_of(init, begun, older=True)
            checkpoint.load_into(self.model, init)
        self.model.to(self.device)
        if s.compile:
            check_compiler(self.device)
        self.optimizer = make_optimizer(self.model, s)
        self.progress = Progress()
        charted = settings.model.chart
        self.plans = plan_table(corpus, settings.model.context_notes, s.seed, scale, charted)
        if not len(corpus.clips("valid")):
            hint = "prepare one with at least three songs: emogen prepare FOLDER"
            raise EmogenError("the prepared corpus has no validation clips", hint)
        size = (s.batch_size, settings.model.context_notes, self.plans)
        self.train_batches = Batches(corpus, "train", *size, augment=s, charted=charted)
        self.valid_batches = Batches(corpus, "valid", *size, charted=charted)
        self.voice_loss: float | None = None
        """What the bundled voice needs on the same validation clips, where that was measured."""
        self.parts = min(s.accumulate, s.batch_size)
        self.saved_at, self.save_cost_s = time.monotonic(), 0.0

    def measure_voice(self) -> float:
        """What the bundled voice needs on the validation clips, in nats per note; of many notes, on some of them."""
        meta = checkpoint.read_meta(checkpoint.VOICE)
        voice = open_in_torch(checkpoint.VOICE, meta, self.device.type)
        plans, context = checkpoint.plans_of(checkpoint.VOICE, meta), meta.model.context_notes
        batches = Batches(self.corpus, "valid", 2, context, plans, charted=meta.model.chart)
        notes, nats = 0, 0.0
        every = 1 + sum(int(windows[:, 2].sum()) for windows in batches.epoch(0)) // VOICE_NOTES
        for i in range(0, len(batches.epoch(0)), every):
            batch = batches.batch(0, i)
            with torch.no_grad():
                nats += voice.loss(*(tensor.to(self.device) for tensor in batch)).sum().item()
            notes += count_notes(batch)
        self.voice_loss = nats / notes
        return self.voice_loss

    def learn(self, watch: Watch) -> bool:
        """Train until all epochs are done or patience runs out; False if it was asked to stop, and then it is saved.

        Raises:
            EmogenError: the loss is not finite, memory is too small, or a checkpoint cannot be written.
            KeyboardInterrupt: at the second Ctrl-C, anywhere.
        """
        s, p = self.settings.train, self.progress
        with flushed(), stop_requested() as stop:
            while p.epoch < s.epochs and not self.out_of_patience():
                self.settle(watch)
                batches = len(self.train_batches.epoch(p.epoch))
                while not (stopped := self.team.any(stop.is_set())) and p.batch < batches:
                    began = time.perf_counter()
                    rate = learning_rate(s, p.step, (p.epoch + p.batch / batches) / s.epochs)
                    for group in self.optimizer.param_groups:
                        group["lr"] = rate
                    # dropout depends only on the process and the step, so resuming is exact
                    torch.manual_seed(s.seed << 32 | self.team.rank << 24 | p.step)
                    nats, notes = self.step(self.train_batches.batch(p.epoch, p.batch), watch)
                    p.count(nats, notes, time.perf_counter() - began)
                    left_s = p.seconds * ((s.epochs - p.epoch) * batches / p.batch - 1)
                    watch.step(p.epoch + 1, p.batch, batches, p.nats / p.notes, p.notes / p.seconds, left_s)
                    if self.save_is_due():
                        self.save_last()
                if stopped:
                    self.save_last()
                    return False
                watch.epoch(self.finish_epoch())
                if advice := advise(p.history):
                    watch.say(advice)
        return True

    def settle(self, watch: Watch) -> None:
        """What is decided once, before the first step: the arithmetic where it is left to us, and compiling.

        Timing leaves weights, optimizer, data and random numbers as they are. A team does as its first process finds.
        """
        s = self.settings.train
        if self.settled:
            return
        self.settled = True
        if s.threads > (most := most_threads(self.team.here)):
            watch.say(f"--threads {s.threads} is more than this machine has cores for: {most} it is")
        if self.bf16 is None:
            speed = self.time_bf16(watch)
            self.bf16 = self.bf16_on_cpu = self.team.any(self.team.leads and speed > WORTH)
            chosen = "bfloat16" if self.bf16 else "float32"
            watch.say(f"computing in {chosen}: bfloat16 was timed to be {speed:.1f} times as fast as float32")
        if s.compile:
            self.model.compile(dynamic=True)  # once, for windows of all lengths

    def time_bf16(self, watch: Watch) -> float:
        """How many times as fast training is in bfloat16, on the batch of middle size of the epoch under way."""
        epoch = self.progress.epoch
        sizes = [windows[:, 2].max() * len(windows) for windows in self.train_batches.epoch(epoch)]
        batch = self.train_batches.batch(epoch, sorted(range(len(sizes)), key=sizes.__getitem__)[len(sizes) // 2])

        def step(windows: int, bf16: bool) -> None:
            self.bf16 = bf16
            self.add_up(Batch(*(part[: windows * self.team.size] for part in batch)), watch)
            self.optimizer.zero_grad()

        with torch.random.fork_rng(devices=()):
            return speed_of_bf16(step, -(-len(batch.notes) // self.team.size))

    def step(self, batch: Batch, watch: Watch) -> tuple[float, int]:
        """One optimizer step; returns the summed nats of the batch and its number of notes."""
        nats, notes = self.add_up(batch, watch)
        self.team.sum_gradients(self.model.parameters())
        nats = self.team.sum(torch.tensor(nats, dtype=torch.float64)).item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.train.grad_clip)
        self.check_finite(nats, norm.item())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return nats, notes

    def add_up(self, batch: Batch, watch: Watch) -> tuple[float, int]:
        """``gradients``, in more parts each time that memory runs out."""
        while True:
            try:
                return self.gradients(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.optimizer.zero_grad()
                if self.parts >= len(batch.notes):
                    hint = "start again with --fresh and a smaller --size or a shorter --max-seq-len"
                    raise EmogenError("out of memory even with one window at a time", hint) from None
            self.parts = min(2 * self.parts, len(batch.notes))  # outside the except clause, which keeps the memory
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            watch.say(f"out of memory: each batch is now computed in {self.parts} parts (--accumulate {self.parts})")

    def gradients(self, batch: Batch) -> tuple[float, int]:
        """Accumulate our share of the gradient of the mean nats per note; returns our summed nats, and all notes."""
        self.model.train()
        notes, total = count_notes(batch), 0.0
        for by_family in self.nats(self.team.share(batch)):
            nats = by_family.sum()
            (nats / notes).backward()  # type: ignore[no-untyped-call]
            total += nats.item()
        return total, notes

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Nats per note of the valid split by family, with emotion and time known and the plan hidden."""
        self.model.eval()
        sums = torch.zeros(len(tokens.FAMILIES) + 1, dtype=torch.float64)  # nats by family, and notes
        for i in range(self.team.rank, len(self.valid_batches.epoch(0)), self.team.size):
            batch = self.valid_batches.batch(0, i)
            sums[-1] += count_notes(batch)
            for by_family in self.nats(batch):
                sums[:-1] += by_family.cpu()
        sums = self.team.sum(sums)
        return dict(zip(tokens.FAMILIES, (sums[:-1] / sums[-1]).tolist(), strict=True))

    def nats(self, batch: Batch) -> Iterator[Tensor]:
        """Summed nats (4,) by family, for one part of a batch after the other."""
        for part in zip(*(tensor.chunk(self.parts) for tensor in batch), strict=True):
            if not len(part[0]):  # more processes than windows
                continue
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bool(self.bf16)):
                by_family = self.model.loss(*(tensor.to(self.device) for tensor in part))
            yield by_family  # outside of autocast: the caller's work is not part of the forward pass

    def check_finite(self, *values: float) -> None:
        """Stop if a value is NaN or infinite, before it reaches a checkpoint."""
        if not all(map(math.isfinite, values)):
            raise EmogenError(
                f"the loss is no longer finite at step {self.progress.step + 1}; the last checkpoint is untouched",
                f"start again with --fresh and a --learning-rate below {self.settings.train.learning_rate:g}",
            )

    def finish_epoch(self) -> EpochLoss:
        """Evaluate, write the checkpoints and logs of the epoch, and move on to the next."""
        p, s, by_family = self.progress, self.settings.train, self.evaluate()
        valid = sum(by_family.values())
        self.check_finite(valid)
        loss = EpochLoss(
            epoch=p.epoch + 1, train=p.nats / p.notes, valid=valid, valid_by_family=by_family, seconds=p.seconds
        )
        p.history.append(loss)
        p.epoch, p.batch, p.nats, p.notes, p.seconds = p.epoch + 1, 0, 0.0, 0, 0.0
        if self.team.leads:
            rate = self.optimizer.param_groups[0]["lr"]
            voice = {} if self.voice_loss is None else {"voice": self.voice_loss}
            self.run.record({**loss.model_dump(), "step": p.step, "learning_rate": rate, **voice})
        if valid in sorted(each.valid for each in p.history)[: s.keep_best]:
            self.save("best", s.keep_best)
        if p.epoch % s.checkpoint_every == 0 or p.epoch == s.epochs:
            self.save("epoch", s.keep_periodic)
        self.save_last()
        return loss

    def out_of_patience(self) -> bool:
        """Whether the valid loss has not improved for ``patience`` epochs."""
        patience, valid = self.settings.train.patience, [loss.valid for loss in self.progress.history]
        return bool(patience and len(valid) > patience and min(valid[-patience:]) >= min(valid[:-patience]))

    def save_is_due(self) -> bool:
        """Whether ``last`` is old enough, given the cost of saving, to be saved again."""
        wait_s = max(self.settings.train.save_every_s, self.save_cost_s / SAVE_SHARE)
        return time.monotonic() - self.saved_at > wait_s

    def save_last(self) -> None:
        """Save the present state as ``last``."""
        began = time.monotonic()
        self.save("last", keep=1)
        self.saved_at = time.monotonic()
        self.save_cost_s = self.saved_at - began

    def save(self, kind: str, keep: int) -> None:
        """Write a checkpoint of the run, and remove all but ``keep`` of its kind."""
        if not self.team.leads:
            return
        self.run.keep()
        if not self.model.is_finite():
            self.check_finite(math.nan)
        p, manifest, folder = self.progress, self.corpus.manifest, self.run.checkpoints
        clips = {split: len(self.corpus.clips(split)) for split in SPLITS}
        dataset = DatasetFacts(name=manifest.name, fingerprint=manifest.fingerprint, clips=clips)
        where = {"run": shown(self.run.name), "epoch": p.epoch, "step": p.step, "history": tuple(p.history)}
        origin = {
            "init": self.init,
            "ancestors": self.ancestors,
            "processes": self.team.size,
            "voice_loss": self.voice_loss,
        }
        settings = self.settings.train.model_dump(mode="json")
        meta = Meta.of(self.model, self.plans, dataset, train=settings, bf16_on_cpu=self.bf16_on_cpu, **where, **origin)
        place = {name: value for name, value in vars(p).items() if name != "history"}  # that is in the meta
        trainer = {"optimizer": self.optimizer.state_dict(), "progress": place}
        path = folder / shelf.name(kind, meta)
        checkpoint.save(path, meta, self.model.state_dict(), trainer if kind in shelf.RESUMABLE else None)
        shelf.rotate(folder, kind, keep)

    def resume(self, path: Path) -> None:
        """Resume from a checkpoint of this run.

        Raises:
            EmogenError: it is damaged, holds weights only, or was trained on other data.
        """
        meta = checkpoint.read_meta(path)
        if meta.dataset.fingerprint != self.corpus.manifest.fingerprint:
            raise EmogenError(
                f"{path.name} was trained on other data ({meta.dataset.name}) than this ({self.corpus.manifest.name})",
                "choose the data with --data, or start another run with --name",
            )
        self.init, self.ancestors, self.voice_loss = meta.init, meta.ancestors, meta.voice_loss
        self.plans = self.train_batches.plans = self.valid_batches.plans = checkpoint.plans_of(path, meta)
        self.bf16_on_cpu = meta.bf16_on_cpu
        self.bf16 = self.bf16_on_cpu if self.bf16 is None else self.bf16
        state = checkpoint.load_trainer(path)
        checkpoint.load_into(self.model, path)
        try:
            self.progress = restoring.progress(state["progress"], meta)
            restoring.restore(self.optimizer, state["optimizer"], meta.step)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise EmogenError(f"the parts of {path} do not fit together: {error}", checkpoint.TAKE_ANOTHER) from None


@contextmanager
def flushed() -> Iterator[None]:
    """Numbers too small to matter are zero inside: a CPU takes far longer for them. Outside they may be wanted."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def count_notes(batch: Batch) -> int:
    """Number of notes to be predicted in a batch (ends of pieces do not count)."""
    return int(tokens.is_note(batch.notes[:, 1:]).sum())
