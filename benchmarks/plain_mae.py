"""MAE in plain PyTorch, with nothing but the arithmetic: the yardstick that our step may exceed by 5 %.

Patches are gathered before they are embedded, attention is SDPA, only hidden patches are predicted; no validity, no
band names, no spacing, no options.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.sizes import Work


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def cut(images: Tensor, patch: int) -> Tensor:
    """Cut (B, C, Y, X) into (B, N, P)."""
    b, c, y, x = images.shape
    grid = images.view(b, c, y // patch, patch, x // patch, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch * patch)


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


class PlainMae(nn.Module):
    """Encoder on the visible patches, decoder on all; returns the loss."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.embed = nn.Linear(work.values, work.width)
        self.cls = nn.Parameter(torch.zeros(1, 1, work.width))
        self.register_buffer("position", torch.randn(1, work.tokens, work.width) * 0.02)
        self.encoder = nn.Sequential(*(Block(work.width, work.heads) for _ in range(work.depth)))
        self.norm = nn.LayerNorm(work.width, eps=1e-6)
        self.bridge = nn.Linear(work.width, work.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, work.decoder_width))
        self.register_buffer("decoder_position", torch.randn(1, work.tokens + 1, work.decoder_width) * 0.02)
        self.decoder = nn.Sequential(
            *(Block(work.decoder_width, work.decoder_heads) for _ in range(work.decoder_depth))
        )
        self.decoder_norm = nn.LayerNorm(work.decoder_width, eps=1e-6)
        self.head = nn.Linear(work.decoder_width, work.values)

    def forward(self, images: Tensor) -> Tensor:
        patches = cut(images, self.work.patch)
        b, n, _ = patches.shape
        order = torch.rand(b, n, device=images.device).argsort(1)
        seen, hidden = order[:, : self.work.visible], order[:, self.work.visible :]

        x = self.embed(pick(patches, seen)) + pick(self.position.expand(b, -1, -1), seen)
        x = self.norm(self.encoder(torch.cat([self.cls.expand(b, -1, -1), x], 1)))

        x = self.bridge(x)
        full = (
            self.mask_token.to(x.dtype)
            .expand(b, n, -1)
            .scatter(1, seen[..., None].expand(-1, -1, x.shape[2]), x[:, 1:])
        )
        x = self.decoder(torch.cat([x[:, :1], full], 1) + self.decoder_position)
        prediction = self.head(self.decoder_norm(pick(x[:, 1:], hidden)))
        return F.mse_loss(prediction.float(), pick(patches, hidden))


class PlainAllTokens(nn.Module):
    """The SimMIM way: mask tokens go through the encoder, a linear layer predicts; returns the loss."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.embed = nn.Linear(work.values, work.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, work.width))
        self.register_buffer("position", torch.randn(1, work.tokens, work.width) * 0.02)
        self.encoder = nn.Sequential(*(Block(work.width, work.heads) for _ in range(work.depth)))
        self.norm = nn.LayerNorm(work.width, eps=1e-6)
        self.head = nn.Linear(work.width, work.values)

    def forward(self, images: Tensor) -> Tensor:
        patches = cut(images, self.work.patch)
        b, n, _ = patches.shape
        hidden = torch.rand(b, n, device=images.device).argsort(1) >= self.work.visible
        x = torch.where(hidden[..., None], self.mask_token, self.embed(patches)) + self.position
        prediction = self.head(self.norm(self.encoder(x)))
        error = (prediction.float() - patches).square().mean(-1)
        return (error * hidden).sum() / hidden.sum()
