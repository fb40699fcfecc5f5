from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders.load import Encoder
from core.encoders.swinv2 import SwinV2Spec
from core.errors import ConfigError, DataError
from core.evaluate.segmentation import confusion, iou_per_class
from core.finetune import Example, Finetune, Mapped, Sections, cloud_scores, examine, finetune
from core.heads.load import Model
from core.heads.segment import Segment
from core.weights import Placement

ENTRY = Input(
    name="scene",
    bands=("red", "nir"),
    patch=(2, 2),
    size=(16, 16),
    spacing=(10.0, 10.0),
    unit="m",
    normalisation=Normalisation(method="fixed", mean=(0.5, 0.5), std=(0.3, 0.3)),
)
ROWS, TRAIN, VALIDATION = 40, 24, 8
SPLIT = ("train",) * TRAIN + ("validation",) * VALIDATION + ("test",) * (ROWS - TRAIN - VALIDATION)
CONFIG = Finetune(mode="full", steps=50, lr=8e-3, warmup_steps=5, validate_every=25, select="mean IoU", seed=3)


def world() -> tuple[Tensor, Tensor]:
    """Images (rows, 2, 16, 16) of two halves, whose band tells class 0 from 1; a strip of each map is not labelled."""
    draw = torch.Generator().manual_seed(0)
    edge = torch.randint(4, 12, (ROWS,), generator=draw)
    label = (torch.arange(16)[None, None, :] >= edge[:, None, None]).long().expand(ROWS, 16, 16).clone()
    image = torch.stack([label * 0.6, 1.0 - label * 0.6], 1) + 0.2 * torch.randn(ROWS, 2, 16, 16, generator=draw)
    label[:, :3] = -1
    return image, label


def example(image: Tensor, label: Tensor, rows: Tensor) -> Example:
    n = len(rows)
    batch = Batch(
        image=image[rows],
        valid=torch.isfinite(image[rows]),
        bands=ENTRY.bands,
        spacing=torch.full((n, 2), 10.0),
        unit="m",
        offset=torch.full((n, 2), 0.5),
        scale=torch.full((n, 2), 1 / 0.3),
        key=rows.clone(),
        index=rows.clone(),
        row=rows,
    )
    return Example(batch, label[rows])


def mapped(label: Tensor) -> Mapped:
    pixels = torch.stack([(label == k).flatten(1).sum(1) for k in range(2)], 1)
    return Mapped(pixels=pixels, names=("left", "right"), groups=tuple(f"b{r // 2}" for r in range(ROWS)), split=SPLIT)


def training(image: Tensor, label: Tensor) -> Callable[[int, int], Iterator[Example]]:
    def batches(start: int, stop: int) -> Iterator[Example]:
        for step in range(start, stop):
            order = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(step))
            yield example(image, label, order[:8])

    return batches


def of_split(image: Tensor, label: Tensor, split: str) -> list[Example]:
    rows = torch.tensor([row for row in range(ROWS) if SPLIT[row] == split])
    return [example(image, label, part) for part in rows.split(5)]


def model() -> Model:
    torch.manual_seed(0)
    spec = SwinV2Spec(contract=Contract(inputs=(ENTRY,)), width=16, depths=(1, 1), heads=(2, 2), window=(4, 4))
    encoder = Encoder(spec.build(), pool="mean", report=Placement(()))
    return Model(encoder, Segment(num_classes=2), task="segment", classes=("left", "right"))


def test_learns_the_classes_of_pixels_and_scores_test_maps() -> None:
    image, label = world()
    trained, targets = model(), mapped(label)
    result = finetune(
        trained.features,
        trained.head,
        config=CONFIG,
        labelled=targets,
        train=training(image, label),
        validation=lambda: of_split(image, label, "validation"),
    )
    assert result.best.scores["mean IoU"] > 0.85
    found = examine(trained.features, trained.head, of_split(image, label, "test"), targets, "test")
    np.testing.assert_array_equal(found.rows, range(TRAIN + VALIDATION, ROWS))
    assert found.summary.shape == (8, 2, 2)
    assert found.summary.sum() == (label[32:] >= 0).sum()
    answer = trained(example(image, label, torch.arange(32, 40)).batch).argmax(1)
    np.testing.assert_array_equal(found.summary, confusion(label[32:], answer, 2).numpy())
    assert iou_per_class(found.summary, np.ones((1, 8))).min() > 0.8


def test_the_frozen_encoder_of_a_linear_head_stays_as_it_was() -> None:
    image, label = world()
    trained = model()
    before = {name: value.clone() for name, value in trained.encoder.state_dict().items()}
    finetune(
        trained.features,
        trained.head,
        config=replace(CONFIG, mode="linear", steps=10),
        labelled=mapped(label),
        train=training(image, label),
        validation=lambda: of_split(image, label, "validation"),
    )
    assert all(torch.equal(before[name], value) for name, value in trained.encoder.state_dict().items())


def test_places_without_label_or_data_are_in_neither_loss_nor_scores() -> None:
    """What is answered there may be anything: loss, gradient and table stay bit for bit."""
    image, label = world()
    image[0, :, 8:, 8:] = torch.nan
    image[1, 0, 8:, 8:] = torch.nan  # another band is there
    given = example(image, label, torch.arange(2))
    targets = mapped(label)
    truth = targets.of(given, "train")
    assert int((truth[0] >= 0).sum()) == 13 * 16 - 64
    assert int((truth[1] >= 0).sum()) == 13 * 16
    answer = torch.randn(2, 2, 16, 16)
    wild = torch.where((truth < 0)[:, None], answer + 100 * torch.randn_like(answer), answer)
    for weight in (None, targets.class_weight()):
        losses = []
        for one in (answer, wild):
            leaf = one.clone().requires_grad_()
            loss = targets.loss(leaf, truth, CONFIG, weight)
            loss.backward()
            assert leaf.grad is not None
            assert bool((leaf.grad.movedim(1, -1)[truth < 0] == 0).all())
            losses.append(loss.detach())
        assert torch.equal(*losses)
    assert torch.equal(targets.summary(answer, truth), targets.summary(wild, truth))
    known = truth >= 0
    picked = F.cross_entropy(answer.movedim(1, -1)[known], truth[known])
    torch.testing.assert_close(targets.loss(answer, truth, CONFIG, None), picked)


def test_a_batch_without_any_label_teaches_nothing() -> None:
    _, label = world()
    answer = torch.randn(2, 2, 16, 16, requires_grad=True)
    loss = mapped(label).loss(answer, torch.full((2, 16, 16), -1), CONFIG, None)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert answer.grad is not None
    assert float(answer.grad.abs().max()) == 0.0


def test_rare_classes_weigh_more_in_a_balanced_loss() -> None:
    pixels = torch.tensor([[90, 10]] * 2 + [[5, 5]])
    targets = Mapped(pixels=pixels, names=("a", "b"), groups=("x", "y", "z"), split=("train", "train", "validation"))
    torch.testing.assert_close(targets.class_weight(), torch.tensor([200 / 360, 200 / 40]))


def test_maps_that_do_not_fit_are_refused() -> None:
    image, label = world()
    targets = mapped(label)
    given = example(image, label, torch.arange(3))
    with pytest.raises(DataError, match="batches with label maps"):
        targets.of(given.batch, "train")
    with pytest.raises(DataError, match=r"label maps of 3 images of \(16, 16\), got \(3, 8, 8\)"):
        targets.of(Example(given.batch, given.label[:, :8, :8]), "train")
    with pytest.raises(
        DataError, match=r"row 0 \(group 'b0'\) belongs to split 'train', but came in a batch for 'test'"
    ):
        targets.of(given, "test")
    label[5] = -1
    with pytest.raises(DataError, match=r"row 5 \(group 'b2'\) has no label"):
        mapped(label).of(example(image, label, torch.tensor([5])), "train")
    label[label == 1] = 0
    with pytest.raises(DataError, match=r"training pixels of every class, got none of \['right'\]"):
        mapped(label)
    trained = model()
    with pytest.raises(ConfigError, match="chosen by mean IoU or mean Dice or .*, got 'AUROC'"):
        finetune(
            trained.features,
            trained.head,
            config=replace(CONFIG, select="AUROC"),
            labelled=targets,
            train=lambda start, stop: [],
            validation=list,
        )


def sections() -> Sections:
    clouds = torch.zeros(6, 4, 5, dtype=torch.int8)
    clouds[:, :2] = 1
    clouds[:, :, 4] = -1
    return Sections(clouds=clouds, groups=tuple("aabbcc"), split=("train",) * 2 + ("validation",) * 2 + ("test",) * 2)


def test_a_section_is_scored_and_learnt_where_it_was_measured() -> None:
    image, label = world()
    targets = sections()
    truth = targets.of(example(image, label, torch.arange(2)), "train")
    assert truth.shape == (2, 4, 5)
    answer = torch.where(truth == 1, 4.0, -4.0)[:, None]
    answer[0, 0, 0, 0] = -4.0
    wild = torch.where((truth < 0)[:, None], 50.0, answer)
    assert torch.equal(targets.loss(answer, truth, CONFIG, None), targets.loss(wild, truth, CONFIG, None))
    tables = targets.summary(wild, truth)
    assert tables.tolist() == [[[8, 0], [1, 7]], [[8, 0], [0, 8]]]
    assert targets.scores(np.arange(2), tables.numpy()) == pytest.approx(
        {"IoU": 15 / 16, "Dice": 30 / 31, "pixel accuracy": 31 / 32}
    )
    known = truth >= 0
    expected = F.binary_cross_entropy_with_logits(answer[:, 0][known], truth[known].float())
    torch.testing.assert_close(targets.loss(answer, truth, CONFIG, None), expected)
    torch.testing.assert_close(targets.class_weight(), torch.ones(2))


def test_a_section_without_cloud_and_without_answer_has_no_score() -> None:
    assert np.isnan(cloud_scores(np.array([[[9, 0], [0, 0]]]))["IoU"])
    with pytest.raises(ConfigError, match="label_smoothing has no effect on a cloud mask"):
        sections().refuse(replace(CONFIG, label_smoothing=0.1))
