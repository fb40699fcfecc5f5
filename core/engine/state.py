"""What a run remembers between processes: counters as JSON, AdamW's moments by parameter name. No generator state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import AdamW

from core.errors import CheckpointError

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class State:
    """Counters of a run.

    Attributes:
        step: optimiser steps done, skipped ones included.
        skipped: of these, steps whose loss or gradient was not finite.
        skipped_in_row: length of the present streak of such steps.
        validated: the last step after which the held-out images were scored; -1 = never.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    validated: int = -1


def optimizer_tensors(optimizer: AdamW) -> dict[str, Tensor]:
    """Flatten AdamW's state into `<parameter name>/<moment>`; a parameter that never had a gradient has none."""
    found = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for moment, value in optimizer.state.get(parameter, {}).items():
                assert moment in _MOMENTS, f"AdamW holds a '{moment}' that would be lost"
                found[f"{name}/{moment}"] = value
    return found


def empty_moments(optimizer: AdamW, names: Iterable[str]) -> dict[str, Tensor]:
    """Make zeros to read stored moments into, laid out as their parameters are; a name without a parameter is left out.

    Args:
        optimizer: fresh.
        names: `<parameter name>/<moment>`, as `optimizer_tensors` gives them.
    """
    like = moments_of(optimizer, names)
    return {
        name: torch.zeros((), dtype=torch.float32) if name.endswith("/step") else torch.zeros_like(parameter).detach()
        for name, parameter in like.items()
    }


def moments_of(optimizer: AdamW, names: Iterable[str]) -> dict[str, Tensor]:
    """Give the parameter that each moment belongs to; a name without one is left out."""
    parameters = {name: p for g in optimizer.param_groups for name, p in zip(g["names"], g["params"], strict=True)}
    owners = ((name, name.rpartition("/")[0]) for name in names)
    return {name: parameters[owner] for name, owner in owners if owner in parameters}


def restore_optimizer(optimizer: AdamW, tensors: Mapping[str, Tensor], *, source: Path) -> None:
    """Put moments back, all or nothing, each on its parameter's device.

    Raises:
        CheckpointError: names every moment that is missing, belongs to no parameter, or has another shape.
    """
    parameters = {n: (p, g) for g in optimizer.param_groups for n, p in zip(g["names"], g["params"], strict=True)}
    named = {key.rpartition("/")[0] for key in tensors}
    wanted = {f"{name}/{moment}" for name in named & parameters.keys() for moment in _MOMENTS}
    problems = [f"missing: {key}" for key in sorted(wanted - tensors.keys())]
    problems += [f"unexpected: {key}" for key in sorted(tensors.keys() - wanted)]
    for key in sorted(wanted & tensors.keys()):
        name, _, moment = key.rpartition("/")
        shape = torch.Size() if moment == "step" else parameters[name][0].shape
        if tensors[key].shape != shape:
            problems.append(f"reshaped: {key} is {tuple(tensors[key].shape)} there and {tuple(shape)} here")
    if problems:
        raise CheckpointError(f"{source} does not fit this optimiser: {'; '.join(problems)}.")
    for name in named:
        parameter, group = parameters[name]
        on_device = bool(group.get("fused") or group.get("capturable"))
        optimizer.state[parameter] = {
            moment: tensors[f"{name}/{moment}"].to(parameter.device if moment != "step" or on_device else "cpu")
            for moment in _MOMENTS
        }
