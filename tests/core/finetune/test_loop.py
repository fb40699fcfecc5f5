from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders.load import Encoder
from core.encoders.vit import ViTSpec
from core.errors import ConfigError, DataError, NumericsError
from core.finetune import Finetune, Labelled, finetune, predict
from core.heads.classify import Classify
from core.weights import Placement

ROWS, TRAIN, VALIDATION = 120, 80, 20
SPLIT = ("train",) * TRAIN + ("validation",) * VALIDATION + ("test",) * (ROWS - TRAIN - VALIDATION)
CONFIG = Finetune(mode="full", steps=60, lr=5e-3, warmup_steps=5, validate_every=20, seed=3)


class Stub(nn.Module):
    """Two blocks with dropout and running statistics: all that a training mode can change."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SimpleNamespace(depth=2)
        self.patch_embed = nn.Linear(16, 8)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.1)) for _ in range(2)])
        self.norm = nn.BatchNorm1d(8)

    def forward(self, batch: Batch) -> Tensor:
        x = self.patch_embed(batch.image.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        features: Tensor = self.norm(x)
        return features


def world() -> tuple[Tensor, Labelled]:
    """Images (rows, 1, 4, 4) uint8 whose class (of 3) is the brightest of three rows."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.arange(ROWS) % 3
    images = torch.randint(0, 150, (ROWS, 1, 4, 4), generator=generator)
    images[torch.arange(ROWS), 0, codes] += 60
    groups = tuple(f"p{row // 2}" for row in range(ROWS))
    return images.to(torch.uint8), Labelled(codes=codes, names=("a", "b", "c"), groups=groups, split=SPLIT)


def batch_of(images: Tensor, rows: Tensor) -> Batch:
    n = len(rows)
    return Batch(
        image=images[rows],
        valid=torch.ones(n, 1, 4, 4, dtype=torch.bool),
        bands=("intensity",),
        spacing=torch.ones(n, 2),
        unit="px",
        offset=torch.full((n, 1), 100.0),
        scale=torch.full((n, 1), 0.02),
        key=rows.clone(),
        index=rows.clone(),
        row=rows,
    )


def training(images: Tensor, rows: Tensor | None = None) -> Callable[[int, int], Iterator[Batch]]:
    rows = torch.arange(TRAIN) if rows is None else rows

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(step))
            yield batch_of(images, rows[order[:16]])

    return batches


def validating(images: Tensor) -> Callable[[], Iterator[Batch]]:
    return lambda: (batch_of(images, rows) for rows in torch.arange(TRAIN, TRAIN + VALIDATION).split(8))


def build(*, batch_norm: bool = False) -> tuple[Stub, nn.Module]:
    torch.manual_seed(0)
    return Stub(), Classify(num_classes=3, batch_norm=batch_norm).build(8)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def accuracy(encoder: nn.Module, head: nn.Module, images: Tensor, labelled: Labelled) -> float:
    found = predict(encoder, head, [batch_of(images, torch.arange(TRAIN + VALIDATION, ROWS))])
    return float((found.probabilities.argmax(1) == labelled.codes[found.rows].numpy()).mean())


def run(config: Finetune, *, batch_norm: bool = False, **changes: Any) -> Any:
    images, labelled = world()
    encoder, head = build(batch_norm=batch_norm)
    options = {"labelled": labelled, "train": training(images), "validation": validating(images), **changes}
    return finetune(encoder, head, config=config, **options), encoder, head


def test_linear_mode_leaves_the_encoder_bitwise_unchanged_and_learns() -> None:
    before = state(build()[0])
    _, encoder, head = run(replace(CONFIG, mode="linear", lr=0.05), batch_norm=True)
    assert same(before, state(encoder))
    assert accuracy(encoder, head, *world()) > 0.6


def test_full_mode_changes_every_parameter_and_learns_more() -> None:
    before = state(build()[0])
    _, encoder, head = run(replace(CONFIG, steps=150, validate_every=25))
    assert not [name for name, p in encoder.named_parameters() if torch.equal(before[name], p)]
    assert accuracy(encoder, head, *world()) > 0.8
    assert not encoder.training
    assert not head.training


def test_same_seed_gives_the_same_weights_whatever_torchs_generator_was() -> None:
    images, labelled = world()
    results = []
    for seed, noise in ((3, 11), (3, 12), (4, 11)):
        encoder, head = build()
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        finetune(
            encoder,
            head,
            config=replace(CONFIG, seed=seed),
            labelled=labelled,
            train=training(images),
            validation=validating(images),
        )
        assert torch.equal(torch.get_rng_state(), before)
        results.append(state(encoder))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_the_kept_weights_are_those_of_the_best_validation_check() -> None:
    images, labelled = world()
    result, encoder, head = run(replace(CONFIG, select="balanced accuracy", lr=0.5, validate_every=4))
    scores = [check.scores["balanced accuracy"] for check in result.checks]
    assert [check.step for check in result.checks] == list(range(4, 61, 4))
    assert result.best is result.checks[int(np.argmax(scores))]
    assert result.best.step < 60  # the last check is not the best one here, so that keeping the last would show
    found = predict(encoder, head, validating(images)())
    recall = [(found.probabilities.argmax(1) == k)[(labelled.codes[found.rows] == k).numpy()].mean() for k in range(3)]
    assert np.mean(recall) == pytest.approx(max(scores))


def test_grades_have_a_kappa_and_classes_without_order_have_none() -> None:
    _, labelled = world()
    graded = replace(labelled, ordinal=True)
    config = replace(CONFIG, steps=2, warmup_steps=0, validate_every=1)
    plain, _, _ = run(config)
    ordered, _, _ = run(replace(config, select="quadratic kappa"), labelled=graded)
    assert [set(check.scores) for check in plain.checks] == [{"balanced accuracy", "AUROC"}] * 2
    assert [set(check.scores) for check in ordered.checks] == [{"balanced accuracy", "AUROC", "quadratic kappa"}] * 2
    with pytest.raises(ConfigError, match="chosen by balanced accuracy or AUROC, got 'quadratic kappa'"):
        run(replace(config, select="quadratic kappa"))


def test_layer_decay_scales_each_layers_step() -> None:
    """AdamW's first step has the size of the rate, so the change itself shows the rate of each layer."""
    config = replace(CONFIG, steps=1, warmup_steps=0, lr=1e-3, weight_decay=0.0, layer_decay=0.5)
    before, head_before = (state(module) for module in build())
    _, encoder, head = run(config)
    after = state(encoder)
    change = {name: (after[name] - before[name]).abs().max().item() for name, _ in encoder.named_parameters()}
    assert change["patch_embed.weight"] == pytest.approx(1e-3 * 0.5**3, rel=1e-2)
    assert change["blocks.0.0.weight"] == pytest.approx(1e-3 * 0.5**2, rel=1e-2)
    assert change["blocks.1.0.weight"] == pytest.approx(1e-3 * 0.5, rel=1e-2)
    moved = (state(head)["linear.weight"] - head_before["linear.weight"]).abs().max().item()
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_a_loaded_encoder_with_dropped_paths_is_finetuned_layer_by_layer() -> None:
    entry = Input(
        name="image",
        bands=("intensity",),
        patch=(2, 2),
        size=(4, 4),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )
    spec = ViTSpec(contract=Contract(inputs=(entry,)), width=8, depth=2, heads=2, drop_path=0.2)
    images, labelled = world()
    options = {"labelled": labelled, "train": training(images), "validation": validating(images)}
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = Encoder(spec.build(), pool="mean", report=Placement(placed=()))
        head = Classify(num_classes=3).build(8)
        before = state(encoder)
        config = replace(CONFIG, steps=1, warmup_steps=0, lr=1e-3, weight_decay=0.0, layer_decay=0.5)
        finetune(encoder, head, config=config, **options)
        results.append(state(encoder))
    assert same(*results)
    for block, rate in ((0, 0.25e-3), (1, 0.5e-3)):
        name = f"backbone.blocks.{block}.mlp.fc2.bias"
        assert (results[0][name] - before[name]).abs().max().item() == pytest.approx(rate, rel=1e-2)
    longer = finetune(encoder, head, config=replace(CONFIG, steps=200, validate_every=200), **options)
    assert longer.best.scores["AUROC"] > 0.8


def test_schedule_warms_up_and_ends_near_zero() -> None:
    lines: list[dict[str, Any]] = []
    run(replace(CONFIG, mode="linear"), log=lambda line: lines.append(dict(line)))
    rates = [line["lr"] for line in lines if line["event"] == "step"]
    assert len(rates) == 60
    assert rates[0] == pytest.approx(CONFIG.lr / 5)
    assert max(rates) == rates[5] == CONFIG.lr
    assert rates[-1] < 0.01 * CONFIG.lr
    assert [line["step"] for line in lines if line["event"] == "validation"] == [20, 40, 60]
    assert set(lines[-1]["scores"]) == {"balanced accuracy", "AUROC"}


def test_balanced_loss_answers_the_rare_class_more_often() -> None:
    """Labels that the image does not tell: a plain loss says the common class, a balanced one has no favourite."""
    images = torch.zeros(ROWS, 1, 4, 4, dtype=torch.uint8)
    codes = (torch.arange(ROWS) % 10 == 0).long()
    groups = tuple(str(row) for row in range(ROWS))
    labelled = Labelled(codes=codes, names=("common", "rare"), groups=groups, split=SPLIT)
    rare = {}
    for balanced in (False, True):
        torch.manual_seed(0)
        encoder, head = Stub(), Classify(num_classes=2).build(8)
        config = replace(CONFIG, mode="linear", lr=0.05, steps=150, balanced=balanced, validate_every=150)

        def whole(start: int, stop: int) -> Iterator[Batch]:
            return (batch_of(images, torch.arange(TRAIN)) for _ in range(start, stop))

        finetune(encoder, head, config=config, labelled=labelled, train=whole, validation=validating(images))
        rare[balanced] = predict(encoder, head, [batch_of(images, torch.arange(1))]).probabilities[0, 1]
    assert rare[False] == pytest.approx(0.1, abs=0.03)
    assert rare[True] == pytest.approx(0.5, abs=0.03)


def test_label_smoothing_bounds_the_confidence() -> None:
    images, _ = world()
    rows = torch.arange(16)
    config = replace(CONFIG, steps=300, lr=0.02, validate_every=300)
    confidence = []
    for smoothing in (0.0, 0.3):
        _, encoder, head = run(replace(config, label_smoothing=smoothing), train=training(images, rows))
        confidence.append(predict(encoder, head, [batch_of(images, rows)]).probabilities.max(1).mean())
    assert confidence[0] > 0.95
    assert confidence[1] == pytest.approx(0.8, abs=0.08)  # 1 - 0.3 + 0.3 / 3


@pytest.mark.parametrize("split", ["test", "validation"])
def test_an_image_of_another_split_cannot_be_trained_on(split: str) -> None:
    images, _ = world()
    rows = torch.arange(TRAIN)
    rows[7] = SPLIT.index(split)
    message = rf"row {SPLIT.index(split)} \(group 'p\d+'\) belongs to split '{split}', but came in a batch for 'train'"
    with pytest.raises(DataError, match=message):
        run(CONFIG, train=training(images, rows))


def test_test_images_cannot_choose_the_check() -> None:
    images, _ = world()
    with pytest.raises(DataError, match="belongs to split 'test', but came in a batch for 'validation'"):
        run(CONFIG, validation=lambda: [batch_of(images, torch.arange(TRAIN, ROWS))])
    with pytest.raises(DataError, match="each of the 20 validation rows once, got 19 images of 19 rows"):
        run(CONFIG, validation=lambda: [batch_of(images, torch.arange(TRAIN, TRAIN + 19))])


def test_a_group_in_two_splits_is_refused() -> None:
    _, labelled = world()
    groups = list(labelled.groups)
    groups[TRAIN] = "p0"
    with pytest.raises(DataError, match="group 'p0' is in split 'train' and in split 'validation'"):
        replace(labelled, groups=tuple(groups))


def test_splits_without_what_they_need_are_refused() -> None:
    _, labelled = world()
    codes = labelled.codes.clone()
    codes[:TRAIN][codes[:TRAIN] == 1] = -1
    with pytest.raises(DataError, match=r"training images of every class, got none of \['b'\]"):
        replace(labelled, codes=codes)
    codes = labelled.codes.clone()
    codes[TRAIN : TRAIN + VALIDATION] = 2
    with pytest.raises(DataError, match="validation images of at least 2 classes"):
        replace(labelled, codes=codes)


def test_a_row_without_a_label_is_named() -> None:
    _, labelled = world()
    codes = labelled.codes.clone()
    codes[5] = -1
    with pytest.raises(DataError, match=r"row 5 \(group 'p2'\) has no label"):
        run(CONFIG, labelled=replace(labelled, codes=codes))


def test_too_few_batches_and_a_loss_that_explodes_are_told() -> None:
    images, _ = world()
    with pytest.raises(DataError, match="expected 60 training batches, got 10"):
        run(CONFIG, train=lambda start, stop: training(images)(0, 10))
    with pytest.raises(NumericsError, match="at step 0: lower lr"):
        run(CONFIG, train=lambda start, stop: [replace(b, scale=b.scale * 1e38) for b in training(images)(0, 1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup_steps": 60}, "0 <= warmup_steps < steps"),
        ({"layer_decay": 0.0}, r"layer_decay in \(0, 1\]"),
        ({"mode": "linear", "layer_decay": 0.7}, "layer_decay=0.7 has no effect on a frozen encoder"),
    ],
)
def test_options_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **change)


def test_predictions_do_not_depend_on_the_batches() -> None:
    images, _ = world()
    encoder, head = build()
    whole = predict(encoder, head, [batch_of(images, torch.arange(10))])
    parts = predict(encoder, head, [batch_of(images, rows) for rows in torch.arange(10).split(3)])
    np.testing.assert_array_equal(whole.rows, parts.rows)
    np.testing.assert_allclose(whole.probabilities, parts.probabilities, atol=1e-6)
    np.testing.assert_allclose(whole.probabilities.sum(1), 1.0)
    with pytest.raises(DataError, match="at least one batch"):
        predict(encoder, head, [])
