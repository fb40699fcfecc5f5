"""From tokens to one vector per image, over valid tokens only; the pools are explained at `core.encoders.base.Pool`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from core.batch import Batch
from core.encoders.base import Backbone, Pool
from core.errors import ConfigError


def summarised(encoder: Backbone, norm: Callable[[Tensor], Tensor], batch: Batch, pool: Pool) -> Tensor:
    """Summarise a prepared batch by the tokens of an encoder's last level, before its last norm; errors as `pooled`."""
    last = encoder(batch, levels=(encoder.num_levels,)).levels[encoder.num_levels]
    class_token = last.prefix[:, 0] if last.prefix.shape[1] else None
    return pooled(pool, last.value, last.ok, class_token, norm)


def pooled(
    pool: Pool, value: Tensor, ok: Tensor | None, class_token: Tensor | None, norm: Callable[[Tensor], Tensor]
) -> Tensor:
    """Summarise tokens before the last norm (B, V, D) as (B, D), or (B, 2 D) for `mean_std`.

    Args:
        pool: how.
        value: the tokens.
        ok: (B, V) bool, which count; None = all.
        class_token: (B, D), None where the encoder has none.
        norm: the encoder's last norm.

    Raises:
        ConfigError: an unknown pool, or `cls` without a class token.
    """
    if pool == "cls":
        if class_token is None:
            raise ConfigError("expected an encoder with a class token for pool='cls': choose pool='mean'.")
        return norm(class_token)
    if pool == "mean":
        return valid_mean(norm(value), ok)
    if pool == "mean_std":
        return valid_mean_std(norm(value), ok)
    if pool == "mean_then_norm":
        return norm(valid_mean(value, ok))
    raise ConfigError(f"expected pool 'mean', 'mean_std', 'cls' or 'mean_then_norm', got '{pool}'.")


def valid_mean(value: Tensor, ok: Tensor | None) -> Tensor:
    """Average tokens (B, V, D) over those that are ok; a sample without any gives 0."""
    if ok is None:
        return value.mean(dim=1)
    weight = ok.to(value.dtype)[..., None]
    return (value * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def valid_mean_std(value: Tensor, ok: Tensor | None) -> Tensor:
    """Average tokens (B, V, D) and measure their spread, side by side (B, 2 D), over those that are ok."""
    mean = valid_mean(value, ok)
    variance = valid_mean((value - mean[:, None]).square(), ok)
    return torch.cat([mean, (variance + 1e-12).sqrt()], dim=1)  # the root of exactly 0 has no gradient
