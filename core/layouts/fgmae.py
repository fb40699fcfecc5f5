"""The layout of FG-MAE (zhu-xlab/FGMAE): MAE's keys, HOG predicted by `decoder_pred` and indices by `decoder_pred2`.

Facts: both linear heads read the same decoder, so they are rows of one head of ours; histograms are ordered as ours
(band, bin, cell), indices are predicted voxel by voxel, (py, px, index), in the order NDVI, NDWI, NDBI; `hog.*` holds the
Sobel kernels and the Gaussian window. Full files hold an `argparse.Namespace`, `_enc` files the encoder's tensors alone,
which `core.layouts.mae.encoder_weights` reads.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from core.contract import Input
from core.layouts.mae import PREDICTOR_KEYS, encoder_weights, renamed

UNUSED = ("hog.",)


def recipe_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `fg_mae` with one 2D input and stored tables."""
    weights = {f"encoder.{key}": value for key, value in encoder_weights(state, entry).items()}
    heads = {}
    for part in ("weight", "bias"):
        rows = [state[f"decoder_pred.{part}"]]
        if f"decoder_pred2.{part}" in state:
            rows.append(_index_major(state[f"decoder_pred2.{part}"], entry))
        heads[f"heads.{entry.name}.0.{part}"] = torch.cat(rows)
    body = {key: value for key, value in state.items() if not key.startswith("decoder_pred")}
    predictor = renamed(body, PREDICTOR_KEYS, name=entry.name) | heads
    return weights | {f"predictors.features.{key}": value for key, value in predictor.items()}


def _index_major(rows: Tensor, entry: Input) -> Tensor:
    """Reorder the first axis from (*patch, index) to (index, *patch)."""
    apart = rows.reshape(*entry.patch, -1, *rows.shape[1:])
    return apart.movedim(entry.ndim, 0).reshape(rows.shape)
