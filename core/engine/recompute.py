"""Activation checkpointing (`how.checkpoint_activations`): a block keeps its input alone and runs again when it is needed.

Chen et al. 2016, arXiv 1604.06174. Memory of a step falls from all that the blocks compute to their inputs and one block;
its compute rises by a forward pass of them, a third. Losses and gradients are the same bit for bit: a block runs again
with the random numbers and the number format of the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from core.engine.shard import block_lists
from core.errors import ConfigError


class _Recomputed:
    """A block's `forward` that keeps nothing but its arguments where a gradient is wanted."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(self.forward, *args, use_reentrant=False, **kwargs)


def recompute_blocks(module: nn.Module) -> int:
    """Let every block of a module that learns, encoder and predictors alike, run again in the backward pass; count them.

    A block is an entry of a list called `blocks`. Its parameters keep their names.

    Raises:
        ConfigError: there is none, and the option would have no effect.
    """
    found = 0
    for blocks in block_lists(module):
        for block in blocks:
            if any(parameter.requires_grad for parameter in block.parameters()):
                block.forward = _Recomputed(block.forward)
                found += 1
    if not found:
        raise ConfigError(
            f"option 'how.checkpoint_activations' has no effect: {type(module).__name__} has no list of blocks: leave it out."
        )
    return found
