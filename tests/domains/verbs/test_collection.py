"""What every verb that reads a collection does with one that leads out of its folder, typed as its message says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasets import build_manifest, split_groups
from domains.verbs.pretrain import _apart
from tests.domains.satellite.models import reads, save_encoder, save_model

BANDS = ("red", "green", "blue")
VERBS = [
    ("retina", "pretrain", ("tiny",)),
    ("retina", "finetune", ("linear", "--label=grade", "--encoder=run")),
    ("retina", "evaluate", ("--label=grade", "--encoder=run")),
    ("retina", "embed", ("--encoder=run",)),
    ("satellite", "pretrain", ("tiny",)),
    ("satellite", "finetune", ("linear", "--label=grade", "--encoder=run")),
    ("satellite", "finetune", ("segment", "--maps.rasters=cover.tif", "--encoder=run")),
    ("satellite", "evaluate", ("--label=grade", "--encoder=run")),
    ("satellite", "embed", ("--encoder=run",)),
    ("satellite", "predict", ("--model=model",)),
]


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CSV and a STAC item in one folder, both naming a file in another one, which is no image."""
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "run", reads(BANDS))
    save_model(tmp_path / "model", reads(BANDS))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "torn.tif").write_bytes(b"II*\0torn")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.csv").write_text("file,grade\n../elsewhere/torn.tif,1\n")
    asset = {"href": "../elsewhere/torn.tif", "roles": ["data"], "type": "image/tiff; application=geotiff"}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "torn", "properties": {"datetime": None}}
    (tmp_path / "lists" / "item.json").write_text(json.dumps(item | {"assets": {"B04": asset}}))
    return tmp_path / "lists"


@pytest.mark.parametrize("name", ["list.csv", "item.json"])
@pytest.mark.parametrize(("domain", "verb", "words"), VERBS, ids=[f"{domain}.{verb}" for domain, verb, _ in VERBS])
def test_every_verb_takes_the_option_that_its_refusal_names(
    domain: str, verb: str, words: tuple[str, ...], name: str, lists: Path, typed: Callable[..., Any]
) -> None:
    command = (domain, verb, *words, "--data", lists / name, "--out", "out.parquet")
    refused = typed(*command)
    assert refused.code == 2
    assert f"{name}: " in refused.sentence
    assert "torn.tif: expected a file inside " in refused.sentence
    assert "`--allow-outside`" in refused.sentence
    taken = typed(*command, "--allow-outside")
    assert taken.code == 2, "it is read, and is no image"
    assert "allow-outside" not in taken.sentence
    assert "torn.tif" in taken.sentence


def test_images_of_other_splits_than_those_of_pretraining_are_said_to_be_left_alone(tmp_path: Path) -> None:
    for name in "abcdef":
        Image.new("L", (16, 16), 90).save(tmp_path / f"{name}.png")
    rows = "a.png,train\nb.png,held_out\nc.png,test\nd.png,test\ne.png,val\nf.png,"
    (tmp_path / "list.csv").write_text(f"file,split\n{rows}\n")
    manifest = split_groups(build_manifest([tmp_path / "list.csv"]), held_out=0.0, seed=0)
    assert sorted(_apart(manifest).split("; ")[1:]) == [
        "1 image of split 'val' left alone",
        "2 images of split 'test' left alone",
    ]
