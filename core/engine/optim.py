"""AdamW with the field's parameter groups: what decays, and layer-wise rates for fine-tuning.

Names follow the house's encoders (`class_token`, `tables`, `stems`, `blocks`) and the field's (`cls_token`,
`pos_embed`, `patch_embed`), so that foreign modules group the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW

from core.engine.config import Optim

Group = dict[str, Any]

_EMBEDDINGS = ("patch_embed", "stems", "stem")


def _is_token_or_position(name: str) -> bool:
    pieces = name.split(".")
    return any(
        piece.endswith(("_token", "_tokens")) or piece.startswith("pos_") or piece == "tables" for piece in pieces
    )


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Say whether weight decay applies: to matrices and kernels, not to biases, norms, tokens and position tables."""
    return parameter.ndim > 1 and not name.endswith("bias") and not _is_token_or_position(name)


def layer_of(name: str, depth: int) -> int:
    """Number a parameter's layer: 0 = tokens, positions and patch embedding, i + 1 = block i, depth + 1 = the rest.

    The numbering of MAE's fine-tuning code (He et al. 2021, arXiv 2111.06377; after BEiT, arXiv 2106.08254), in which
    the last norm belongs to the head. Blocks are counted through all stages; what merges tokens after block i is of its
    layer, as in SimMIM's code (Xie et al. 2021, arXiv 2111.09886).
    """
    pieces = name.split(".")
    for piece, following in itertools.pairwise(pieces):
        if piece in ("blocks", "merges") and following.isdigit():
            return int(following) + 1
    if _is_token_or_position(name) or any(piece in _EMBEDDINGS for piece in pieces):
        return 0
    return depth + 1


def layer_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]], depth: int, decay: float, weight_decay: float
) -> list[Group]:
    """Group trainable parameters for layer-wise learning rates: `lr_scale` = decay ** (depth + 1 - layer).

    Every group lists its parameters' `names` beside them; the loop multiplies the schedule's rate by `lr_scale`.
    """
    groups: dict[tuple[int, bool], Group] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            key = (layer_of(name, depth), decays(name, parameter))
            group = groups.setdefault(key, _group(weight_decay * key[1], decay ** (depth + 1 - key[0])))
            group["params"].append(parameter)
            group["names"].append(name)
    return list(groups.values())


def decay_groups(named_parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[Group]:
    """Group trainable parameters into those that decay and those that do not, all at the schedule's own rate."""
    decayed, plain = _group(weight_decay, 1.0), _group(0.0, 1.0)
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            group = decayed if decays(name, parameter) else plain
            group["params"].append(parameter)
            group["names"].append(name)
    return [group for group in (decayed, plain) if group["params"]]


def _group(weight_decay: float, lr_scale: float) -> Group:
    return {"params": [], "names": [], "weight_decay": weight_decay, "lr_scale": lr_scale}


def make_optimizer(groups: Sequence[Group], optim: Optim, device: torch.device) -> AdamW:
    """Make AdamW over groups from `decay_groups` or `layer_groups`; fused on CUDA."""
    return AdamW(list(groups), lr=optim.lr, betas=optim.betas, fused=device.type == "cuda" or None)


def set_learning_rate(optimizer: AdamW, rate: float) -> None:
    """Set every group to its own share of the schedule's rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
