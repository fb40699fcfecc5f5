"""Which pieces of a text are hidden: whole words, each by a draw of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from core.rng import SampleRng


def hidden_words(ids: Tensor, special: Tensor, continues: Tensor, share: float, rng: SampleRng) -> Tensor:
    """Hide each word with probability `share` (MRM, Zhou et al. 2023, arXiv 2301.13155), (B, T) bool.

    The pieces of a word share its fate. Special pieces, padding among them, are never hidden, nor what continues one.
    A piece that continues a word before the text begins counts as its own word.

    Args:
        ids: (B, T) int64 word pieces.
        special: (K,) bool, per piece of the vocabulary, True = never hidden.
        continues: (K,) bool, True = belongs to the word of the piece before it.
        share: of the words, 0 to 1.
        rng: the samples' streams; a draw depends on the place in the text alone, not on how far it is padded.
    """
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    head = torch.where(continues[ids], 0, places).cummax(dim=1).values  # where each piece's word begins
    chosen = (rng.split("words").uniform(ids.shape[1]) < share) & ~special[ids]
    return chosen.gather(1, head) & ~special[ids]
