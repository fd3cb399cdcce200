"""Training: the loop on one page, and what it needs to stop anywhere and go on exactly there."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from emogen.data.batches import Batch, Batches, plan_table
from emogen.data.corpus import SPLITS, Corpus
from emogen.errors import EmogenError
from emogen.model import checkpoint
from emogen.model.checkpoint import DatasetFacts, EpochLoss, Meta
from emogen.model.network import Composer
from emogen.music import tokens
from emogen.settings import Settings, TrainSettings
from emogen.system.devices import check_compiler, default_threads, faster_in_bf16, is_out_of_memory, pick_device
from emogen.system.files import shown
from emogen.training import restoring, shelf
from emogen.training.distributed import Team
from emogen.training.progress import Progress, advise
from emogen.training.run import Run, stop_requested

SAVE_SHARE = 0.05
"""Largest share of the time that may go into saving ``last``."""


class Watch(Protocol):
    """Somebody who is told how training goes."""

    def step(self, epoch: int, batch: int, batches: int, loss: float, notes_per_s: float, left_s: float) -> None:
        """A step is done: its epoch (from 1), batches done of it, its nats per note so far, time left in all."""

    def epoch(self, loss: EpochLoss) -> None:
        """An epoch is done."""

    def say(self, text: str) -> None:
        """Something a person should know."""


class Trainer:
    """A model, its optimizer and where they stand."""

    def __init__(
        self, corpus: Corpus, settings: Settings, run: Run, init: Path | None = None, team: Team | None = None
    ) -> None:
        """``init`` is a checkpoint of the same shape to begin from: its weights, and the scale of its plans."""
        s = settings.train
        self.settings, self.corpus, self.run, self.team = settings, corpus, run, team or Team()
        self.device = pick_device(s.device)
        self.bf16 = s.precision == "bf16" or (s.precision == "auto" and faster_in_bf16(self.device))
        torch.set_num_threads(s.threads or default_threads())
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
            self.model.compile(dynamic=True)  # one for windows of all lengths
        self.optimizer = make_optimizer(self.model, s)
        self.progress = Progress()
        self.plans = plan_table(corpus, settings.model.context_notes, s.seed, scale)
        if not len(corpus.clips("valid")):
            hint = "prepare one of three songs or more: emogen prepare FOLDER"
            raise EmogenError("the prepared corpus has no validation clips", hint)
        size = (s.batch_size, settings.model.context_notes, self.plans)
        self.train, self.valid = Batches(corpus, "train", *size, augment=s), Batches(corpus, "valid", *size)
        self.parts = min(s.accumulate, s.batch_size)
        self.saved_at, self.save_cost_s = time.monotonic(), 0.0

    def learn(self, watch: Watch) -> bool:
        """Train until all epochs are done or patience is at its end; False if somebody asked to stop: then it is saved.

        Raises:
            EmogenError: the loss is no longer finite, memory is too small, or a checkpoint cannot be written.
            KeyboardInterrupt: at the second Ctrl-C, wherever it finds us.
        """
        s, p = self.settings.train, self.progress
        with stop_requested() as stop:
            while p.epoch < s.epochs and not self.out_of_patience():
                batches = len(self.train.epoch(p.epoch))
                while not (stopped := self.team.any(stop.is_set())) and p.batch < batches:
                    began = time.perf_counter()
                    self.set_learning_rate((p.epoch + p.batch / batches) / s.epochs)
                    # dropout depends on the process and the step alone, so resuming is exact
                    torch.manual_seed(s.seed << 32 | self.team.rank << 24 | p.step)
                    nats, notes = self.step(self.train.batch(p.epoch, p.batch), watch)
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

    def step(self, batch: Batch, watch: Watch) -> tuple[float, int]:
        """One optimizer step; returns the summed nats of the batch and its number of notes."""
        while True:
            try:
                nats, notes = self.gradients(batch)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.optimizer.zero_grad()
                if self.parts >= len(batch.notes):
                    hint = "begin anew with --fresh and a smaller --size or a shorter --max-seq-len"
                    raise EmogenError("out of memory even with one window at a time", hint) from None
            self.parts = min(2 * self.parts, len(batch.notes))  # outside the except, which holds on to the memory
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            watch.say(f"out of memory: each batch is now computed in {self.parts} parts (--accumulate {self.parts})")
        self.team.sum_gradients(self.model.parameters())
        nats = self.team.sum(torch.tensor(nats, dtype=torch.float64)).item()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.train.grad_clip)
        self.check_finite(nats, norm.item())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return nats, notes

    def gradients(self, batch: Batch) -> tuple[float, int]:
        """Adds up our share of the gradient of the mean nats per note; returns our summed nats, and all notes."""
        self.model.train()
        notes, total = count_notes(batch), 0.0
        for by_family in self.nats(self.team.share(batch)):
            nats = by_family.sum()
            (nats / notes).backward()  # type: ignore[no-untyped-call]
            total += nats.item()
        return total, notes

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Nats per note of the valid split, by family, with the emotion and the time known and the plan hidden."""
        self.model.eval()
        sums = torch.zeros(5, dtype=torch.float64)  # nats by family, and notes
        for i in range(self.team.rank, len(self.valid.epoch(0)), self.team.size):
            batch = self.valid.batch(0, i)
            sums[4] += count_notes(batch)
            for by_family in self.nats(batch):
                sums[:4] += by_family.cpu()
        sums = self.team.sum(sums)
        return dict(zip(tokens.FAMILIES, (sums[:4] / sums[4]).tolist(), strict=True))

    def nats(self, batch: Batch) -> Iterator[Tensor]:
        """Summed nats of each family (4,) of one part of a batch after the other."""
        for part in zip(*(tensor.chunk(self.parts) for tensor in batch), strict=True):
            if not len(part[0]):  # more processes than windows
                continue
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                by_family = self.model.loss(*(tensor.to(self.device) for tensor in part))
            yield by_family  # outside: what is done with it is no part of the forward pass

    def check_finite(self, *values: float) -> None:
        """Stop where numbers are no longer numbers, before they reach a checkpoint."""
        if not all(map(math.isfinite, values)):
            raise EmogenError(
                f"the loss is no longer finite at step {self.progress.step + 1}; the last checkpoint is untouched",
                f"begin anew with --fresh and a --learning-rate below {self.settings.train.learning_rate:g}",
            )

    def set_learning_rate(self, done: float) -> None:
        """Linear warm-up, then a cosine down to a twentieth; ``done`` is the share of all epochs that is behind."""
        s = self.settings.train
        warm = min(1.0, (self.progress.step + 1) / max(s.warmup_steps, 1))
        cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * min(warm, cosine)

    def finish_epoch(self) -> EpochLoss:
        """Evaluate, write the epoch's checkpoints and logs, and move on to the next."""
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
            self.run.record({**loss.model_dump(), "step": p.step, "learning_rate": rate})
        if valid in sorted(each.valid for each in p.history)[: s.keep_best]:
            self.save("best", s.keep_best)
        if p.epoch % s.checkpoint_every == 0 or p.epoch == s.epochs:
            self.save("epoch", s.keep_periodic)
        self.save_last()
        return loss

    def out_of_patience(self) -> bool:
        """Whether the valid loss has not been bettered for as many epochs as we wait."""
        patience, valid = self.settings.train.patience, [loss.valid for loss in self.progress.history]
        return bool(patience and len(valid) > patience and min(valid[-patience:]) >= min(valid[:-patience]))

    def save_is_due(self) -> bool:
        """Whether ``last`` is old enough, and saving cheap enough, to save again."""
        wait_s = max(self.settings.train.save_every_s, self.save_cost_s / SAVE_SHARE)
        return time.monotonic() - self.saved_at > wait_s

    def save_last(self) -> None:
        """Save where we are as ``last``."""
        began = time.monotonic()
        self.save("last", keep=1)
        self.saved_at = time.monotonic()
        self.save_cost_s = self.saved_at - began

    def save(self, kind: str, keep: int) -> None:
        """Write a checkpoint of the run, and remove all but ``keep`` of its kind."""
        if not self.team.leads:
            return
        if not self.model.is_finite():
            self.check_finite(math.nan)
        p, manifest, folder = self.progress, self.corpus.manifest, self.run.checkpoints
        clips = {split: len(self.corpus.clips(split)) for split in SPLITS}
        dataset = DatasetFacts(name=manifest.name, fingerprint=manifest.fingerprint, clips=clips)
        where = {"run": shown(self.run.name), "epoch": p.epoch, "step": p.step, "history": tuple(p.history)}
        origin = {"init": self.init, "ancestors": self.ancestors, "processes": self.team.size}
        settings = self.settings.train.model_dump(mode="json")
        meta = Meta.of(self.model, self.plans, dataset, train=settings, **where, **origin)
        place = {name: value for name, value in vars(p).items() if name != "history"}  # that is in the meta
        trainer = {"optimizer": self.optimizer.state_dict(), "progress": place}
        path = folder / shelf.name(kind, meta)
        checkpoint.save(path, meta, self.model.state_dict(), trainer if kind in shelf.RESUMABLE else None)
        shelf.rotate(folder, kind, keep)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of this run.

        Raises:
            EmogenError: it is damaged, holds weights only, or was trained on other data.
        """
        meta = checkpoint.read_meta(path)
        if meta.dataset.fingerprint != self.corpus.manifest.fingerprint:
            raise EmogenError(
                f"{path.name} was trained on other data ({meta.dataset.name}) than this ({self.corpus.manifest.name})",
                "choose the data with --data, or begin another run with --name",
            )
        self.init, self.ancestors = meta.init, meta.ancestors
        self.plans = self.train.plans = self.valid.plans = checkpoint.plans_of(path, meta)
        state = checkpoint.load_trainer(path)
        checkpoint.load_into(self.model, path)
        try:
            self.progress = restoring.progress(state["progress"], meta)
            restoring.restore(self.optimizer, state["optimizer"], meta.step)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise EmogenError(f"{path} does not fit together: {error}", checkpoint.TAKE_ANOTHER) from None


def make_optimizer(model: Composer, s: TrainSettings) -> torch.optim.AdamW:
    """AdamW that decays weight matrices only, not biases."""
    decay = [w for w in model.parameters() if w.ndim > 1]
    plain = [w for w in model.parameters() if w.ndim < 2]
    groups = [{"params": decay, "weight_decay": s.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=s.learning_rate, betas=(0.9, 0.95), fused=True)


def count_notes(batch: Batch) -> int:
    """Notes to be predicted in a batch (ends of pieces are no notes)."""
    return int(tokens.is_note(batch.notes[:, 1:]).sum())
