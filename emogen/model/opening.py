"""A checkpoint as the network that does best what is asked: PyTorch's or NumPy's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from emogen.errors import EmogenError
from emogen.model.checkpoint import Meta, load_into, load_numpy
from emogen.model.numpy_network import NumpyComposer
from emogen.settings import SampleSettings
from emogen.system.devices import default_threads, pick_device

if TYPE_CHECKING:
    from emogen.model.network import Composer


def open_model(path: Path, meta: Meta, sample: SampleSettings) -> Composer:
    """The network of a checkpoint, where the settings want it, with as many threads as they say."""
    import torch

    from emogen.model.network import Composer

    device = pick_device(sample.device)
    int8 = sample.precision == "int8"
    if int8 and device.type != "cpu":
        raise EmogenError(f"--precision int8 is for the CPU, not for {device}", "leave it out, or --device cpu")
    torch.set_num_threads(sample.threads or (1 if int8 else default_threads()))
    threadpool_limits(1 if int8 else sample.threads or 1, user_api="blas")  # two pools would take each other's cores
    model = Composer(meta.model)
    load_into(model, path)
    return model.to(device).eval()


def open_to_compose(path: Path, meta: Meta, sample: SampleSettings) -> Composer | NumpyComposer:
    """As ``open_model``, but where NumPy alone can do what the settings want, torch is not imported."""
    if sample.device != "cpu" or sample.precision == "int8":
        return open_model(path, meta, sample)
    threadpool_limits(sample.threads or 1, user_api="blas")
    return load_numpy(path, meta)


def fastest(model: Composer | NumpyComposer, sample: SampleSettings) -> Composer | NumpyComposer:
    """A network as it composes fastest: on the CPU in NumPy, with weights of one byte if they are asked for."""
    if isinstance(model, NumpyComposer) or model.device.type != "cpu":
        return model
    network = in_numpy(model)
    if sample.precision == "int8":
        from emogen.model.int8 import shrink

        shrink(network)
    return network


def in_numpy(model: Composer) -> NumpyComposer:
    """A network on the CPU, with the same weights."""
    return NumpyComposer(model.settings, {name: weight.numpy() for name, weight in model.state_dict().items()})
