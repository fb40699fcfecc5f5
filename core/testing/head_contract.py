"""What every head promises, on any encoder, in 2D, in 3D and with 14 bands: its answer's shape, and no word on missing data.

A test class gives the fixtures `model` (a head joined to an encoder) and `entry` (the input of its images), and inherits
the exam; see tests/contracts/test_heads.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core import registry
from core.checkpoint import export_encoder
from core.config import from_dict, to_dict
from core.contract import Contract, Input
from core.encoders.load import Encoder
from core.errors import CheckpointError, ConfigError
from core.heads.base import HeadSpec
from core.heads.load import Model, Task, load_model, write_head
from core.testing.encoder_contract import tiny_spec
from core.testing.samples import ragged_batch
from core.weights import Placement

CLASSES = ("water", "forest", "town")
_OWN: dict[str, dict[str, Any]] = {
    "classify": {"num_classes": 3, "init_std": 0.5},
    "regress": {"centre": (2.0, 5.0, 1.0), "spread": (1.0, 0.1, 3.0), "init_std": 0.5},
    "segment": {"num_classes": 3},
    "upernet": {"num_classes": 3, "width": 8},
    "cloud_mask": {"widths": (8, 6, 4)},
}
TASKS: dict[str, Task] = {"regress": "regress", "cloud_mask": "cloud_mask", "classify": "classify"}


def tiny_head(name: str) -> HeadSpec:
    """Describe any head of the folder at tiny size; a new one needs no line here if its defaults and 3 classes do."""
    part = registry.get("heads", name)
    spec: HeadSpec = part(**_OWN.get(name, {"num_classes": 3}))
    return spec


def tiny_model(name: str, encoder: str, entry: Input) -> Model:
    """Join any head to any encoder that reads the given input, both with fresh weights."""
    torch.manual_seed(0)
    backbone = tiny_spec(encoder, Contract(inputs=(entry,))).build()
    loaded = Encoder(backbone, pool="mean", report=Placement(()))
    classes = CLASSES[:1] if name == "cloud_mask" else CLASSES
    return Model(
        loaded,
        tiny_head(name),
        task=TASKS.get(name, "segment"),
        classes=classes,
        ndim=entry.ndim,
        about={"made": "tiny"},
    ).eval()


class HeadContract:
    """The exam."""

    def test_answers_for_each_image_or_for_each_of_its_voxels(self, model: Model, entry: Input) -> None:
        batch = ragged_batch(entry)
        answer = model(batch)
        given: Any = model.spec
        places = {"vector": (), "map": getattr(given, "size", batch.size), "levels": batch.size}[model.spec.reads]
        assert answer.shape == (len(batch), len(model.classes), *places)
        assert answer.dtype == torch.float32
        assert float(answer[0].detach().std()) > 0

    def test_missing_voxels_change_nothing(self, model: Model, entry: Input) -> None:
        batch = ragged_batch(entry)
        answer = model(batch)
        assert bool(answer.isfinite().all())
        for content in (0.0, 1e4, math.nan, math.inf):
            filled = replace(batch, image=torch.where(batch.valid, batch.image, content))
            assert torch.equal(answer, model(filled))

    def test_batch_mates_change_nothing(self, model: Model, entry: Input) -> None:
        batch = ragged_batch(entry)
        together = model(batch)
        for row in range(len(batch)):
            torch.testing.assert_close(model(batch.take([row]))[0], together[row], atol=2e-5, rtol=1e-4)

    def test_bands_count_by_name(self, model: Model, entry: Input) -> None:
        batch = ragged_batch(entry)
        shuffled = batch.aligned(tuple(reversed(entry.bands)))
        assert torch.equal(model(batch), model(shuffled))

    def test_every_weight_of_the_head_learns(self, model: Model, entry: Input) -> None:
        model.head.train()
        answer = model(ragged_batch(entry))
        weights = torch.randn(answer.shape, generator=torch.Generator().manual_seed(1))
        (answer * weights).sum().backward()
        for name, parameter in model.head.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name

    def test_a_stored_model_answers_bit_for_bit(self, model: Model, entry: Input, tmp_path: Path) -> None:
        export_encoder(model.encoder.backbone, tmp_path / "encoder")
        write_head(tmp_path, model)
        again, batch = load_model(tmp_path), ragged_batch(entry)
        assert torch.equal(again(batch), model(batch))
        assert (again.task, again.classes, again.spec, again.about) == (
            model.task,
            model.classes,
            model.spec,
            model.about,
        )
        assert not again.training
        (tmp_path / "head.safetensors").write_bytes(b"\0" * 64)
        with pytest.raises(CheckpointError, match=r"head\.safetensors: its bytes are not those"):
            load_model(tmp_path)

    def test_its_description_survives_a_config_file(self, model: Model) -> None:
        tree = to_dict(model.spec)
        assert from_dict(HeadSpec, tree) == model.spec  # type: ignore[type-abstract]

    def test_probabilities_are_shares_of_certainty(self, model: Model, entry: Input) -> None:
        batch = ragged_batch(entry)
        found = model.probabilities(batch).detach()
        if model.task == "regress":
            assert torch.equal(found, model(batch))
            return
        assert float(found.min()) >= 0
        assert float(found.max()) <= 1
        if model.task != "cloud_mask":
            torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))

    def test_a_task_or_a_legend_that_does_not_fit_is_refused(self, model: Model) -> None:
        given: dict[str, Any] = {"task": model.task, "classes": model.classes, "ndim": model.ndim}
        with pytest.raises(ConfigError, match="expected a task of classify, segment, regress, cloud_mask, got 'guess'"):
            Model(model.encoder, model.spec, **(given | {"task": "guess"}))
        with pytest.raises(ConfigError, match="expected one colour for each of"):
            Model(model.encoder, model.spec, colours=((0, 0, 0),) * 9, **given)
