"""Processes that train one model together: ``torchrun --nproc-per-node 3 -m emogen train ...``.

Every process holds the whole model and reads the same batches; each computes its share of a batch's windows, and the
gradients are summed, so the training is that of one process. Only the first one writes. A single process is a team too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from emogen.data.batches import Batch


class Team:
    """The processes that torchrun started, according to its environment variables; without torchrun, this process."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def meet(self, device: torch.device) -> None:
        """Wait until all processes are here. From then on they can sum tensors on ``device``."""
        self.device = device
        if self.size > 1:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            self.any(False)  # the first to arrive waits for the last

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch, possibly none."""
        return type(batch)(*(tensor[self.rank :: self.size] for tensor in batch))

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes of ``values``, which have the same shape everywhere."""
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
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
