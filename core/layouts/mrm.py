"""The layout of MRM (`MRM`) and of UrFound (`UrModel`), whose model files are the same.

Facts: encoder and decoder as facebookresearch/mae, the decoder predicts patches of twice the edge; `bert_mlp` leads to the
text branch, a BERT of transformers 4.17 under `bert_encoder.model.`; its output layer has weights of its own, apart from
the word embedding, although BERT's are tied; only the first of two segments is ever used; the pooler never is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from core.contract import Input
from core.errors import CheckpointError
from core.layouts.mae import encoder_weights, predictor_weights, renamed
from core.resize import finer

_TEXT = "bert_encoder.model."
_WORDS = f"{_TEXT}bert.embeddings.word_embeddings.weight"
_POSITIONS = f"{_TEXT}bert.embeddings.position_embeddings.weight"
_SEGMENTS = f"{_TEXT}bert.embeddings.token_type_embeddings.weight"
_NAMES = {
    _WORDS: "text.words.weight",
    f"{_TEXT}bert.embeddings.LayerNorm.": "text.norm.",
    f"{_TEXT}cls.predictions.transform.dense.": "text.head.0.",
    f"{_TEXT}cls.predictions.transform.LayerNorm.": "text.head.2.",
    f"{_TEXT}cls.predictions.bias": "text.bias",
    "bert_mlp.": "to_text.",
}
_LAYER = f"{_TEXT}bert.encoder.layer."
_BLOCK_NAMES = {
    "attention.output.dense.": "project.",
    "attention.output.LayerNorm.": "norm1.",
    "intermediate.dense.": "widen.",
    "output.dense.": "narrow.",
    "output.LayerNorm.": "norm2.",
}
_BIAS = f"{_TEXT}cls.predictions.bias"
_OUTPUT = f"{_TEXT}cls.predictions.decoder."
UNUSED = (f"{_TEXT}bert.embeddings.position_ids", f"{_TEXT}bert.pooler.", f"{_OUTPUT}bias")
"""What is left out: counters, the pooler, and the second copy of a bias."""


def recipe_weights(state: Mapping[str, Tensor], entry: Input, detail: int = 2) -> dict[str, Tensor]:
    """Give the weights of `MrmRecipe` with one input and stored tables; of the text branch too where there is one.

    An output layer that is no copy of the word embedding needs `TextSpec(tied=False)`.

    Raises:
        CheckpointError: the output layer has two biases that differ.
    """
    weights = {f"encoder.{key}": value for key, value in encoder_weights(state, entry).items()}
    weights |= {f"predictor.{key}": value for key, value in predictor_weights(state, finer(entry, detail)).items()}
    weights |= renamed(state, _NAMES)
    if _WORDS in state:
        weights |= _text_weights(state)
    return weights


def _text_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if f"{_OUTPUT}bias" in state and not torch.equal(state[f"{_OUTPUT}bias"], state[_BIAS]):
        raise CheckpointError(f"expected '{_OUTPUT}bias' to be a copy of '{_BIAS}', which it is not.")
    weights = {"text.positions": state[_POSITIONS] + state[_SEGMENTS][0]}
    if not torch.equal(state[f"{_OUTPUT}weight"], state[_WORDS]):
        weights["text.output"] = state[f"{_OUTPUT}weight"]
    count = len({key.removeprefix(_LAYER).partition(".")[0] for key in state if key.startswith(_LAYER)})
    for number in range(count):
        theirs, ours = f"{_LAYER}{number}.", f"text.blocks.{number}."
        block = {key.removeprefix(theirs): value for key, value in state.items() if key.startswith(theirs)}
        weights |= {f"{ours}{key}": value for key, value in renamed(block, _BLOCK_NAMES).items()}
        for part in ("weight", "bias"):
            parts = [block[f"attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            weights[f"{ours}qkv.{part}"] = torch.cat(parts)
    return weights
