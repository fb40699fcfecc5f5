"""The layout of Uni4Eye's two-decoder model (`MaskedAutoencoderViT23D_2decoder`).

Facts: suffix 2 and 3 is the rank; suffix 1 the gradient branch; both branches share their last norm and position tables;
`decoder_pos_embed21` and `decoder_pos_embed31` are never used.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from core.contract import Contract, Input
from core.encoders.base import EncoderSpec
from core.layouts.mae import band_major, fresh_nodata, keys_of, released, renamed

_SHARED = {"cls_token": "class_token", "blocks.": "blocks.", "norm.": "norm."}
UNUSED = ("decoder_pos_embed21", "decoder_pos_embed31")


def encoder_keys(spec: EncoderSpec, have: Collection[str]) -> set[str]:
    """List the released names of an encoder of one input, of either rank."""
    (entry,) = spec.contract.inputs
    return released(keys_of(spec), _encoder_names(entry))


def encoder_weights(state: Mapping[str, Tensor], entry: Input) -> dict[str, Tensor]:
    """Give the weights of `ViT` with one input of either rank and a stored table."""
    weights = renamed(state, _encoder_names(entry))
    return weights | fresh_nodata(weights, [entry])


def _encoder_names(entry: Input) -> dict[str, str]:
    own = {f"patch_embed.proj{entry.ndim}.": f"stems.{entry.name}.", f"pos_embed{entry.ndim}": f"tables.{entry.name}"}
    return _SHARED | own


def recipe_weights(state: Mapping[str, Tensor], contract: Contract) -> dict[str, Tensor]:
    """Give the weights of `Uni4EyeRecipe` whose contract has one 2D and one 3D input."""
    weights: dict[str, Tensor] = {}
    for entry in contract.inputs:
        rank, name = entry.ndim, entry.name
        weights |= {f"encoder.{key}": value for key, value in renamed(state, _encoder_names(entry)).items()}
        for branch, tail in (("image", ""), ("gradient", "1")):
            home = f"predictors.{branch}."
            weights |= renamed(
                state,
                {
                    f"mask_token{tail}": f"{home}mask_token",
                    f"decoder_embed{tail}.": f"{home}embed.",
                    f"decoder_blocks{tail}.": f"{home}blocks.",
                    "decoder_norm.": f"{home}norm.",
                    f"decoder_pos_embed{rank}": f"{home}tables.{name}",
                    f"decoder_pred{rank}{tail}.": f"{home}heads.{name}.0.",
                },
            )
            for part in ("weight", "bias"):
                key = f"{home}heads.{name}.0.{part}"
                weights[key] = band_major(weights[key], entry)
    encoder = {key.removeprefix("encoder."): value for key, value in weights.items() if key.startswith("encoder.")}
    return weights | {f"encoder.{key}": value for key, value in fresh_nodata(encoder, contract.inputs).items()}
