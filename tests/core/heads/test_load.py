from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from core.checkpoint import export_encoder
from core.errors import CheckpointError, MissingDataError
from core.heads._maps import FeatureMaps
from core.heads.load import Model, load_model, write_head
from core.heads.segment import Segment
from core.testing.head_contract import tiny_model
from core.testing.samples import SCENE, grouped, ragged_batch


def stored(folder: Path) -> Model:
    model = tiny_model("segment", "swinv2", SCENE)
    model.colours = ((0, 0, 255), (0, 128, 0), (128, 128, 128))
    model.about = {"codes": [1, 2, 7]}
    write_head(folder, model)
    export_encoder(model.encoder.backbone, folder / "encoder")
    return model


def test_the_legend_and_the_facts_are_kept(tmp_path: Path) -> None:
    stored(tmp_path)
    again = load_model(tmp_path)
    assert again.classes == ("water", "forest", "town")
    assert again.colours == ((0, 0, 255), (0, 128, 0), (128, 128, 128))
    assert again.about == {"codes": [1, 2, 7]}
    assert again.contract == again.encoder.contract
    facts = json.loads((tmp_path / "head.json").read_text())
    assert facts["task"] == "segment"
    assert facts["spec"] == {"kind": "segment", "num_classes": 3, "batch_norm": False, "init_std": 0.02}


def test_the_pool_of_the_vector_is_kept(tmp_path: Path) -> None:
    model = tiny_model("classify", "vit", SCENE)
    model.encoder.pool = "mean_std"
    wide = Model(model.encoder, model.spec, task="classify", classes=model.classes)
    write_head(tmp_path, wide)
    export_encoder(wide.encoder.backbone, tmp_path / "encoder")
    again = load_model(tmp_path)
    assert again.encoder.pool == "mean_std"
    assert again.head.linear.in_features == 2 * model.encoder.backbone.num_features
    assert torch.equal(again(ragged_batch(SCENE)), wide.eval()(ragged_batch(SCENE)))


def test_the_map_is_the_encoders_feature_map() -> None:
    """Also where bands are grouped, and whose tokens share a place."""
    for entry in (SCENE, grouped(SCENE)):
        model = tiny_model("segment", "vit", entry)
        (one,) = model.features(ragged_batch(entry)).maps
        assert isinstance(model.features, FeatureMaps)
        torch.testing.assert_close(one, model.encoder.feature_map(ragged_batch(entry)))


def test_what_is_not_there_or_damaged_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"expected a run folder of `finetune` with head\.json"):
        load_model(tmp_path)
    stored(tmp_path)
    text = (tmp_path / "head.json").read_text()
    (tmp_path / "head.json").write_text(text[:40])
    with pytest.raises(CheckpointError, match=r"head\.json: expected JSON"):
        load_model(tmp_path)
    (tmp_path / "head.json").write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointError, match="written by another version"):
        load_model(tmp_path)
    facts = json.loads(text)
    del facts["classes"]
    (tmp_path / "head.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="expected classes; bring the file back"):
        load_model(tmp_path)
    (tmp_path / "head.json").write_text(json.dumps(json.loads(text) | {"digests": {}}))
    with pytest.raises(CheckpointError, match=r"expected the digest of head\.safetensors"):
        load_model(tmp_path)


def test_weights_of_another_head_are_refused_by_name(tmp_path: Path) -> None:
    model = stored(tmp_path)
    facts = json.loads((tmp_path / "head.json").read_text())
    facts["spec"] = {"kind": "segment", "num_classes": 5}
    facts["classes"], facts["colours"] = list("abcde"), []
    (tmp_path / "head.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=r"reshaped: linear\.bias: file \(3,\), module \(5,\)"):
        load_model(tmp_path)
    assert isinstance(model.spec, Segment)
