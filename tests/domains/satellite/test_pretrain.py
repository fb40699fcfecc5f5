"""The presets as published, and a run from end to end on drawn scenes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import core
from core.batch import Batch
from core.cli import Options
from core.maskers.base import Masker
from core.rng import SampleRng
from datasets import Manifest
from domains.satellite.collection import SATELLITE
from domains.satellite.pretrain import PRESETS, fgmae_s1, fgmae_s2, satmae, satvision_base, tiny
from domains.verbs.pretrain import _report
from tests.domains.satellite.writing import SMALL, geotiff, noise


@pytest.mark.parametrize(
    ("name", "millions"),
    [("tiny", 2.19), ("satvision_base", 86.92), ("fgmae_s2", 87.61), ("fgmae_s1", 85.45), ("satmae", 302.98)],
)
def test_presets_build_and_say_where_they_are_from(name: str, millions: float) -> None:
    preset = PRESETS[name]()
    assert "Source:" in (PRESETS[name].__doc__ or "")
    assert f"domains.satellite.pretrain {name} " in (PRESETS[name].__doc__ or "")
    with torch.device("meta"):
        recipe = preset.recipe.build()
    size = sum(p.numel() for p in recipe.encoder.parameters()) / 1e6
    assert size == pytest.approx(millions, abs=0.005 if millions < 10 else 1.0)


@pytest.mark.parametrize(
    ("name", "encoder", "everything"),
    [("satvision_huge", 654_944_120, 695_328_632), ("satvision_giant", 2_595_048_416, 2_653_783_008)],
)
def test_satvision_has_exactly_the_released_number_of_parameters(name: str, encoder: int, everything: int) -> None:
    with torch.device("meta"):
        recipe = PRESETS[name]().recipe.build()
    # Theirs counts the mask token as the encoder's; ours is the recipe's, and the encoder has a vector for missing data.
    ours = sum(p.numel() for name, p in recipe.named_parameters() if name.endswith("nodata"))
    assert ours == recipe.mask_token.numel()
    assert sum(p.numel() for p in recipe.encoder.parameters()) - ours + recipe.mask_token.numel() == encoder
    assert sum(p.numel() for p in recipe.parameters()) - ours == everything


def test_satvision_hides_154_of_256_cells_of_eight_pixels() -> None:
    config = satvision_base()
    (entry,) = config.recipe.encoder.contract.inputs
    image = torch.zeros(3, 14, 128, 128)
    ids = torch.arange(3)
    batch = Batch(
        image=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        bands=entry.bands,
        spacing=torch.full((3, 2), 1000.0),
        unit="m",
        offset=torch.zeros(3, 14),
        scale=torch.ones(3, 14),
        key=ids,
        index=ids,
        row=ids,
    )
    masker: Masker = config.recipe.masker  # type: ignore[attr-defined]
    hide = masker(batch, entry.grid(), SampleRng(ids)).hide.reshape(3, 32, 32)
    cells = hide.reshape(3, 16, 2, 16, 2).permute(0, 1, 3, 2, 4).flatten(3)
    assert (cells.all(3) == cells.any(3)).all()
    assert cells.all(3).sum((1, 2)).tolist() == [154] * 3


def test_fgmae_forms_its_indices_by_band_name_and_radar_has_none() -> None:
    for preset, terms in ((fgmae_s2, {"hog", "indices"}), (fgmae_s1, {"hog"})):
        with torch.device("meta"):
            recipe = preset().recipe.build()
        assert set(recipe.branches["features"].terms) == terms
    assert list(recipe.encoder.contract.inputs[0].bands) == ["VV", "VH"]


def test_satmae_reads_432_tokens_in_three_groups() -> None:
    (entry,) = satmae().recipe.encoder.contract.inputs
    assert entry.grid().num_tokens == 432
    assert [len(group) for group in entry.groups] == [4, 4, 2]
    assert {"B01", "B09", "B10"} & set(entry.bands) == set()


def test_sentinel1_between_two_deviations_is_0_to_1() -> None:
    (entry,) = fgmae_s1().recipe.encoder.contract.inputs
    values = entry.normalisation
    vh = entry.bands.index("VH")
    for deviations, share in ((-2.0, 0.0), (0.0, 0.5), (2.0, 1.0)):
        decibel = -20.19237134 + deviations * 5.91150917
        assert (decibel - values.mean[vh]) / values.std[vh] == pytest.approx(share, abs=1e-6)
    assert values.clip[vh] == pytest.approx((-32.01538968, -8.36935300), abs=1e-6)


def test_a_run_on_drawn_scenes_is_complete(scene_run: Path, scenes: Path) -> None:
    lines = [json.loads(line) for line in (scene_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["stream"] for line in lines if line["event"] == "step"] == ["scene", "scene"]
    manifest = Manifest.read(scene_run / "data.parquet")
    sides = set(zip(manifest.column("group"), manifest.column("split"), strict=True))
    assert len(sides) == len(set(manifest.column("group"))) == 6
    encoder = core.load_encoder(scene_run)
    (entry,) = encoder.contract.inputs
    assert entry.bands == tuple(manifest.column("bands")[0])
    assert entry.unit == "m"
    assert entry.spacing == pytest.approx(manifest.column("spacing")[0], rel=1e-2)
    panels = json.loads((scene_run / "figures" / "panels.json").read_text())["rows"]
    assert {row["input"] for row in panels} == {"scene"}
    page = (scene_run / "report.html").read_text()
    assert "Satellite, preset tiny" in page
    assert f'<p class="note">{len(manifest)} scenes in 6 groups.</p>' in page
    assert "Caution" not in page


def test_drawn_images_are_warned_of_and_counted(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("steps: 1\n")
    what = f"{SATELLITE.samples.announcement} 9 scenes in 3 groups"
    _report(SATELLITE, Options(out=tmp_path), tiny(), [], what)
    page = (tmp_path / "report.html").read_text()
    assert f'<p class="warning"><b>Caution:</b> {SATELLITE.samples.announcement}</p>' in page
    assert '<p class="note">9 scenes in 3 groups.</p>' in page


@pytest.mark.slow
def test_a_run_is_repeated_from_its_own_config(scene_run: Path, satellite, tmp_path: Path) -> None:
    outcome = satellite("pretrain", "--config", scene_run / "config.yaml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    one, two = (path / "step_000002" / "model.safetensors" for path in (scene_run, tmp_path / "again"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_a_single_scene_is_trained_on_whole(satellite, tmp_path: Path) -> None:
    path = geotiff(tmp_path / "one.tif", noise(2, 96, 96).astype("uint16"), ("red", "nir"), nodata=0)
    outcome = satellite("pretrain", "tiny", "--data", path, *SMALL, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "nothing is held out" in outcome.err
    assert "1 scene in 1 group;" in outcome.err
    assert "held_out: 0.0" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_list_of_presets_is_complete(satellite) -> None:
    outcome = satellite("pretrain", "--list")
    assert outcome.code == 0
    assert all(f"  {name} " in outcome.out for name in PRESETS)


def test_what_is_refused_writes_nothing(satellite, tmp_path: Path) -> None:
    path = geotiff(tmp_path / "one.tif", noise(3, 96, 96).astype("uint16"))
    outcome = satellite("pretrain", "tiny", "--data", path, *SMALL, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.count("error: ") == 1
    assert "geotiff.bands=[" in outcome.sentence
    assert not (tmp_path / "run").exists()


def test_a_plan_is_of_the_bands_that_the_data_has(satellite, tmp_path: Path) -> None:
    path = geotiff(tmp_path / "one.tif", noise(6, 96, 96).astype("uint16"))
    words = ["--data", path, "--options", "geotiff.bands=[a,b,c,d,e,f]", *SMALL[:3]]
    sizes = []
    for chosen in ([], ["--bands", "a,c,e"], ["--bands", "a"]):
        outcome = satellite("pretrain", "tiny", "--plan", *words, *chosen)
        assert outcome.code == 0, outcome.err
        (line,) = [line for line in outcome.out.splitlines() if line.startswith("encoder ")]
        sizes.append(float(line.split()[1]) * 1e6)
    per_band = 24 * 4 * 4
    assert sizes[0] - sizes[1] == pytest.approx(3 * per_band, abs=1e4)
    assert not list(tmp_path.glob("runs*"))
