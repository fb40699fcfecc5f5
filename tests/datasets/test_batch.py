"""Collating keeps types, order and names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from core.contract import Input
from datasets.batch import collate, pack_or_pass
from datasets.manifest import Manifest
from datasets.sample import Failure, Item, StreamSpec
from datasets.tiles import TileDataset


def test_batch_holds_the_samples_in_order(manifest: Manifest, photograph_input: Input) -> None:
    dataset = TileDataset(manifest, [StreamSpec(input=photograph_input, batch_size=3)], seed=0)
    samples = [dataset[Item(stream=0, row=row, index=10 + row)] for row in (4, 0, 7)]
    batch = collate(samples)
    assert batch.image.dtype == torch.uint8
    assert batch.valid.dtype == torch.bool
    assert batch.row.tolist() == [4, 0, 7]
    assert batch.index.tolist() == [14, 10, 17]
    assert batch.key.tolist() == [sample.key for sample in samples]
    for field in ("spacing", "origin"):
        expected = torch.tensor([getattr(sample, field) for sample in samples])
        assert torch.equal(getattr(batch, field), expected)
    for number, sample in enumerate(samples):
        assert np.array_equal(batch.image[number].numpy(), sample.image)
    normal = batch.normalised()
    expected = (batch.image[:, 1].float() / 255 - 0.4) / 0.2
    torch.testing.assert_close(normal.image[:, 1][batch.valid[:, 1]], expected[batch.valid[:, 1]])
    assert (normal.image[~batch.valid] == 0).all()


def test_mixed_types_meet_in_float32(manifest: Manifest, photograph_input: Input) -> None:
    dataset = TileDataset(manifest, [StreamSpec(input=photograph_input, batch_size=3)], seed=0)
    one = dataset[Item(stream=0, row=0, index=0)]
    deep = replace(one, image=one.image.astype(np.uint16) * 257, offset=one.offset * 257, scale=one.scale / 257)
    assert collate([deep, deep]).image.dtype == torch.uint16
    batch = collate([one, deep])
    assert batch.image.dtype == torch.float32
    normal = batch.normalised().image
    torch.testing.assert_close(normal[0], normal[1], atol=1e-4, rtol=1e-4)


def test_a_failure_is_passed_on(manifest: Manifest, photograph_input: Input) -> None:
    dataset = TileDataset(manifest, [StreamSpec(input=photograph_input, batch_size=3)], seed=0)
    failure = Failure("DataError", "a.png: broken")
    assert pack_or_pass([dataset[Item(stream=0, row=0, index=0)], failure]) is failure
