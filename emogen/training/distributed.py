"""Processes that train one model together: those of ``--processes``, or of torchrun, which reaches many machines.

Every process holds the whole model and reads the same batches; each computes its share of a batch's windows, and the
gradients are summed, so the training is that of one process. Only the first one writes. A single process is a team too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore

if TYPE_CHECKING:
    from emogen.data.batches import Batch


class Team:
    """Processes, and which of them this is."""

    def __init__(self, rank: int = 0, size: int = 1, meeting: Path | None = None) -> None:
        """The process ``rank`` of ``size`` on this machine, which meet in the file ``meeting``.

        Without a file: the processes that torchrun started, according to its environment variables, or this one alone.
        """
        self.rank, self.size, self.here, self.meeting = rank, size, size, meeting
        if not meeting:
            self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
            self.here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        self.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def meet(self, device: torch.device) -> None:
        """Wait until all processes are here. From then on they can sum tensors on ``device``."""
        self.device = device
        if self.size > 1:
            backend = "nccl" if device.type == "cuda" else "gloo"
            if self.meeting:
                store = FileStore(str(self.meeting), self.size)
                dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)
            else:
                dist.init_process_group(backend)
            self.any(False)  # the first to arrive waits for the last

    def part(self) -> None:
        """End what ``meet`` began."""
        if self.size > 1:
            dist.destroy_process_group()

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch, possibly none."""
        return type(batch)(*(tensor[self.rank :: self.size] for tensor in batch))

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes of ``values``, which have the same shape everywhere.

        Raises:
            ConnectionError: a process is gone.
        """
        if self.size > 1:
            values = values.to(self.device)
            try:
                dist.all_reduce(values)
            except RuntimeError as error:
                raise ConnectionError("another process of this training is gone") from error
        return values

    def any(self, fact: bool) -> bool:
        """True if ``fact`` holds in any process."""
        return bool(self.sum(torch.tensor([float(fact)])).item()) if self.size > 1 else fact

    def sum_gradients(self, weights: Iterable[Tensor]) -> None:
        """Replace each weight's gradient by the sum over all processes, in one message."""
        if self.size > 1:
            weights = list(weights)
            gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
            flat = self.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for weight, part in zip(weights, torch.split(flat, [w.numel() for w in weights]), strict=True):
                weight.grad = part.view_as(weight)
