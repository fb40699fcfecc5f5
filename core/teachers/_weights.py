"""The weights of networks that learn without a gradient: copies, moving averages, and fresh draws."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def still(module: M) -> M:
    """Give the module back in evaluation mode, none of its parameters wanting a gradient."""
    module.requires_grad_(False)
    module.eval()
    return module


def still_copy(module: M) -> M:
    """Copy a module, with the very same weights, as `still`."""
    return still(copy.deepcopy(module))


@torch.no_grad()
def average(mean: nn.Module, module: nn.Module, share: Tensor) -> None:
    """Move a moving average towards a module: mean + share * (module - mean); buffers are copied.

    Args:
        mean: a copy of `module` as it was.
        module: what is averaged.
        share: scalar, one minus the momentum.
    """
    for old, new in zip(mean.parameters(), module.parameters(), strict=True):
        old.lerp_(new, share.to(old.dtype))
    for kept, present in zip(mean.buffers(), module.buffers(), strict=True):
        kept.copy_(present)


@torch.no_grad()
def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """Overwrite all parameters and stored buffers of a module with those of one of the same build, in place."""
    have, given = target.state_dict(), source.state_dict()
    assert have.keys() == given.keys(), "only modules of one build hold the same weights"
    for name, value in have.items():
        value.copy_(given[name])


def renew(module: nn.Module, build: Callable[[], nn.Module], seed: int) -> None:
    """Give a module the weights that `build` draws from a seed, in place; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh = build()
    copy_weights(module, fresh)
