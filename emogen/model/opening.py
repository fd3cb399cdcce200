"""Opens a checkpoint with the network that suits the device: NumPy's on a CPU, PyTorch's elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from emogen.errors import EmogenError
from emogen.model.checkpoint import Meta, check_fits, load_into, load_numpy
from emogen.model.numpy_growing import NumpyReader
from emogen.model.numpy_network import NumpyComposer
from emogen.system.devices import pick_device

if TYPE_CHECKING:
    from emogen.model.growing import Reader
    from emogen.model.network import Composer


def open_network(path: Path, meta: Meta, device: str = "cpu", precision: str = "float32") -> Composer | NumpyComposer:
    """The network of a checkpoint, for composing. On a CPU, in float32, torch is not imported.

    Args:
        device: as ``SampleSettings.device``.
        precision: as ``SampleSettings.precision``.

    Raises:
        EmogenError: the weights cannot be read, do not fit, or are not all finite, and then no piece would ever end;
            the device is missing; int8 on anything but a CPU.
    """
    on_cpu = device == "cpu" or pick_device(device).type == "cpu"
    if precision == "int8" and not on_cpu:
        raise EmogenError(
            f"precision int8 is for the CPU, not for {pick_device(device)}", "leave it out, or compute on the CPU"
        )
    network = load_numpy(path, meta) if on_cpu else open_in_torch(path, meta, device)
    if precision == "int8" and isinstance(network, NumpyComposer):
        from emogen.model.int8 import shrink

        shrink(network)
    return network


def open_in_torch(path: Path, meta: Meta, device: str) -> Composer:
    """The network of a checkpoint in PyTorch, for measuring likelihoods.

    Raises:
        EmogenError: the weights cannot be read or do not fit; the device is missing.
    """
    from emogen.model.network import Composer

    check_fits(path, meta.model)
    model = Composer(meta.model)
    load_into(model, path)
    return model.to(pick_device(device)).eval()


def reader_of(network: Composer | NumpyComposer, rows: int) -> Reader | NumpyReader:
    """A reader of ``rows`` pieces that grow note by note."""
    if isinstance(network, NumpyComposer):
        return NumpyReader(network, rows)
    from emogen.model.growing import Reader

    return Reader(network, rows)
