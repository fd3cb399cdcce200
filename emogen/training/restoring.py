"""What a checkpoint says of the training it was saved from, believed only where it can be true.

An optimizer's kernels trust their state: one number too few in a moment, and they write into other memory. So the state
to go on from must be like the one that the optimizer makes by itself, weight for weight: whichever optimizer it is, it
is asked for that first.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.optim import Optimizer

from emogen.model.checkpoint import Count, Meta
from emogen.training.progress import Progress


class Place(BaseModel):
    """Where in an epoch a training was saved: what of ``Progress`` the metadata does not hold."""

    model_config = ConfigDict(extra="forbid", strict=True)

    epoch: Count
    batch: Count
    step: Count
    nats: float = Field(ge=0, allow_inf_nan=False)
    notes: Count
    seconds: float = Field(ge=0, allow_inf_nan=False)


def progress(saved: Any, meta: Meta) -> Progress:
    """The place to go on from.

    Raises:
        ValueError: it cannot be, or is not that of the metadata.
    """
    try:
        place = Place.model_validate(saved)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'its place'}: {first['msg']}") from None
    if (place.epoch, place.step) != (meta.epoch, meta.step) or len(meta.history) != meta.epoch:
        raise ValueError("its place is not that of its metadata")
    if (place.batch == 0) != (place.notes == 0):
        raise ValueError("its place has batches without notes, or notes without batches")
    return Progress(**place.model_dump(), history=list(meta.history))


def restore(optimizer: Optimizer, saved: Any, step: int) -> None:
    """Give an optimizer the state that it had after ``step`` steps. Its options stay those of the settings.

    Raises:
        ValueError: not a state of this optimizer; a number that is none, or a negative mean of squares.
    """
    begin(optimizer)
    own = optimizer.state_dict()
    groups = [group["params"] for group in own["param_groups"]]
    if not isinstance(saved, dict) or [group["params"] for group in saved["param_groups"]] != groups:
        raise ValueError("another optimizer's state; its weights can begin a new training, with --init")
    state = saved["state"]
    if state.keys() != (own["state"].keys() if step else {}.keys()):
        raise ValueError("not the state of all weights")
    checked = {weight: _checked(state[weight], own["state"][weight], step) for weight in state}
    optimizer.load_state_dict({"state": checked, "param_groups": own["param_groups"]})


def begin(optimizer: Optimizer) -> None:
    """Let an optimizer make its state, by a step of no length along no gradient; the weights stay as they are."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _checked(saved: dict[str, Any], own: dict[str, Any], step: int) -> dict[str, Any]:
    """One weight's state, in memory that it shares with no other, if it is of the kind of the optimizer's ``own``."""
    if saved.keys() != own.keys():
        raise ValueError("not the state of this optimizer")
    checked: dict[str, Any] = {}
    for name, model in own.items():
        value = saved[name]
        if type(value) is not type(model):
            raise ValueError(f"{name} is of another type")
        if isinstance(value, Tensor):
            if (value.shape, value.dtype, value.layout) != (model.shape, model.dtype, model.layout):
                raise ValueError(f"{name} is {tuple(value.shape)}, not {tuple(model.shape)}, or of other numbers")
            value = torch.empty_like(model, device="cpu").copy_(value)
            if not value.isfinite().all():
                raise ValueError(f"{name} holds what is no number")
            if name.endswith("_sq") and (value < 0).any():
                raise ValueError(f"{name}, a mean of squares, is below 0")
        if name == "step" and float(value) != step:
            raise ValueError(f"it counts {float(value):.0f} steps, not {step}")
        checked[name] = value
    return checked
