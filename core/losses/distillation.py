"""Distilling a teacher's distribution over prototypes: centring, sharpening, cross-entropy.

Source: DINO (Caron et al. 2021, arXiv 2104.14294, 3.1) for the class token, iBOT (Zhou et al. 2021, arXiv 2111.07832,
equations 2 and 3) for masked patches. Which token is compared with which is the recipe's affair.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


def sharpened(logits: Tensor, centre: Tensor, temperature: Tensor | float) -> Tensor:
    """Turn a teacher's logits (..., K) into a distribution: centred, so that none wins everywhere, and sharpened."""
    return ((logits.to(torch.float32) - centre) / temperature).softmax(dim=-1)


def distilled(logits: Tensor, distribution: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of a student's logits (..., K) with the teacher's distribution, (..., 1) float32."""
    guess = (logits.to(torch.float32) / temperature).log_softmax(dim=-1)
    return -(distribution * guess).sum(dim=-1, keepdim=True)


def per_image(hide: Tensor) -> Tensor:
    """Weigh hidden tokens (B, N) so that each image counts the same however many it has: 1 / their number, float32."""
    return hide / hide.sum(dim=1, keepdim=True).clamp(min=1)


def warmed(progress: Tensor, start: float, end: float, share: float) -> Tensor:
    """Rise from `start` to `end` linearly over the first `share` of training, as a teacher's temperature does."""
    return start + (end - start) * (progress / max(share, 1e-12)).clamp(max=1.0)


class Centre(nn.Module):
    """The running mean of a teacher's logits, which `sharpened` takes away.

    What a step's forward passes note is taken in when the step has been made, so that a step can be replayed, and
    averaged over the joined batch of all ranks. Notes of a step that was not made (its loss was not finite) are dropped.

    Attributes:
        value: (K,) float32, 0 at first.
        momentum: share of the old value that stays.
    """

    value: Tensor

    def __init__(self, num_prototypes: int, momentum: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(num_prototypes))
        self.momentum = momentum
        # no buffers: they are one step's, each rank's own, and nothing that a checkpoint should hold
        self._total: Tensor | None = None
        self._noted_at: Tensor | None = None

    @torch.no_grad()
    def note(self, total: Tensor, count: Tensor, progress: Tensor) -> None:
        """Note a sum of logits (K,) over `count` tokens, seen at this point of the training."""
        new = torch.cat([total.to(torch.float32), count.to(torch.float32).reshape(1)])
        if self._total is not None and self._noted_at is not None:
            new = new + torch.where(self._noted_at == progress, self._total, 0.0)
        self._total, self._noted_at = new, progress.clone()

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the mean of what was noted, by all ranks; a batch without any token moves nothing."""
        if self._total is None:
            return
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(self._total)
        total, count = self._total[:-1], self._total[-1]
        moved = self.value * self.momentum + total / count.clamp(min=1.0) * (1.0 - self.momentum)
        self.value.copy_(torch.where(count > 0, moved, self.value))
        self._total = self._noted_at = None
