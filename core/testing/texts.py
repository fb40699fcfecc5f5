"""A tiny tokenizer and tiny reports for recipes that read text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from core.batch import Batch

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[MASK]", *(f"word{i}" for i in range(26)), *(f"##part{i}" for i in range(10)))
"""Specials first, as MRM numbers them, then 26 pieces that begin a word and 10 that go on with one."""


def write_tokenizer(path: Path, pieces: tuple[str, ...] = PIECES) -> Path:
    """Write `tokenizer.json` as the tokenizers library would; pieces in brackets are special."""
    numbers = {piece: number for number, piece in enumerate(pieces)}
    special = [{"id": n, "content": piece, "special": True} for piece, n in numbers.items() if piece[0] == "["]
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": numbers}
    path.write_text(json.dumps({"version": "1.0", "added_tokens": special, "model": model}), encoding="utf-8")
    return path


def with_texts(batch: Batch, length: int = 12, seed: int = 0) -> Batch:
    """Give every sample a report of its own length that begins with [CLS]; the second has none."""
    draw = torch.Generator().manual_seed(seed)
    text = torch.randint(4, len(PIECES), (len(batch), length), generator=draw)
    text[:, 0] = PIECES.index("[CLS]")
    for sample in range(len(batch)):
        text[sample, length - 2 * (sample % 3) :] = 0
    text[1:2] = 0
    return replace(batch, text=text)
