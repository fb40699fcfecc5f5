"""The layout of LocalMIM's multi-scale autoencoder on a plain transformer (`MaskedAutoencoderViT` with `decoder.k`).

Facts: `norm.k` follows the k-th chosen block, the last one being the encoder's own norm; `decoder.k.pred` begins with a
doubling by a transposed convolution whose bias all four children share, or with the output convolution where the scale is
not finer; a norm and a GELU stand between doublings; `hog_enc` holds the Sobel kernels.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from core.contract import Input
from core.layouts.mae import ENCODER_KEYS, PREDICTOR_KEYS, fresh_nodata, renamed

UNUSED = ("hog_enc.",)


def recipe_weights(state: Mapping[str, Tensor], entry: Input, scales: Mapping[str, float]) -> dict[str, Tensor]:
    """Give the weights of `LocalMimRecipe` with one 2D input and a stored table; `scales` are the recipe's, in order."""
    body = {key: value for key, value in state.items() if not key.startswith(("norm.", "decoder.", *UNUSED))}
    last = len(scales) - 1
    body |= {f"norm.{part}": state[f"norm.{last}.{part}"] for part in ("weight", "bias")}
    encoder = renamed(body, ENCODER_KEYS, name=entry.name)
    encoder |= fresh_nodata(encoder, [entry])
    weights = {f"encoder.{key}": value for key, value in encoder.items()}
    for number, (name, scale) in enumerate(scales.items()):
        home = f"predictors.{name}."
        if number != last:
            weights |= {f"{home}norm.{part}": state[f"norm.{number}.{part}"] for part in ("weight", "bias")}
        own = {k.removeprefix(f"decoder.{number}."): v for k, v in state.items() if k.startswith(f"decoder.{number}.")}
        body = {k if k == "mask_token" else f"decoder_{k}": v for k, v in own.items() if not k.startswith("pred.")}
        weights |= {f"{home}inner.{k}": v for k, v in renamed(body, PREDICTOR_KEYS, name=entry.name).items()}
        weights |= {f"{home}{k}": v for k, v in _head(own, entry.name, scale).items()}
    return weights


def _head(own: Mapping[str, Tensor], name: str, scale: float) -> dict[str, Tensor]:
    """Translate `pred`: convolutions become linear maps, those that double have rows (width, y, x)."""
    first, *others = sorted(
        key.removesuffix(".weight") for key in own if key.startswith("pred.") and own[key].ndim == 4
    )
    if scale <= 1:
        return _named(f"inner.heads.{name}.0", _convolution(own, first))
    weights = _named(f"inner.heads.{name}.0", _doubling(own, first))
    *steps, last = others
    for number, step in enumerate(steps):
        weights |= _named(f"steps.{name}.{number}", _doubling(own, step))
        norm = f"pred.{int(step.rpartition('.')[2]) - 2}"  # norm, GELU, doubling
        weights |= _named(f"norms.{number}", (own[f"{norm}.weight"], own[f"{norm}.bias"]))
    return weights | _named(f"heads.{name}.0", _convolution(own, last))


def _named(home: str, parts: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return {f"{home}.weight": parts[0], f"{home}.bias": parts[1]}


def _convolution(own: Mapping[str, Tensor], key: str) -> tuple[Tensor, Tensor]:
    return own[f"{key}.weight"].flatten(1), own[f"{key}.bias"]


def _doubling(own: Mapping[str, Tensor], key: str) -> tuple[Tensor, Tensor]:
    weight, bias = own[f"{key}.weight"], own[f"{key}.bias"]  # in, out, y, x
    children = weight[0, 0].numel()
    return weight.flatten(1).T.contiguous(), bias.repeat_interleave(children)
