"""Where and how to compute: device, arithmetic, threads, and how to recognise that memory ran out.

torch is imported only where it is needed: composing on a CPU needs only the number of threads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emogen.errors import EmogenError

if TYPE_CHECKING:
    import torch

COMPILERS = ("g++", "clang++", "cl")


def pick_device(name: str) -> torch.device:
    """The device of a setting; auto takes CUDA (each process of torchrun its own), then MPS, then the CPU."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device in there if there[device])
    if not there[name]:
        raise EmogenError(
            f"this computer, or its PyTorch, has no device '{name}'", "--device auto takes what is available"
        )
    own = os.environ.get("LOCAL_RANK") if name == "cuda" else None
    return torch.device(name, int(own)) if own else torch.device(name)


def faster_in_bf16(device: torch.device) -> bool | None:
    """Whether a device trains faster in bfloat16: recent GPUs do, MPS does not; None for a CPU: only timing tells."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)  # emulated, as on a T4, it is slower
    return None if device.type == "cpu" else False


def check_compiler(device: torch.device) -> None:
    """Raise an error if torch.compile would need a C++ compiler and none is installed."""
    if device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
        hint = f"install one of {', '.join(COMPILERS)}, or leave --compile out"
        raise EmogenError("--compile needs a C++ compiler, and none is installed", hint)


def default_threads(processes: int = 1) -> int:
    """One fewer than the cores, at most 3: with every core taken, any other busy program stalls each operation.

    ``processes`` that compute together on this machine share the cores; the threads are those of each.
    """
    return max(1, min(3, ((os.cpu_count() or 2) - 1) // processes))


def most_threads(processes: int = 1) -> int:
    """One thread per core: more of them wait for each other at every operation, and use up the cores by waiting."""
    return max(1, (os.cpu_count() or 1) // processes)


@contextmanager
def threads(number: int, in_torch: bool = False) -> Iterator[None]:
    """Compute in NumPy, or ``in_torch``, with that many threads; afterwards the process has those it had before.

    In PyTorch, NumPy gets one thread: two pools would take each other's cores.
    """
    from threadpoolctl import threadpool_limits

    if in_torch:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(number)
    try:
        with threadpool_limits(1 if in_torch else number, user_api="blas"):
            yield
    finally:
        if in_torch:
            torch.set_num_threads(before)


NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "bad allocation",
    "could not create a primitive",  # oneDNN's, also of a descriptor or an object of memory
    "could not create a memory",
    "cannot allocate memory",
)
"""What the libraries below PyTorch say when memory runs out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whichever device and in whichever library."""
    import torch

    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in words for word in NO_MEMORY)
