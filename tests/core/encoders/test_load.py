"""A stored encoder is loaded exactly, or refused with a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import core
from core.checkpoint import export_encoder
from core.errors import BandError, CheckpointError, ConfigError, MissingDataError, ShapeError
from core.testing.samples import SCENE, encoder_spec, ragged_batch


@pytest.fixture
def stored(tmp_path):
    backbone = encoder_spec().build().eval()
    (tmp_path / "run").mkdir()
    return backbone, export_encoder(backbone, tmp_path / "run" / "encoder")


def test_run_folder_and_encoder_folder_give_the_same_features(stored):
    backbone, folder = stored
    batch = ragged_batch(SCENE)
    expected = backbone.features(backbone.prepare(batch)[0], "mean")
    for path in (folder, folder.parent, str(folder)):
        encoder = core.load_encoder(path)
        assert not encoder.training
        assert torch.equal(encoder(batch), expected)
    assert encoder.contract == backbone.contract
    assert len(encoder.report.placed) == len(backbone.state_dict())


def test_pool_is_explicit(stored):
    _, folder = stored
    batch = ragged_batch(SCENE)
    vectors = [core.load_encoder(folder, pool=pool)(batch) for pool in ("mean", "cls", "mean_then_norm", "mean_std")]
    assert not torch.allclose(vectors[0], vectors[1])
    assert torch.equal(vectors[3][:, :24], vectors[0])
    assert core.load_encoder(folder, pool="mean_std").num_features == vectors[3].shape[1] == 48
    with pytest.raises(ConfigError, match="'mean', 'mean_std', 'cls' or 'mean_then_norm', got 'max'"):
        core.load_encoder(folder, pool="max")(batch)


def test_flipped_bytes_are_noticed(stored):
    _, folder = stored
    path = folder / "model.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 0x40
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="not those that were written"):
        core.load_encoder(folder)


def test_weights_that_do_not_fit_are_listed(stored):
    _, folder = stored
    path = folder / "config.json"
    description = json.loads(path.read_text())
    description["spec"]["depth"] = 3
    path.write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"missing: blocks\.2\.attn\.proj\.bias, "):
        core.load_encoder(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}'])
def test_a_description_that_is_not_ours_is_refused(stored, text):
    _, folder = stored
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: expected"):
        core.load_encoder(folder)


def test_nothing_at_the_path(tmp_path):
    with pytest.raises(MissingDataError, match="expected a run folder"):
        core.load_encoder(tmp_path / "gone")


def test_arrays_and_tensors_are_read_by_name_or_count(stored):
    encoder = core.load_encoder(stored[1])
    raw = np.random.default_rng(0).normal(100, 20, (6, 40, 60)).astype(np.float32)
    batch = encoder.preprocess(raw)
    assert batch.image.shape == (1, 6, 32, 48)
    order = [3, 1, 0, 5, 4, 2]
    named = encoder.preprocess(raw[order], bands=tuple(SCENE.bands[i] for i in order))
    assert torch.equal(encoder(named), encoder(batch))
    with pytest.raises(BandError, match="2D with 5 channels"):
        encoder.preprocess(raw[:5])
    with pytest.raises(ShapeError, match=r"\(B, C, Y, X\)"):
        encoder(torch.zeros(6, 32, 32))
    holes = torch.randn(1, 6, 32, 32)
    holes[0, :, :8, :8] = torch.nan
    assert bool(torch.isfinite(encoder(holes)).all())
