"""The layout of Haochen-Wang409/HPM (`models_mae_learn_loss`): MAE's, with a second stack of decoder blocks for losses.

Facts: both decoders share `decoder_embed`, `mask_token` and `decoder_pos_embed`; the loss head gives P values per token,
which are averaged, so the mean of its rows is a head of one value; the decoder's order is [seen..., hidden...].
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from core.contract import Input
from core.layouts.mae import encoder_weights, predictor_weights, renamed

RANKING_KEYS = {
    "decoder_embed.": "embed.",
    "mask_token": "mask_token",
    "decoder_pos_embed": "tables.{name}",
    "decoder_blocks_losspred.": "blocks.",
    "decoder_norm_losspred.": "norm.",
    "decoder_pred_losspred.": "heads.{name}.0.",
}


def ranking_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of the loss predictor: one output value per token, the mean of the stored ones."""
    weights = renamed(state, RANKING_KEYS, name=entry.name)
    for part in ("weight", "bias"):
        key = f"heads.{entry.name}.0.{part}"
        weights[key] = weights[key].mean(dim=0, keepdim=True)
    return weights


def recipe_weights(
    state: Mapping[str, Tensor], entry: Input, *, teacher: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Give the weights of `HpmRecipe` with one input.

    Args:
        state: of the model.
        entry: the input.
        teacher: of the moving average; none = equal to the model, as at the beginning.
    """
    average = state if teacher is None else teacher
    parts = {
        "encoder.": encoder_weights(state, entry),
        "predictors.image.": predictor_weights(state, entry),
        "predictors.ranking.": ranking_weights(state, entry),
        "teacher.encoder.": encoder_weights(average, entry),
        "teacher_ranking.": ranking_weights(average, entry),
    }
    return {home + key: value for home, weights in parts.items() for key, value in weights.items()}
