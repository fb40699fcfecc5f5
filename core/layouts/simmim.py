"""The layout of microsoft/SimMIM: Swin, and the ViT of BEiT, with a linear decoder; SatVision-TOA descends from it.

Facts: 2D only; the decoder lies beside the encoder and the mask token in it; a stage holds the merging that follows it;
the decoder is a 1 x 1 convolution before a pixel shuffle, so its rows run over (c, y, x) of all pixels below a token.
What is computed from other options (index tables, coordinates, shift masks) is stored too and left out here, by name. A
key that is not known keeps its name, so that placing it fails.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from core.contract import Contract, Input
from core.encoders._stages import stage_bounds
from core.encoders.relative_vit import RelativeViTSpec
from core.encoders.swin import SwinSpec
from core.encoders.swinv2 import SwinV2Spec
from core.errors import ConfigError
from core.layouts.mae import keys_of, norm_as_in

COMPUTED = ("relative_position_index", "relative_coords_table", "attn_mask")

_SWIN = {
    "patch_embed.proj.": "stems.{name}.embed.",
    "patch_embed.norm.": "stems.{name}.norm.",
    "attn.relative_position_bias_table": "attn.pos_bias",
    "downsample.norm.": "norms.2.",
    "downsample.reduction.": "reductions.2.",
}
_SWIN_V2 = _SWIN | {"attn.cpb_mlp.": "attn.pos_mlp.", "downsample.norm.": "norm."}
_VIT = {
    "patch_embed.proj.": "stems.{name}.",
    "cls_token": "class_token",
    "pos_embed": "tables.{name}",
    "rel_pos_bias.relative_position_bias_table": "pos_bias",
    "attn.relative_position_bias_table": "pos_bias",
    "attn.": "",
    "gamma_1": "scale1",
    "gamma_2": "scale2",
    "fc_norm.": "norm.",  # where the mean of the tokens is normed, not each
}

HierarchicalSpec = SwinSpec | SwinV2Spec


def recipe_weights(state: Mapping[str, Tensor], spec: HierarchicalSpec | RelativeViTSpec) -> dict[str, Tensor]:
    """Give the weights of the recipe `simmim` with its default predictor, of encoder and decoder keys as released."""
    entry = only_input(spec.contract)
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "encoder.mask_token":
            weights["mask_token"] = value
        elif key in ("decoder.0.weight", "decoder.0.bias"):
            home = f"predictors.image.heads.{entry.name}.0.{key.rpartition('.')[2]}"
            weights[home] = tokens_first(value.flatten(1) if value.ndim > 1 else value, entry)
        elif not key.startswith("encoder."):
            weights[key] = value
    inner = {key.removeprefix("encoder."): v for key, v in state.items() if key.startswith("encoder.")}
    inner.pop("mask_token", None)
    return weights | {f"encoder.{key}": value for key, value in encoder_weights(inner, spec).items()}


def encoder_keys(spec: HierarchicalSpec | RelativeViTSpec, have: Collection[str]) -> set[str]:
    """List the released names of an encoder; where `have` holds `fc_norm` for `norm`, so does the list."""
    name = only_input(spec.contract).name
    if isinstance(spec, RelativeViTSpec):
        keys = {_released_vit(key, name) for key in keys_of(spec)}
    else:
        keys = {_released_swin(key, name, spec.depths) for key in keys_of(spec)}
    return norm_as_in(have, keys)


def encoder_weights(state: Mapping[str, Tensor], spec: HierarchicalSpec | RelativeViTSpec) -> dict[str, Tensor]:
    """Give the weights of an encoder, its keys without prefix; our vector for missing data starts at zero."""
    entry = only_input(spec.contract)
    weights = {}
    for key, value in state.items():
        if key.endswith(COMPUTED):
            continue
        if isinstance(spec, RelativeViTSpec):
            weights[_renamed(key, _VIT, entry.name)] = value
        else:
            name = _renamed(
                _numbered(key, spec.depths), _SWIN_V2 if isinstance(spec, SwinV2Spec) else _SWIN, entry.name
            )
            weights[name] = value.flatten() if name.endswith("logit_scale") else value
    stem = f"stems.{entry.name}." + ("" if isinstance(spec, RelativeViTSpec) else "embed.")
    if f"{stem}bias" in weights:
        weights[f"{stem}nodata"] = torch.zeros_like(weights[f"{stem}bias"])
    return weights


def only_input(contract: Contract) -> Input:
    """Give the one 2D input that these weights can serve.

    Raises:
        ConfigError: there are several, or it is a volume.
    """
    if len(contract.inputs) != 1 or contract.inputs[0].ndim != 2:
        found = [(entry.name, f"{entry.ndim}D") for entry in contract.inputs]
        raise ConfigError(f"expected a contract of one 2D input for weights of this layout, got {found}.")
    return contract.inputs[0]


def tokens_first(rows: Tensor, entry: Input) -> Tensor:
    """Reorder the first axis from (c, y, x) of all pixels below a token to (finer tokens, c, pixels of each)."""
    patch, bands = entry.patch, len(entry.bands)
    ratio = round((len(rows) / (bands * entry.grid().voxels)) ** (1 / entry.ndim))
    apart = rows.reshape(bands, *(n for p in patch for n in (ratio, p)), *rows.shape[1:])
    nd = entry.ndim
    order = [*range(1, 1 + 2 * nd, 2), 0, *range(2, 2 + 2 * nd, 2), *range(1 + 2 * nd, apart.ndim)]
    return apart.permute(order).reshape(rows.shape)


def resized_bias(table: Tensor, have: int, want: int) -> Tensor:
    """Resample a bias table (entries, heads) from windows of `have` x `have` tokens to `want` x `want`.

    As SimMIM does for fine-tuning: the entries lie at distances that grow as a geometric progression, whose ratio makes
    the outermost ones meet, and cubic splines through them, one axis after the other, are read at whole distances.
    """
    if have == want:
        return table
    matrix = torch.from_numpy(_spline_matrix(_geometric_places(have, want), np.arange(1.0 - want, want)))
    image = table.to(torch.float64).unflatten(0, (2 * have - 1, 2 * have - 1))
    return torch.einsum("yi,xj,ijh->yxh", matrix, matrix, image).flatten(0, 1).to(table.dtype)


def _geometric_places(have: int, want: int) -> np.ndarray:
    """Place 2 have - 1 entries on both sides of 0: 1, 1 + q, 1 + q + q^2, ..., the last at about want - 1."""
    low, high = 1.01, 1.5
    powers = np.arange(have - 1)
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if (ratio**powers).sum() > want - 1 else (ratio, high)
    distances = (ratio**powers).cumsum()
    return np.concatenate([-distances[::-1], [0.0], distances])


def _spline_matrix(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Express the cubic spline through values at `places`, read at `wanted`, as a matrix (wanted, places).

    The third derivative is continuous at the second and the last but one place ("not a knot"): one piece spans them.
    """
    knots = places[2:-2]
    reference, scale = places.mean(), np.abs(places).max()

    def basis(x: np.ndarray) -> np.ndarray:
        powers = ((x - reference) / scale)[:, None] ** np.arange(4)
        cubes = np.clip((x[:, None] - knots) / scale, 0.0, None) ** 3
        return np.concatenate([powers, cubes], axis=1)

    solved: np.ndarray = np.linalg.solve(basis(places).T, basis(wanted).T).T
    return solved


def _numbered(key: str, depths: tuple[int, ...]) -> str:
    """Count blocks through all stages: `layers.1.blocks.0.` is `blocks.2.` after a stage of two."""
    pieces = key.split(".")
    if pieces[0] != "layers" or len(pieces) < 4 or not pieces[1].isdigit() or int(pieces[1]) >= len(depths):
        return key
    first, end = list(stage_bounds(depths))[int(pieces[1])]
    if pieces[2] == "downsample":
        return ".".join(["merges", str(end - 1), *pieces[2:]])
    if pieces[2] == "blocks" and pieces[3].isdigit():
        return ".".join(["blocks", str(first + int(pieces[3])), *pieces[4:]])
    return key


def _renamed(key: str, names: Mapping[str, str], name: str) -> str:
    """Replace the first piece of a key that the table knows, longest first."""
    for piece in sorted(names, key=len, reverse=True):
        start = 0 if key.startswith(piece) else key.find(f".{piece}") + 1
        if key.startswith(piece) or start > 0:
            return key[:start] + names[piece].format(name=name) + key[start + len(piece) :]
    return key


def _released_vit(key: str, name: str) -> str:
    """Undo the renaming of a ViT's key."""
    first, _, rest = key.partition(".")
    if first == "blocks":
        number, _, part = rest.partition(".")
        inner = {"pos_bias": "attn.relative_position_bias_table", "scale1": "gamma_1", "scale2": "gamma_2"}
        attention = part.startswith(("qkv.", "proj.", "q_bias", "v_bias"))
        return f"blocks.{number}.{f'attn.{part}' if attention else inner.get(part, part)}"
    whole = {
        _VIT[theirs].format(name=name): theirs for theirs in _VIT if not theirs.startswith(("attn.", "gamma", "fc"))
    }
    home = next((home for home in whole if key == home or (home.endswith(".") and key.startswith(home))), None)
    return key if home is None else whole[home] + key[len(home) :]


def _released_swin(key: str, name: str, depths: tuple[int, ...]) -> str:
    """Undo the renaming and the numbering of the key of a transformer with stages."""
    first, _, rest = key.partition(".")
    if first == "stems":
        part = rest.removeprefix(f"{name}.")
        return f"patch_embed.{'proj' if part.startswith('embed.') else 'norm'}.{part.rpartition('.')[2]}"
    if first not in ("blocks", "merges"):
        return key
    number, _, part = rest.partition(".")
    stage, (start, _) = next((s, b) for s, b in enumerate(stage_bounds(depths)) if b[0] <= int(number) < b[1])
    if first == "merges":
        layer = "reduction" if part.startswith("reductions.") else "norm"
        return f"layers.{stage}.downsample.{layer}.{part.rpartition('.')[2]}"
    part = part.replace("attn.pos_mlp.", "attn.cpb_mlp.").replace("attn.pos_bias", "attn.relative_position_bias_table")
    return f"layers.{stage}.blocks.{int(number) - start}.{part}"
