"""Every card: its architecture has the published size, and the published keys are placed or dropped by a rule, all of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import import_module

import pytest
import torch

import core
from core.config import from_dict, to_dict
from core.contract import Contract
from core.encoders.base import EncoderSpec
from core.encoders.cards import cards, get_card, list_encoders
from core.encoders.cards.satvision import BANDS, COLDEST, HOTTEST, satvision_spec
from core.errors import CheckpointError, ConfigError
from core.foreign import translate
from core.weights import check

LAYOUTS = {
    "fgmae_vit_base_hog_B2": "fgmae-s1-vitb16",
    "fgmae_vit_base_hog_ndi_B13": "fgmae-s2-vitb16",
    "fgmae_vit_large_hog_B2": "fgmae-s1-vitl16",
    "fgmae_vit_large_hog_ndi_B13": "fgmae-s2-vitl16",
    "fgmae_vit_small_hog_B2": "fgmae-s1-vits16",
    "fgmae_vit_small_hog_ndi_B13": "fgmae-s2-vits16",
    "mae_vit_base_finetune_gap": "mae-vit-base",
    "mae_vit_base_pretrain": "mae-vit-base",
    "mae_vit_huge_pretrain": "mae-vit-huge",
    "mae_vit_large_pretrain": "mae-vit-large",
    "open_clip_ViT_B_32_quickgelu": "remoteclip-vit-b-32",
    "open_clip_ViT_L_14_quickgelu": "remoteclip-vit-l-14",
    "retfound_mae_vit_large_finetune_gap": "retfound-cfp",
    "satmae_group_vit_large_finetune": "satmae-large-finetuned",
    "satmae_group_vit_large_pretrain": "satmae-large",
    "satmae_temporal_vit_large_pretrain": "satmae-temporal-large",
    "satvision_toa_giant_mim": "satvision-toa-giant",
    "scalemae_vit_large_finetune": "scalemae-large",
    "simmim_swin_base_w6_192": "simmim-swin-base",
    "simmim_vit_base_224": "simmim-vit-base",
    "urfound_base_visual": "urfound",
}
NOT_OURS = {
    "ibot_vit_base_masked": "no card: a recipe's reference",
    "ibot_vit_small_masked": "no card: a recipe's reference",
    "satvision_toa_giant_encoder": "the authors' fine-tuning class, without norm3",
    "satvision_toa_giant_mim_norm_period_0": "what the release is not",
}
OURS_MORE = {
    "prithvi-eo-1.0-100m": 768 * (6 * 16**2 + 1),  # of Prithvi a second stem, for single scenes
    "prithvi-eo-2.0-100m-tl": 768 * (6 * 16**2 + 1),
    "prithvi-eo-2.0-300m": 1024 * (6 * 16**2 + 1),
    "prithvi-eo-2.0-300m-tl": 1024 * (6 * 16**2 + 1),
    "prithvi-eo-2.0-600m": 1280 * (6 * 14**2 + 1),
    "prithvi-eo-2.0-600m-tl": 1280 * (6 * 14**2 + 1),
    "prithvi-eo-2.0-tiny-tl": 192 * (6 * 16**2 + 1),
    "remoteclip-rn50": 2 * 26_624,  # means and variances of its norms
    "remoteclip-vit-b-32": 768,  # a bias of the stem
    "remoteclip-vit-l-14": 1024,
    "satmae-base": 433 * 768 + 3 * 768 - 145 * 512 - 3 * 256,  # one table, and codes of the groups, for two of theirs
    "satmae-base-finetuned": 433 * 768 + 3 * 768 - 145 * 512 - 4 * 256,
    "satmae-large": 433 * 1024 + 3 * 1024 - 145 * 768 - 3 * 256,
    "satmae-large-finetuned": 433 * 1024 + 3 * 1024 - 145 * 768 - 4 * 256,
    "satmae-temporal-large": -197 * 640,  # a table that ours computes
    "satvision-toa-giant": -512,  # its authors count the mask token with the encoder
    "satvision-toa-huge": -352,
}
"""Numbers that our encoders hold and the released ones do not."""
MASK_TOKEN = 512  # SatVision's authors count it with the encoder


def is_big(name):
    """Say whether even a description takes a while."""
    return get_card(LAYOUTS.get(name, name)).parameters > 2e8 and "satvision" not in name


def keys_of(shared, name):
    """The published keys, as tensors without memory."""
    shapes = json.loads((shared / "parity" / "key_layouts" / f"{name}.json").read_text())["keys"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def on_meta(spec):
    with torch.device("meta"):
        return spec.build()


def shrunk(spec: EncoderSpec) -> EncoderSpec:
    """The same architecture with one block, or two windowed stages of one block each."""
    if hasattr(spec, "window"):
        spec = replace(spec, depths=(1, 1), heads=spec.heads[:2])
    elif hasattr(spec, "depths"):
        spec = replace(spec, depths=(1,) * len(spec.depths))
    else:
        spec = replace(spec, depth=1)
    return replace(spec, extra_norm_period=1) if hasattr(spec, "extra_norm_period") else spec


FAMILIES = {(card.layout.convert, card.layout.drop): name for name, card in reversed(cards().items())}


def test_every_published_layout_is_judged(shared):
    have = {path.stem for path in (shared / "parity" / "key_layouts").glob("*.json")}
    assert have == LAYOUTS.keys() | NOT_OURS.keys()


@pytest.mark.parity
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if is_big(n) else ()) for n in LAYOUTS])
def test_every_published_key_is_placed_or_dropped_by_a_rule(shared, name):
    state, card = keys_of(shared, name), get_card(LAYOUTS[name])
    spec = card.spec()
    found = translate({"model": state}, spec, card.layout, source=name)
    assert sorted((*found.placed, *found.dropped)) == sorted(state)
    placement = check(on_meta(spec), found.weights, source=name)
    assert len(placement.placed) == len(found.weights)
    count = sum(state[key].numel() for key in found.placed)
    assert count + (MASK_TOKEN if card.name.startswith("satvision") else 0) == card.parameters


@pytest.mark.parity
@pytest.mark.parametrize("name", ["satvision_toa_giant_encoder", "satvision_toa_giant_mim_norm_period_0"])
def test_a_giant_without_its_extra_norms_is_refused(shared, name):
    card = get_card("satvision")
    with pytest.raises(CheckpointError, match=r"got 831; missing: \S*layers\.2\.blocks\.11\.norm3\.bias, "):
        translate(keys_of(shared, name), card.spec(), card.layout, source=name)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if is_big(n) else ()) for n in cards()])
def test_a_card_is_whole_and_its_encoder_has_its_size(name):
    card = cards()[name]
    backbone = on_meta(card.spec())
    count = sum(value.numel() for key, value in backbone.state_dict().items() if not key.endswith("nodata"))
    assert count - card.parameters == OURS_MORE.get(name, 0)
    assert re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", name)
    assert card.title
    assert card.citation
    assert card.licence
    assert card.source.file
    assert card.source.repo or card.source.url or card.source.page
    assert card.source.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", card.source.sha256)
    assert card.non_commercial == ("NC" in card.licence)
    for entry in card.spec().contract.inputs:
        assert entry.sensor, f"{name}: the bands of '{entry.name}' have no meaning"
        assert len(entry.described) == len(entry.bands)
        assert entry.normalisation.method == "fixed"


@pytest.mark.parametrize("name", cards())
def test_a_description_survives_being_stored(name):
    spec = cards()[name].spec()
    assert from_dict(EncoderSpec, json.loads(json.dumps(to_dict(spec)))) == spec


def test_names_and_aliases_lead_to_one_card_each():
    known = [each for card in cards().values() for each in (card.name, *card.aliases)]
    assert len(known) == len(set(known))
    for name in ("satvision", "SatVision_TOA_giant", "satvision-giant"):
        assert get_card(name).name == "satvision-toa-giant"
    with pytest.raises(ConfigError, match=r"no encoder is called 'satvison': did you mean 'satvision'\?"):
        get_card("satvison")


def test_the_list_is_a_table():
    assert core.list_encoders() == list_encoders()
    lines = repr(core.list_encoders()).splitlines()
    assert len(lines) == len(cards()) + 1
    assert re.search(r"^satvision-toa-giant +2\.60 B +Apache-2\.0 +SatVision-TOA giant", "\n".join(lines), re.MULTILINE)
    assert "| retfound-cfp | 303 M | CC-BY-NC-4.0, not commercial, account needed |" in list_encoders().to_markdown()


@pytest.mark.parametrize("name", FAMILIES.values())
def test_every_deleted_or_renamed_key_of_a_family_is_named(name):
    card = cards()[name]
    spec = shrunk(card.spec())
    needed = sorted(import_module(card.layout.convert).encoder_keys(spec, ()))
    assert len(needed) > 14
    prefix = card.layout.prefixes[0] if card.layout.prefixes else ""
    state = {f"module.{prefix}{key}": torch.empty(1, device="meta") for key in needed}
    for key in state:
        others = {other: value for other, value in state.items() if other != key}
        with pytest.raises(CheckpointError) as told:
            translate(others | {f"{key}_2": state[key]}, spec, card.layout, source="x")
        assert str(told.value).endswith(f"missing: {key}; unexpected: {key}_2.")


@pytest.mark.parametrize(
    ("size", "encoder_count", "whole_count"),
    [("giant", 2_595_048_416, 2_653_783_008), ("huge", 654_944_120, 695_328_632)],
)
def test_satvision_has_the_published_numbers_of_parameters(size, encoder_count, whole_count):
    from core.predictors.linear import LinearSpec

    with torch.device("meta"):
        encoder = satvision_spec(size).build()
        predictor = LinearSpec().build(encoder, {"toa": 14 * 16})
    count = sum(p.numel() for name, p in encoder.named_parameters() if not name.endswith("nodata"))
    theirs = count + encoder.level_width(0)  # their mask token lies in the encoder, ours in the recipe
    assert theirs == encoder_count == get_card(f"satvision-{size}").parameters
    assert theirs + sum(p.numel() for p in predictor.parameters()) == whole_count


def test_satvision_reads_percent_and_kelvin():
    (entry,) = satvision_spec("huge").contract.inputs
    space = dict(zip(entry.bands, zip(entry.normalisation.mean, entry.normalisation.std, strict=True), strict=True))
    assert entry.bands == BANDS
    assert space["B01"] == space["B26"] == (0.0, 100.0)
    assert space["B31"] == pytest.approx((202.1759, 324.0677 - 202.1759))
    assert len(COLDEST) == len(HOTTEST) == 8
    assert not entry.normalisation.full_scale


def test_a_contract_of_ones_own_keeps_the_sizes():
    (entry,) = satvision_spec("huge").contract.inputs
    six = replace(entry, bands=BANDS[:2], normalisation=replace(entry.normalisation, mean=(0.0, 0.0), std=(1.0, 1.0)))
    assert satvision_spec("huge", Contract(inputs=(six,))).width == 352
