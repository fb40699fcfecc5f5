from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.batch import Batch
from core.errors import ConfigError, DataError
from core.finetune import Finetune, Measured, examine, finetune
from core.heads.regress import Regress

ROWS, TRAIN, VALIDATION = 90, 60, 15
SPLIT = ("train",) * TRAIN + ("validation",) * VALIDATION + ("test",) * (ROWS - TRAIN - VALIDATION)
CONFIG = Finetune(mode="linear", steps=200, lr=0.2, warmup_steps=5, validate_every=50, select="R2", weight_decay=0.0)


class Bands(nn.Module):
    """The mean of each band, as an encoder."""

    def forward(self, batch: Batch) -> Tensor:
        return batch.image.mean((2, 3))


def world() -> tuple[Tensor, Measured]:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(ROWS, 2, 4, 4, generator=draw)
    means = image.mean((2, 3)).double()
    values = torch.stack([300.0 + 40.0 * means[:, 0], 2.0 * means[:, 1]], 1)
    values[::7, 0] = torch.nan
    values[14] = torch.nan
    return image, Measured(values=values, names=("heat", "wet"), groups=tuple(map(str, range(ROWS))), split=SPLIT)


def batch_of(image: Tensor, rows: Tensor) -> Batch:
    n = len(rows)
    return Batch(
        image=image[rows],
        valid=torch.ones(n, 2, 4, 4, dtype=torch.bool),
        bands=("a", "b"),
        spacing=torch.ones(n, 2),
        unit="px",
        offset=torch.zeros(n, 2),
        scale=torch.ones(n, 2),
        key=rows.clone(),
        index=rows.clone(),
        row=rows,
    )


def test_learns_numbers_in_their_own_units_where_some_are_not_known() -> None:
    image, measured = world()
    torch.manual_seed(0)
    head = Regress(centre=measured.centre, spread=measured.spread).build(2)

    def train(start: int, stop: int) -> Iterator[Batch]:
        rows = measured.rows("train")
        for step in range(start, stop):
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(step))
            yield batch_of(image, rows[order[:16]])

    result = finetune(
        Bands(),
        head,
        config=CONFIG,
        labelled=measured,
        train=train,
        validation=lambda: [batch_of(image, measured.rows("validation"))],
    )
    assert result.best.scores["R2"] > 0.98
    found = examine(Bands(), head, [batch_of(image, measured.rows("test"))], measured, "test")
    known = measured.values[found.rows].isfinite().numpy()
    error = np.abs(found.summary - measured.values[found.rows].numpy())[known]
    assert error.max() < 2.0


def test_centre_and_spread_are_of_known_training_numbers_alone() -> None:
    _, measured = world()
    train = measured.values[:TRAIN, 0]
    train = train[train.isfinite()]
    assert measured.centre[0] == pytest.approx(float(train.mean()))
    assert measured.spread[0] == pytest.approx(float(train.std()))


def test_numbers_that_are_not_known_are_not_in_the_loss() -> None:
    _, measured = world()
    truth = torch.tensor([[torch.nan, 1.0], [300.0, torch.nan]])
    answer = torch.tensor([[5.0, 1.5], [310.0, -7.0]], requires_grad=True)
    loss = measured.loss(answer, truth, CONFIG, None)
    heat, wet = measured.spread
    assert float(loss.detach()) == pytest.approx(((10 / heat) ** 2 + (0.5 / wet) ** 2) / 2)
    loss.backward()
    assert answer.grad is not None
    assert answer.grad[0, 0] == 0
    assert answer.grad[1, 1] == 0


def test_what_cannot_be_learnt_is_refused() -> None:
    _, measured = world()
    assert 14 not in measured.rows("train").tolist()
    same = measured.values.clone()
    same[TRAIN : TRAIN + VALIDATION, 1] = 3.0
    with pytest.raises(
        DataError, match="2 different values of 'wet' in the split 'validation', got 15 images of one value"
    ):
        replace(measured, values=same)
    for option in ({"balanced": True}, {"label_smoothing": 0.1}):
        with pytest.raises(ConfigError, match="have no effect on numbers"):
            measured.refuse(replace(CONFIG, **option))
    same[:, 1] = 3.0
    with pytest.raises(DataError, match="expected different values of 'wet', got 3 for every image"):
        replace(measured, values=same)
