"""Pretraining on converted files is pretraining on the originals: the same samples, and the same loss to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.cli import Options
from core.config import override
from datasets import TileLoader, build_manifest, split_groups
from domains.retina.collection import resolve
from domains.retina.pretrain import run, tiny
from domains.verbs.pretrain import streams

pytestmark = pytest.mark.slow

CLOCK = ("time", "samples_per_s", "data_wait_s", "step_s")
FEW = {
    "how.validate_every": 4,
    "how.save_every": 8,
    "optim.warmup_steps": 1,
    "steps": 8,
    "data.streams.0.turns": 2,
    "data.streams.0.batch_size": 4,
    "data.streams.1.batch_size": 4,
}


@pytest.fixture(scope="module")
def converted(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample set of JPEG photographs and .nii.gz volumes as prepared stores."""
    from datasets.convert import main

    out = tmp_path_factory.mktemp("converted") / "set"
    with pytest.raises(SystemExit) as ended:
        main([str(samples / "labels.csv"), str(out)])
    assert ended.value.code == 0
    return out


def test_the_samples_are_the_same(samples: Path, converted: Path) -> None:
    loaders = []
    for path in (samples / "labels.csv", converted):
        manifest = split_groups(build_manifest([path]), 0.2, seed=3)
        config = resolve(override(tiny(), FEW), manifest)
        loaders.append(TileLoader(manifest, streams(config), seed=3))
    for one, other in zip(*(loader.batches(0, 12) for loader in loaders), strict=True):
        for name in ("image", "valid", "spacing", "offset", "scale", "key", "index", "row", "origin"):
            assert (getattr(one, name) == getattr(other, name)).all(), name
        assert one.image.dtype == other.image.dtype
    for stream in ("photograph", "volume"):
        for one, other in zip(*(loader.held_out(stream, 4) for loader in loaders), strict=True):
            assert (one.image == other.image).all()
            assert (one.valid == other.valid).all()


@pytest.mark.parametrize("tiles", [1, 4])
def test_the_loss_curve_is_the_same_to_the_last_bit(samples: Path, converted: Path, tmp_path: Path, tiles: int) -> None:
    outcomes = []
    for name, path in (("original", samples / "labels.csv"), ("converted", converted)):
        changes = FEW | {
            "data.paths": [str(path)],
            "data.streams.1.tiles.per_image": tiles,
            "data.streams.1.tiles.per_visit": tiles,
            "data.streams.1.tiles.window": tiles,
        }
        out = run(override(tiny(), changes), Options(out=tmp_path / name, preset="tiny"))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        curve = [{k: v for k, v in line.items() if k not in CLOCK} for line in lines if "loss" in line]
        outcomes.append(
            (curve, (out / "samples.jsonl").read_text(), (out / "step_000008/model.safetensors").read_bytes())
        )
    assert len(outcomes[0][0]) >= 8 + 3 * 2
    assert outcomes[0][0] == outcomes[1][0]
    assert outcomes[0][1] == outcomes[1][1]
    assert outcomes[0][2] == outcomes[1][2]
