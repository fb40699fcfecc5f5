"""MRM: what each loss reaches, what a report may tell, and that ranks with unequal reports form one loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from core.config import from_dict, to_dict
from core.errors import ConfigError, DataError, ShapeError
from core.maskers.random import Random
from core.predictors.layer_fusion import LayerFusionSpec
from core.predictors.transformer import TransformerSpec
from core.recipes.mrm import Mrm, MrmRecipe
from core.resize import finer
from core.shapes import patchify
from core.targets.fine_pixels import FinePixels
from core.testing.recipe_contract import loss_and_gradients
from core.testing.samples import INPUTS, SCENE, encoder_spec, ragged_batch
from core.testing.texts import PIECES, with_texts, write_tokenizer
from core.text.model import TextSpec


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("text") / "tokenizer.json")


def _spec(tokenizer: Path, *entries, **options) -> Mrm:
    text = TextSpec(tokenizer=str(tokenizer), width=12, depth=1, heads=2, inner=24, length=16)
    predictor = TransformerSpec(width=16, depth=1, heads=2)
    return Mrm(encoder=encoder_spec(*entries), predictor=predictor, text=text, **options)


def _recipe(tokenizer: Path, *entries, **options) -> MrmRecipe:
    torch.manual_seed(0)
    return _spec(tokenizer, *entries, **options).build()


def _batch(entry=SCENE, seed: int = 0):
    return with_texts(ragged_batch(finer(entry, 2), seed), seed=seed)


def _gradients(recipe, batch, **weights):
    recipe.weights |= weights
    return loss_and_gradients(recipe, batch)


@pytest.mark.parametrize("name", INPUTS)
def test_both_losses_add_up(tokenizer, name):
    recipe, batch = _recipe(tokenizer, report_weight=3.0), _batch(INPUTS[name])
    output = recipe(batch, batch.rng)
    assert float(output.terms["image"]) > 0.5
    assert float(output.terms["report"]) == pytest.approx(torch.tensor(40.0).log().item(), rel=0.05)
    assert output.loss.item() == pytest.approx(float(output.terms["image"] + 3 * output.terms["report"]), rel=1e-6)


def test_without_the_report_loss_the_encoder_learns_what_the_image_teaches(tokenizer):
    batch = _batch()
    _, silent = _gradients(_recipe(tokenizer, SCENE), batch, report=0.0)
    _, image_alone = _gradients(_recipe(tokenizer, SCENE), replace(batch, text=None))
    encoder = [name for name in silent if name.startswith(("encoder.", "predictor."))]
    assert len(encoder) > 20
    assert all(torch.equal(silent[name], image_alone[name]) for name in encoder)


def test_a_predictor_may_read_inner_stages(tokenizer):
    inner = TransformerSpec(width=16, depth=1, heads=2)
    recipe = replace(_spec(tokenizer, SCENE), predictor=LayerFusionSpec(inner=inner)).build()
    _, gradients = _gradients(recipe, _batch())
    assert float(gradients["predictor.projections.0.weight"].abs().max()) > 0


def test_without_the_image_loss_the_report_still_teaches_the_encoder(tokenizer):
    _, gradients = _gradients(_recipe(tokenizer, SCENE), _batch(), image=0.0)
    for name, gradient in gradients.items():
        if name.startswith("encoder."):
            assert float(gradient.abs().max()) > 0, name
        if name.startswith("predictor."):
            assert float(gradient.abs().max()) == 0.0, name


def test_every_parameter_of_the_text_branch_learns(tokenizer):
    _, gradients = _gradients(_recipe(tokenizer, SCENE), _batch())
    own = [name for name in gradients if name.startswith(("text.", "to_text."))]
    assert len(own) == len([*_recipe(tokenizer, SCENE).text.parameters()]) + 2
    assert all(float(gradients[name].abs().max()) > 0 for name in own)


@pytest.mark.parametrize("text", [None, torch.zeros(4, 7, dtype=torch.int64)])
def test_without_any_report_its_loss_and_gradients_are_zero(tokenizer, text):
    recipe, batch = _recipe(tokenizer, SCENE), replace(_batch(), text=text)
    assert float(recipe(batch, batch.rng).terms["report"]) == 0.0
    _, gradients = loss_and_gradients(recipe, batch)
    assert set(gradients) == {name for name, _ in recipe.named_parameters()}
    assert all(bool((g == 0).all()) for name, g in gradients.items() if name.startswith(("text.", "to_text.")))


def test_samples_without_a_report_do_not_weaken_the_others(tokenizer):
    recipe, batch = _recipe(tokenizer, SCENE), _batch()
    assert not bool(batch.text[1].any())
    with_silent, without = batch.take([0, 1, 2]), batch.take([0, 2])
    terms = [float(recipe(part, part.rng).terms["report"]) for part in (with_silent, without)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)
    assert terms[0] > 1


def test_a_report_without_an_image_teaches_nothing(tokenizer):
    recipe, batch = _recipe(tokenizer, SCENE), _batch().take([3])
    assert bool(batch.text.any())
    loss, gradients = loss_and_gradients(recipe, batch)
    assert loss == 0.0
    assert all(bool((gradient == 0.0).all()) for gradient in gradients.values())


def test_hidden_words_are_not_read_and_only_they_are_scored(tokenizer):
    recipe, batch = _recipe(tokenizer, SCENE), _batch()
    read = []
    recipe.text.register_forward_hook(lambda _, given, __: read.append(given[0]))
    scored = []
    head = recipe.text.head.register_forward_hook(lambda _, given, __: scored.append(len(given[0])))
    recipe(batch, batch.rng)
    head.remove()
    hidden = read[0] == PIECES.index("[MASK]")
    assert torch.equal(read[0][~hidden], batch.text[~hidden])
    assert 5 < int(hidden.sum()) < 25
    told = torch.tensor([True, False, True, False])  # the second has no report, the fourth no image
    assert scored == [int(hidden[told].sum())]


def test_each_report_is_told_the_mean_of_its_own_seen_tokens(tokenizer):
    recipe, batch = _recipe(tokenizer, SCENE), _batch()
    tokens, means = [], []
    recipe.encoder.register_forward_hook(lambda _, __, out: tokens.append(out))
    recipe.to_text.register_forward_hook(lambda _, given, __: means.append(given[0]))
    recipe(batch, batch.rng)
    counts = tokens[0].ok.sum(1).tolist()
    assert len(set(counts)) > 2
    for sample, count in enumerate(counts):
        expected = tokens[0].value[sample, :count].sum(0) / max(count, 1)
        torch.testing.assert_close(means[0][sample], expected)


def test_legacy_full_loss_scores_padding_and_seen_words(tokenizer):
    recipe, batch = _recipe(tokenizer, SCENE, legacy_full_loss=True), _batch()
    scored = []
    recipe.text.head.register_forward_hook(lambda _, given, __: scored.append(len(given[0])))
    recipe(batch, batch.rng)
    assert scored == [2 * batch.text.shape[1]]


def test_what_is_hidden_of_the_image_never_reaches_the_report(tokenizer):
    recipe, batch = _recipe(tokenizer, SCENE), _batch()
    image = batch.image.clone().requires_grad_()
    shown = replace(batch, image=image)
    plans = []
    recipe.predictor.register_forward_hook(lambda _, given, __: plans.append(given[1]))
    recipe.weights["image"] = 0.0
    recipe(shown, shown.rng).loss.backward()
    reached = patchify(image.grad, (16, 16)).abs().amax(dim=2)
    told = torch.tensor([True, False, True, False])[:, None] & plans[0].see
    assert bool((reached[told] > 0).all())
    assert bool((reached[~told] == 0.0).all())


@pytest.mark.parametrize("name", INPUTS)
def test_pictures_are_drawn_at_full_detail(tokenizer, name):
    entry = INPUTS[name]
    recipe, batch = _recipe(tokenizer), _batch(entry)
    pictures = recipe(batch, batch.rng, pictures=True).pictures
    assert recipe.detail == 2
    assert pictures.patch == tuple(2 * edge for edge in entry.patch)
    assert pictures.original.shape == pictures.reconstructions["image"].shape == batch.image.shape
    hidden = pictures.mask.flatten(1)
    painted, true = (patchify(i, pictures.patch) for i in (pictures.reconstructions["image"], pictures.original))
    assert torch.equal(painted[~hidden], true[~hidden])
    assert not torch.equal(painted[hidden], true[hidden])


def test_both_losses_fall(tokenizer):
    recipe, batch = _recipe(tokenizer, SCENE), _batch()
    optimizer = torch.optim.AdamW(recipe.parameters(), lr=1e-2)
    terms = []
    for _ in range(30):
        optimizer.zero_grad()
        output = recipe(batch, batch.rng)
        output.loss.backward()
        optimizer.step()
        terms.append(output.terms)
    assert float(terms[-1]["report"]) < 0.7 * float(terms[0]["report"])
    assert float(terms[-1]["image"]) < 0.95 * float(terms[0]["image"])


def test_a_config_survives_the_way_to_a_file(tokenizer):
    spec = _spec(tokenizer, SCENE, target=FinePixels(detail=4), resize="bicubic", masker=Random(ratio=0.6))
    assert from_dict(Mrm, to_dict(spec)) == spec
    assert spec.build().detail == 4


def test_pieces_beyond_the_vocabulary_are_refused(tokenizer):
    recipe, batch = _recipe(tokenizer, SCENE), _batch()
    with pytest.raises(DataError, match=r"expected texts in the 40 pieces .* from 0 to 40"):
        recipe(replace(batch, text=batch.text.masked_fill(batch.text == 5, 40)), batch.rng)
    with pytest.raises(ShapeError, match="texts of at most 16 pieces, got 17"):
        recipe(replace(batch, text=torch.ones(4, 17, dtype=torch.int64)), batch.rng)


def test_what_cannot_work_is_refused_when_built(tokenizer):
    with pytest.raises(ConfigError, match="needs the tokenizer that cuts its reports"):
        replace(_spec(tokenizer), text=TextSpec()).build()
    with pytest.raises(ConfigError, match="2D inputs only for resize 'bicubic'"):
        _spec(tokenizer, resize="bicubic").build()
    with pytest.raises(ConfigError, match="a report weight above 0"):
        _spec(tokenizer, report_weight=0.0)
    with pytest.raises(ConfigError, match="a word ratio above 0 and below 1"):
        _spec(tokenizer, word_ratio=1.0)


@pytest.mark.slow
def test_two_ranks_with_unequal_reports_equal_one_process(tokenizer, tmp_path):
    start_processes(_rank, (str(tokenizer), str(tmp_path)), nprocs=2, start_method="forkserver")
    for name, entry in INPUTS.items():
        loss, gradients = loss_and_gradients(_recipe(tokenizer), _batch(entry))
        ranks = [torch.load(tmp_path / f"{name}.{rank}.pt") for rank in (0, 1)]
        assert sum(rank["loss"] for rank in ranks) / 2 == pytest.approx(loss, rel=1e-5)
        assert all(rank["gradients"].keys() == gradients.keys() for rank in ranks)
        for key, gradient in gradients.items():
            mean = (ranks[0]["gradients"][key] + ranks[1]["gradients"][key]) / 2
            torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-6)


def _rank(rank: int, tokenizer: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name, entry in INPUTS.items():
        if name == "volume":  # all reports that count are on one rank
            batch = _batch(entry).take([0, 2] if rank == 0 else [1, 3])
            batch = batch if rank == 0 else replace(batch, text=None)
        else:
            batch = _batch(entry).take([0, 1] if rank == 0 else [2, 3])
        loss, gradients = loss_and_gradients(_recipe(Path(tokenizer)), batch)
        torch.save({"loss": loss, "gradients": gradients}, Path(folder) / f"{name}.{rank}.pt")
    distributed.destroy_process_group()
