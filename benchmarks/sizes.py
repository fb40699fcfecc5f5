"""The work that every implementation of benchmarks/step.py does, and its cost by formula."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Work:
    """One MAE step: square RGB images, ViT encoder on the visible patches, ViT decoder on all, AdamW.

    Attributes:
        width: D of the encoder.
        heads: of the encoder.
        depth: blocks of the encoder.
        decoder_width: D of the decoder.
        decoder_heads: of the decoder.
        decoder_depth: blocks of the decoder.
        image: pixels per side.
        patch: pixels per side of a patch.
        ratio: hidden share of the patches.
        batch: images per step.
    """

    width: int
    heads: int
    depth: int = 12
    decoder_width: int = 192
    decoder_heads: int = 3
    decoder_depth: int = 4
    image: int = 224
    patch: int = 16
    ratio: float = 0.75
    batch: int = 16

    @property
    def tokens(self) -> int:
        """N, patches of an image."""
        return (self.image // self.patch) ** 2

    @property
    def visible(self) -> int:
        """V, patches that the encoder sees."""
        return self.tokens - round(self.tokens * self.ratio)

    @property
    def values(self) -> int:
        """P, numbers per patch."""
        return 3 * self.patch**2


SIZES = {"tiny": Work(width=192, heads=3), "small": Work(width=384, heads=6)}


def block_flops(tokens: int, width: int) -> int:
    """Count one transformer block's forward pass with an MLP of ratio 4; one multiply-add is 2 FLOP."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width


def mae_flops(work: Work) -> int:
    """Count the forward pass of MAE for one image; class token included in both halves."""
    n, v, p, d, e = work.tokens, work.visible, work.values, work.width, work.decoder_width
    encoder = 2 * v * p * d + work.depth * block_flops(v + 1, d)
    decoder = 2 * (v + 1) * d * e + work.decoder_depth * block_flops(n + 1, e) + 2 * (n + 1) * e * p
    return encoder + decoder


def all_token_flops(work: Work) -> int:
    """Count the forward pass of the SimMIM way for one image: mask tokens in the encoder, one linear layer after it."""
    n, p, d = work.tokens, work.values, work.width
    return 2 * n * p * d + work.depth * block_flops(n, d) + 2 * n * d * p
