"""MRM against the released model: encoder at half the size, image branch at full size, text branch, both losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from core.contract import Input
from core.errors import CheckpointError
from core.layouts.mae import renamed
from core.layouts.mrm import _BLOCK_NAMES, _LAYER, _NAMES, UNUSED, recipe_weights
from core.recipes.mrm import Mrm, MrmRecipe
from core.resize import reduced
from core.targets.fine_pixels import FinePixels
from core.testing.texts import write_tokenizer
from core.text.model import TextSpec
from tests.parity.fixture import (
    Fixture,
    FromNoise,
    grad_norms,
    in_raster,
    mae_name,
    make_batch,
    make_input,
    placed,
    transformer_spec,
    vit_spec,
)

pytestmark = pytest.mark.parity

MASK = 4  # the fixture's


def build(fixture: Fixture, entry: Input, text: TextSpec, **options) -> MrmRecipe:
    c = fixture.config
    return Mrm(
        encoder=vit_spec(c, entry),
        predictor=transformer_spec(c, entry),
        masker=FromNoise(noise=fixture.io["in.noise"], ratio=c["mask_ratio"]),
        target=FinePixels(normalise="joint"),
        text=text,
        resize="bicubic",
        **options,
    ).build()


def text_spec(fixture: Fixture, folder) -> TextSpec:
    b = fixture.config["bert"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(5, b["vocab_size"]))]
    return TextSpec(
        tokenizer=str(write_tokenizer(folder / "tokenizer.json", tuple(pieces))),
        width=b["hidden_size"],
        depth=b["layers"],
        heads=b["heads"],
        inner=b["intermediate"],
        length=b["max_position"],
        tied=False,
    )


@pytest.fixture
def built(parity, tmp_path, monkeypatch, request):
    """The recipe with the reference's weights, and a batch whose report has the reference's words hidden."""
    fixture = Fixture(parity / "mrm_image_report")
    entry = make_input("image", 3, (8, 8), (64, 64))
    recipe = build(fixture, entry, text_spec(fixture, tmp_path), legacy_full_loss=getattr(request, "param", False))
    placed(recipe, recipe_weights(fixture.weights, entry))
    ids, labels = fixture.io["in.ids"], fixture.io["in.labels"]
    assert torch.equal(ids == MASK, labels >= 0)
    monkeypatch.setattr("core.recipes.mrm.hidden_words", lambda *_: labels >= 0)
    batch = replace(make_batch(fixture.io["in.big_imgs"], entry), text=torch.where(labels >= 0, labels, ids))
    return fixture, recipe, batch, entry


def check_encoder(fixture, recipe, batch):
    """Compare the reduced image, the mask and the seen tokens, which both references share."""
    small = reduced(batch, 2, "bicubic")
    assert torch.equal(small.image, fixture.io["out.imgs_half_bicubic"])
    plan = recipe.masker(small, small.grid((8, 8)), batch.rng)
    fixture.close(plan.hide.float(), "out.mask")
    tokens = recipe.encoder(small, plan)
    theirs = fixture.io["out.latent"]
    fixture.close(tokens.prefix, theirs[:, :1])
    fixture.close(tokens.value, in_raster(theirs[:, 1:], fixture.io["in.noise"]))


def test_encoder_reads_half_the_size(built):
    check_encoder(*built[:3])


def test_prediction_condition_and_logits(built):
    fixture, recipe, batch, _ = built
    seen = {}
    recipe.to_text.register_forward_hook(lambda _, __, out: seen.update(condition=out))
    recipe.predictor.register_forward_hook(lambda _, __, out: seen.update(prediction=out))
    recipe.text.register_forward_hook(lambda _, __, out: seen.update(state=out))
    recipe(batch, batch.rng)
    fixture.close(seen["condition"], "out.text_condition")
    fixture.close(recipe.text.logits(seen["state"]), "out.text_logits")
    theirs = fixture.io["out.pred"].reshape(2, 64, 16, 16, 3).permute(0, 1, 4, 2, 3).flatten(2)  # theirs: channel last
    fixture.close(seen["prediction"], theirs)


@pytest.mark.parametrize("built", [False, True], ids=["masked", "legacy_full_loss"], indirect=True)
def test_losses(built):
    fixture, recipe, batch, _ = built
    output = recipe(batch, batch.rng)
    fixture.close(output.terms["image"], "out.loss_image")
    if recipe.spec.legacy_full_loss:
        expected = functional.cross_entropy(fixture.io["out.text_logits"].flatten(0, 1), batch.text.flatten())
        assert int((batch.text == 0).sum()) == 3  # padding is scored too
    else:
        expected = fixture.io["out.loss_report"]
    fixture.close(output.terms["report"], expected)
    fixture.close(output.loss, fixture.io["out.loss_image"] + expected)


def test_gradients(built):
    fixture, recipe, batch, entry = built
    recipe(batch, batch.rng).loss.backward()
    ours = {name: p.grad for name, p in recipe.named_parameters()}
    compared = 0
    for key, norm in fixture.grad_norms().items():
        if key.removeprefix("bert_encoder.model.").startswith("bert.pooler"):
            continue
        assert grad_norms(_gradient(key, entry, ours)) == pytest.approx(norm, rel=1e-3, abs=1e-6), key
        compared += 1
    assert compared == 93


def test_every_key_of_the_reference_is_taken_or_named_as_unused(built):
    fixture, _, _, entry = built
    for key in fixture.weights:
        less = {name: value for name, value in fixture.weights.items() if name != key}
        try:
            taken = len(recipe_weights(less, entry)) < len(recipe_weights(fixture.weights, entry))
        except KeyError:
            taken = True
        assert taken != key.startswith(UNUSED), key


def test_tied_weights_need_no_output_layer(built):
    fixture, _, _, entry = built
    prefix = "bert_encoder.model."
    tied = {
        f"{prefix}cls.predictions.decoder.weight": fixture.weights[f"{prefix}bert.embeddings.word_embeddings.weight"]
    }
    assert "text.output" in recipe_weights(fixture.weights, entry)
    assert "text.output" not in recipe_weights(fixture.weights | tied, entry)


def test_two_biases_are_refused(built):
    fixture, _, _, entry = built
    key = "bert_encoder.model.cls.predictions.decoder.bias"
    with pytest.raises(CheckpointError, match="to be a copy of"):
        recipe_weights(fixture.weights | {key: fixture.weights[key] + 1.0}, entry)


def _gradient(key: str, entry: Input, ours: dict[str, torch.Tensor]) -> torch.Tensor:
    """Ours for one of the reference's parameters: parts of what we keep together, sums of what it keeps apart."""
    bert = key.removeprefix("bert_encoder.model.bert.")
    if bert == "embeddings.token_type_embeddings.weight":
        return ours["text.positions"].sum(0)
    if bert == "embeddings.position_embeddings.weight":
        return ours["text.positions"]
    for part_number, name in enumerate(("query", "key", "value")):
        if f".attention.self.{name}." in key:
            _, _, number, _, _, _, part = bert.split(".")
            return ours[f"text.blocks.{number}.qkv.{part}"].chunk(3)[part_number]
    name = mae_name(key, entry, "predictor")
    if name is None:
        (name,) = _text_names(key)
    return ours[name]


def _text_names(key: str) -> list[str]:
    if key.startswith(_LAYER):
        number, _, rest = key.removeprefix(_LAYER).partition(".")
        return [f"text.blocks.{number}.{name}" for name in renamed({rest: rest}, _BLOCK_NAMES)]
    if key == "bert_encoder.model.cls.predictions.decoder.weight":
        return ["text.output"]
    return list(renamed({key: key}, _NAMES))
