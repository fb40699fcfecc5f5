"""The preset tiny on real scenes with nodata: GeoTIFF, Landsat band files, Sentinel-2 as Zarr, MODIS HDF4."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

import core
from core.config import override
from core.encoders.cards.fgmae import MSI_BANDS
from core.engine.config import Pretrain
from datasets import Manifest, TileLoader
from domains.satellite.collection import SATELLITE, resolve
from domains.satellite.pretrain import tiny
from domains.verbs.collection import collect
from domains.verbs.pretrain import streams
from tests.domains.satellite.writing import geotiff, landsat

pytestmark = pytest.mark.slow

FEW = [
    "--recipe.encoder.width=24",
    "--recipe.encoder.depths=1,1",
    "--recipe.encoder.heads=2,4",
    "--steps=20",
    "--optim.warmup_steps=2",
    "--optim.lr=3e-3",
    "--data.streams.0.batch_size=8",
    "--how.validate_every=20",
]
MEXICO = ("blue", "green", "red", "nir", "swir_1", "swir_2", "thermal", "fmask")
LANDSAT_7 = {"B1": 1, "B2": 2, "B3": 3, "B4": 4, "B5": 5, "B7": 6}  # and the band of the stack that holds it
REFLECTANCES = tuple(f"sur_refl_b0{number}_1" for number in range(1, 8))


def option(name: str, values: tuple[str, ...]) -> str:
    return f"{name}=[{','.join(values)}]"


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "step"]


@pytest.fixture
def learns(satellite: Callable[..., Any], tmp_path: Path) -> Callable[..., core.Encoder]:
    """Train 20 steps, see the loss fall, and give the encoder."""

    def check(*words: object) -> core.Encoder:
        outcome = satellite("pretrain", "tiny", *words, *FEW, "--out", tmp_path / "run")
        assert outcome.code == 0, outcome.err
        curve = losses(tmp_path / "run")
        assert len(curve) == 20
        assert np.isfinite(curve).all()
        assert np.mean(curve[-5:]) < 0.9 * np.mean(curve[:3]), curve
        assert (tmp_path / "run" / "report.html").exists()
        return core.load_encoder(tmp_path / "run")

    return check


@pytest.fixture(scope="module")
def mexico(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, dict[str, Any]]:
    """The Landsat 7 stack of 1999, int16 with nodata -9999, and its place."""
    with rasterio.open(shared / "data/satellite/landsat7_mexico/LE70220491999322EDC01_stack.gtif") as file:
        return file.read(), {"crs": file.crs, "transform": file.transform, "nodata": -9999}


@pytest.fixture(scope="module")
def sentinel(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five dates of Sentinel-2 with 13 bands as GeoTIFF, a corner of each without data; and the same as Zarr."""
    from datasets.convert import main

    root = tmp_path_factory.mktemp("sentinel")
    dates = np.load(shared / "data/satellite/eolearn_s2_slovenia/S2_L1C_13band_5dates.npy")
    for number, date in enumerate(dates):
        pixels = np.moveaxis(date, 2, 0).copy()
        pixels[:, :20, : 10 * number + 5] = np.nan
        geotiff(root / f"tif/date_{number}.tif", pixels, MSI_BANDS, crs="EPSG:32633", step=10.0, nodata=np.nan)
    with pytest.raises(SystemExit) as ended:
        main([str(root / "tif"), str(root / "zarr"), "--quiet"])
    assert ended.value.code == 0
    return root / "tif", root / "zarr"


def test_geotiff(learns: Callable[..., core.Encoder], shared: Path) -> None:
    stack = shared / "data/satellite/landsat7_mexico/LE70220491999322EDC01_stack.gtif"
    named = ["--options", option("geotiff.bands", MEXICO)]
    bands = "--bands=blue,green,red,nir,swir_1,swir_2"
    (entry,) = learns("--data", stack, *named, bands).contract.inputs
    assert entry.bands == MEXICO[:6]
    assert (entry.unit, entry.spacing) == ("m", (30.0, 30.0))
    with rasterio.open(stack) as file:
        pixels = file.read(masked=True)[:6]
    np.testing.assert_allclose(entry.normalisation.mean, pixels.mean((1, 2)), rtol=1e-5)
    assert min(entry.normalisation.mean) > 0, "the fill value -9999 was measured"


@pytest.mark.parametrize(
    ("file", "words", "bands"),
    [
        ("RGB.byte.tif", [], ("red", "green", "blue")),
        ("L7_ETMs.tif", ["--options", option("geotiff.bands", MEXICO[:6])], MEXICO[:6]),
        (
            "naip_m_4709963_se_14_1_20150926.tif",
            ["--options", option("geotiff.bands", ("red", "green", "blue", "nir"))],
            ("red", "green", "blue", "nir"),
        ),
        (
            "S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif",
            ["--options", option("geotiff.bands", ("VV",)), "--bands=VV", "--sensor=sentinel1"],
            ("VV",),
        ),
    ],
)
def test_geotiffs_of_four_sensors_and_four_ways_to_say_nodata(
    learns: Callable[..., core.Encoder], shared: Path, file: str, words: list[str], bands: tuple[str, ...]
) -> None:
    (entry,) = learns("--data", shared / "data/satellite/misc_geotiff" / file, *words).contract.inputs
    assert entry.bands == bands


def test_landsat_band_files(
    learns: Callable[..., core.Encoder], mexico: tuple[np.ndarray, dict[str, Any]], tmp_path: Path
) -> None:
    pixels, place = mexico
    chosen = pixels[[number - 1 for number in LANDSAT_7.values()]].copy()
    chosen[:, :60] = -9999
    landsat(tmp_path / "LE07", chosen, tuple(LANDSAT_7), **place)
    (entry,) = learns("--data", tmp_path / "LE07").contract.inputs
    assert entry.bands == tuple(LANDSAT_7)
    known = np.ma.masked_equal(chosen, -9999)
    np.testing.assert_allclose(entry.normalisation.mean, known.mean((1, 2)), rtol=1e-5)


def test_sentinel2_as_zarr(learns: Callable[..., core.Encoder], sentinel: tuple[Path, Path]) -> None:
    known = [f"--bands={','.join(MSI_BANDS)}", "--sensor=sentinel2_l1c"]
    (entry,) = learns("--data", sentinel[1], *known).contract.inputs
    assert entry.bands == MSI_BANDS
    assert entry.spacing == (10.0, 10.0)
    assert 0 < min(entry.normalisation.mean) < max(entry.normalisation.mean) < 1


def test_modis_hdf(learns: Callable[..., core.Encoder], shared: Path) -> None:
    pytest.importorskip("pyhdf", reason="needs pyhdf, the extra `hdf`, which reads HDF4")
    words = ["--data", shared / "data/satellite/modis_mod09ga", "--options", option("hdf.variables", REFLECTANCES)]
    (entry,) = learns(*words).contract.inputs
    assert entry.bands == REFLECTANCES
    assert entry.spacing[0] == pytest.approx(463.3, abs=0.5)
    assert 0 < min(entry.normalisation.mean) < max(entry.normalisation.mean) < 1.2, "reflectance, scaled by 1 / 10000"


def _batches(path: Path) -> tuple[Pretrain, Manifest, Iterator[Any]]:
    manifest, _ = collect(SATELLITE, [str(path)], quiet=True)
    splits = ["held_out" if "date_4" in file else "train" for file in manifest.column("file")]
    manifest = manifest.with_column("split", splits)
    config = resolve(override(tiny(), {"data.streams.0.batch_size": 8}), manifest)
    loader = TileLoader(manifest, streams(config), seed=7)
    return config, manifest, iter([*loader.batches(0, 6), *loader.held_out("scene", 4)])


def test_the_same_windows_give_the_same_batches_from_geotiff_and_zarr(sentinel: tuple[Path, Path]) -> None:
    (one, _, first), (other, _, second) = (_batches(path) for path in sentinel)
    assert one.recipe == other.recipe
    missing = 0
    for a, b in zip(first, second, strict=True):
        for name in ("valid", "spacing", "offset", "scale", "key", "index", "row", "origin"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert a.image.dtype == b.image.dtype == torch.float32
        assert torch.equal(a.image, b.image)
        missing += int((~a.valid).sum())
    assert missing > 1000
