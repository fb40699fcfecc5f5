"""Scenes of one file per band: the reader's exam, and what is particular to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

from core.errors import DamagedError, DataError, GeometryError, UnsupportedError
from core.geometry import Georeference, Spacing
from datasets.image import LazyImage
from datasets.readers import configured, is_image_folder, open_image
from datasets.readers.band_files import BandFiles
from datasets.testing.reader_contract import Case, ReaderContract

LANDSAT_8 = "LC08_L1TP_022049_20200415_20200822_02_T1"
LANDSAT_7 = "LE07_L1TP_022049_20021016_20170128_01_T1"


def noise(height: int, width: int, dtype: Any = np.uint16, seed: int = 0) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.uniform(1, 250, (height, width)).astype(dtype)


def write(path: Path, pixels: np.ndarray, *, step: float = 30.0, **profile: Any) -> np.ndarray:
    """Write (Y, X) as one band on a UTM grid with its corner at (500000, 4000000)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "crs": "EPSG:32615",
        "transform": rasterio.Affine(step, 0, 5e5, 0, -step, 4e6),
        "driver": "GTiff",
        **profile,
    }
    scales = options.pop("scales", None)
    height, width = pixels.shape
    with rasterio.open(path, "w", height=height, width=width, count=1, dtype=pixels.dtype, **options) as file:
        file.write(pixels, 1)
        if scales is not None:
            file.scales = scales
    return pixels


def codes(image: LazyImage) -> set[str]:
    return {flag.code for flag in image.flags}


class TestBandFiles(ReaderContract):
    def reader(self) -> BandFiles:
        return BandFiles()

    def cases(self, folder: Path) -> list[Case]:
        spacing, place = Spacing((30.0, 30.0), "m"), Georeference("EPSG:32615", (30.0, 0.0, 5e5, 0.0, -30.0, 4e6))
        landsat = folder / "landsat"
        tiles = {"tiled": True, "blockxsize": 16, "blockysize": 32, "compress": "deflate"}
        image = np.stack(
            [write(landsat / f"{LANDSAT_8}_B{n}.TIF", noise(60, 45, seed=n), **tiles) for n in (1, 2, 10, 11)]
        )
        (landsat / f"{LANDSAT_8}_MTL.txt").write_text("GROUP = LANDSAT_METADATA_FILE\n")
        write(landsat / f"{LANDSAT_8}_QA_PIXEL.TIF", noise(60, 45))
        hls = folder / "hls"
        holed = []
        for n, band in enumerate(("B02", "B8A")):
            pixels = noise(33, 31, np.int16, seed=n)
            pixels[n : n + 9, 4:20] = -9999
            path = hls / f"HLS.S30.T15PXT.2020106T163839.v2.0.{band}.tif"
            holed.append(write(path, pixels, nodata=-9999, scales=(0.0001,)))
        return [
            Case(
                path=landsat,
                image=image,
                bands=("B1", "B2", "B10", "B11"),
                spacing=spacing,
                georeference=place,
                valid=np.ones(image.shape, bool),
            ),
            Case(
                path=hls,
                image=np.stack(holed),
                bands=("B02", "B8A"),
                spacing=spacing,
                georeference=place,
                nodata=(-9999.0, -9999.0),
                scaling=((0.0001, 0.0), (0.0001, 0.0)),
                valid=np.stack(holed) != -9999,
            ),
        ]

    def content(self, path: Path) -> Path:
        return next(file for file in sorted(path.iterdir()) if "_B1." in file.name or ".B8A." in file.name)

    def large(self, folder: Path) -> Path:
        for n in range(1, 5):
            tiles = {"tiled": True, "blockxsize": 128, "blockysize": 128}
            write(folder / "large" / f"{LANDSAT_8}_B{n}.TIF", noise(1024, 1024, seed=n), **tiles)
        return folder / "large"


@pytest.mark.parametrize(
    ("scene", "files", "names"),
    [
        (LANDSAT_7, ("B1", "B2", "B3", "B4", "B5", "B6_VCID_1", "B6_VCID_2", "B7"),
         ("blue", "green", "red", "nir", "swir_1", "thermal_low_gain", "thermal_high_gain", "swir_2")),
        (LANDSAT_8, ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B9", "B10", "B11"),
         ("coastal", "blue", "green", "red", "nir", "swir_1", "swir_2", "cirrus", "thermal_1", "thermal_2")),
        ("LC09_L2SP_022049_20220421_20220423_02_T1", ("SR_B2", "SR_B4", "SR_B5", "ST_B10"), ("blue", "red", "nir", "thermal_1")),
        ("LT05_L1TP_022049_19990401_20200908_02_T1", ("B1", "B3", "B6"), ("blue", "red", "thermal")),
        ("T15PXT_20200415T163839", ("B02", "B04", "B08", "B8A", "B11"), ("blue", "red", "nir", "nir_narrow", "swir_1")),
        ("HLS.L30.T15PXT.2020106T163839.v2.0", ("B02", "B04", "B05"), ("blue", "red", "nir")),
        ("HLS.S30.T15PXT.2020106T163839.v2.0", ("B02", "B04", "B05"), ("blue", "red", "red_edge_1")),
    ],
)  # fmt: skip
def test_names_come_from_the_files_or_from_the_sensor(
    scene: str, files: tuple[str, ...], names: tuple[str, ...], tmp_path: Path
) -> None:
    mark = "." if scene.startswith("HLS") else "_"
    pixels = [write(tmp_path / f"{scene}{mark}{band}.tif", noise(9, 9, seed=n)) for n, band in enumerate(files)]
    assert open_image(tmp_path).bands == files
    common = open_image(tmp_path, *configured(["band_files.names=common"]))
    assert common.bands == names
    assert np.array_equal(common.read(), np.stack(pixels))


def test_an_unknown_product_has_no_common_names(tmp_path: Path) -> None:
    for n in (1, 2):
        write(tmp_path / f"PNEO_2022_B{n}.tif", noise(9, 9, seed=n))
    assert open_image(tmp_path).bands == ("B1", "B2")
    with pytest.raises(UnsupportedError, match=r"expected a product of Landsat 4 to 9, .* got PNEO_2022_B1\.tif"):
        open_image(tmp_path, BandFiles(names="common"))


def test_other_resolutions_are_left_out_with_a_flag(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        write(tmp_path / f"{LANDSAT_8}_B{n}.TIF", noise(20, 20, seed=n))
    pan = write(tmp_path / f"{LANDSAT_8}_B8.TIF", noise(40, 40, seed=8), step=15.0)
    image = open_image(tmp_path)
    assert (image.bands, image.spacing) == (("B1", "B2", "B3"), Spacing((30.0, 30.0), "m"))
    assert [flag.text for flag in image.flags if flag.code == "other_resolution"] == [
        "Left out, because of their resolution: B8 (15 m); to read them: --options band_files.resolution_m=15."
    ]
    sharp = open_image(tmp_path, *configured(["band_files.resolution_m=15"]))
    assert sharp.bands == ("B8",)
    assert np.array_equal(sharp.read(), pan[None])
    with pytest.raises(UnsupportedError, match="expected bands of 10 m, got bands of 15, 30 m"):
        open_image(tmp_path, BandFiles(resolution_m=10))


def test_sentinel_folder_tree_is_one_image_in_the_resolution_asked_for(tmp_path: Path) -> None:
    safe = tmp_path / "S2A_MSIL2A_20200415T163839_N0214_R126_T15PXT_20200415T212347.SAFE"
    data = safe / "GRANULE/L2A_T15PXT_A025148_20200415T164647/IMG_DATA"
    jp2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    for step, bands in ((10, ("B02", "B03")), (20, ("B02", "B03", "B05", "B8A")), (60, ("B01",))):
        for n, band in enumerate(bands):
            path = data / f"R{step}m/T15PXT_20200415T163839_{band}_{step}m.jp2"
            write(path, noise(1200 // step, 1200 // step, seed=step + n), step=float(step), **jp2)
    assert is_image_folder(safe)
    with pytest.raises(UnsupportedError, match="JPEG 2000"):
        open_image(safe)
    fine = open_image(safe, BandFiles(jp2=True, resolution_m=10))
    assert (fine.bands, fine.size, fine.spacing.values) == (("B02", "B03"), (120, 120), (10.0, 10.0))
    assert np.array_equal(fine.read(), np.stack([noise(120, 120, seed=10), noise(120, 120, seed=11)]))
    assert open_image(safe, BandFiles(jp2=True)).bands == ("B02", "B03", "B05", "B8A")


def test_bands_on_other_grids_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / f"{LANDSAT_8}_B1.TIF", noise(20, 20))
    other = tmp_path / f"{LANDSAT_8}_B2.TIF"
    for profile, words in [
        ({"crs": "EPSG:32616"}, "in one CRS, but .*B1.TIF and .*B2.TIF have EPSG:32615 and EPSG:32616"),
        ({"transform": rasterio.Affine(30, 0, 500_015, 0, -30, 4e6)}, "on one grid, but .*B1.TIF and .*B2.TIF differ"),
    ]:
        write(other, noise(20, 20), **profile)
        with pytest.raises(GeometryError, match=words):
            open_image(tmp_path)
    write(other, noise(20, 21))
    with pytest.raises(GeometryError, match=r"\(20, 20\) and \(20, 21\) pixels"):
        open_image(tmp_path)
    write(other, noise(20, 20, np.int16))
    with pytest.raises(UnsupportedError, match=r"of one type, but .*B1.TIF and .*B2.TIF hold uint16 and int16"):
        open_image(tmp_path)


def test_a_collection_of_scenes_is_not_one_image(tmp_path: Path) -> None:
    write(tmp_path / f"{LANDSAT_8}_B1.TIF", noise(9, 9))
    assert not is_image_folder(tmp_path)  # one band
    write(tmp_path / f"{LANDSAT_8}_B2.TIF", noise(9, 9))
    assert is_image_folder(tmp_path)
    write(tmp_path / f"{LANDSAT_7}_B1.TIF", noise(9, 9))
    assert not is_image_folder(tmp_path)
    with pytest.raises(DataError, match="got a folder that is none"):
        open_image(tmp_path)


def test_only_the_files_of_the_wanted_bands_are_read(tmp_path: Path) -> None:
    first = write(tmp_path / f"{LANDSAT_8}_B1.TIF", noise(40, 40), compress="deflate")
    second = tmp_path / f"{LANDSAT_8}_B2.TIF"
    write(second, noise(40, 40, seed=1), compress="deflate")
    with tifffile.TiffFile(second) as file:
        begin = file.pages.first.dataoffsets[0]
    data = bytearray(second.read_bytes())
    data[begin + 20 : begin + 200] = bytes(180)
    second.write_bytes(data)
    image = open_image(tmp_path)
    assert np.array_equal(image.read(bands=("B1",)), first[None])
    with pytest.raises(DamagedError, match=r"_B2\.TIF: .* cannot be decoded"):
        image.read()


def test_several_bands_in_one_of_the_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / f"{LANDSAT_8}_B1.TIF", noise(9, 9))
    grid = {"crs": "EPSG:32615", "transform": rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)}
    path = tmp_path / f"{LANDSAT_8}_B2.TIF"
    with rasterio.open(path, "w", driver="GTiff", height=9, width=9, count=2, dtype="uint16", **grid) as file:
        file.write(np.stack([noise(9, 9)] * 2))
    with pytest.raises(UnsupportedError, match=r"_B2\.TIF: expected a file of one band .* got 2"):
        open_image(tmp_path)


def test_options_reach_every_file(tmp_path: Path) -> None:
    pixels = noise(9, 9)
    pixels[2, 3] = 16000
    for n in (1, 2):
        write(tmp_path / f"{LANDSAT_8}_B{n}.TIF", pixels)
    image = open_image(tmp_path, BandFiles(nodata=(16000,)))
    assert image.nodata == (16000.0, 16000.0)
    assert image.read_valid()[1].sum(axis=(1, 2)).tolist() == [80, 80]
    assert codes(open_image(tmp_path)) == set()


MTL = """GROUP = LANDSAT_METADATA_FILE
  GROUP = PRODUCT_CONTENTS
    PROCESSING_LEVEL = "{level}"
  END_GROUP = PRODUCT_CONTENTS
  GROUP = IMAGE_ATTRIBUTES
    DATE_ACQUIRED = 2020-04-15
    SUN_ELEVATION = {sun}
  END_GROUP = IMAGE_ATTRIBUTES
{surface}  GROUP = LEVEL1_RADIOMETRIC_RESCALING
    RADIANCE_MULT_BAND_4 = 1.2E-02
    RADIANCE_ADD_BAND_4 = -60.1
    RADIANCE_MULT_BAND_10 = 3.3420E-04
    REFLECTANCE_MULT_BAND_4 = 2.0000E-05
    REFLECTANCE_MULT_BAND_5 = 2.0000E-05
    REFLECTANCE_ADD_BAND_4 = -0.100000
    REFLECTANCE_ADD_BAND_5 = -0.150000
  END_GROUP = LEVEL1_RADIOMETRIC_RESCALING
END_GROUP = LANDSAT_METADATA_FILE
END
"""
SURFACE = """  GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
    REFLECTANCE_MULT_BAND_4 = 2.75e-05
    REFLECTANCE_ADD_BAND_4 = -0.2
  END_GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
  GROUP = LEVEL2_SURFACE_TEMPERATURE_PARAMETERS
    TEMPERATURE_MULT_BAND_ST_B10 = 0.00341802
    TEMPERATURE_ADD_BAND_ST_B10 = 149.0
  END_GROUP = LEVEL2_SURFACE_TEMPERATURE_PARAMETERS
"""


def landsat(folder: Path, bands: tuple[str, ...], **said: Any) -> Path:
    for n, band in enumerate(bands):
        write(folder / f"{LANDSAT_8}_{band}.TIF", noise(9, 9, seed=n))
    facts = {"level": "L1TP", "sun": 30.0, "surface": "", **said}
    (folder / f"{LANDSAT_8}_MTL.txt").write_text(MTL.format(**facts))
    return folder


def test_landsats_counts_are_reflectance_as_its_metadata_says(tmp_path: Path) -> None:
    image = open_image(landsat(tmp_path, ("B4", "B5", "B10")))
    assert image.scaling == (pytest.approx((4e-5, -0.2)), pytest.approx((4e-5, -0.3)), (1.0, 0.0))  # sin 30 deg = 1 / 2
    assert [flag.text for flag in image.flags if flag.code == "unscaled_bands"] == [
        f"{LANDSAT_8}_MTL.txt states no scale for B10: counts, beside reflectance or kelvin."
    ]
    counts = open_image(tmp_path, *configured(["band_files.scale=none"]))
    assert (counts.scaling, counts.time) == (None, "2020-04-15")
    assert "unscaled_bands" not in codes(counts)
    assert np.array_equal(counts.read(), image.read())  # scales are facts: voxels stay as they are stored


def test_surface_reflectance_and_temperature_have_scales_of_their_own(tmp_path: Path) -> None:
    image = open_image(landsat(tmp_path, ("SR_B4", "ST_B10"), level="L2SP", surface=SURFACE))
    assert image.scaling == ((2.75e-5, -0.2), (0.00341802, 149.0))
    assert "unscaled_bands" not in codes(image)


def test_at_night_counts_stay_counts(tmp_path: Path) -> None:
    assert open_image(landsat(tmp_path, ("B4", "B5"), sun=-12.5)).scaling is None


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "BAND_4 = 2.0000E-05",
            "BAND_4 = 0",
            r"MTL\.txt: expected a positive number for REFLECTANCE_MULT_BAND_4, got '0'",
        ),
        ("BAND_4 = -0.1", "BAND_4 = nan", r"expected a number for REFLECTANCE_ADD_BAND_4, got 'nan00000'"),
        ("SUN_ELEVATION = 30.0", "SUN_ELEVATION = high", r"expected a number for SUN_ELEVATION, got 'high'; mend it"),
    ],
)
def test_a_scale_that_is_none_is_refused(before: str, after: str, message: str, tmp_path: Path) -> None:
    path = landsat(tmp_path, ("B4", "B5")) / f"{LANDSAT_8}_MTL.txt"
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(DataError, match=message):
        open_image(tmp_path)
    assert open_image(tmp_path, BandFiles(scale="none")).scaling is None


def test_a_file_and_the_metadata_must_say_the_same(tmp_path: Path) -> None:
    landsat(tmp_path, ("SR_B4", "ST_B10"), level="L2SP", surface=SURFACE)
    write(tmp_path / f"{LANDSAT_8}_SR_B4.TIF", noise(9, 9), scales=(0.0001,))
    with pytest.raises(
        DataError, match=r"SR_B4\.TIF: its own scale and offset are 0\.0001 and 0, .*MTL\.txt says 2\.75e-05"
    ):
        open_image(tmp_path)
    believed = open_image(tmp_path, BandFiles(scale="none"))
    assert believed.scaling == ((0.0001, 0.0), (1.0, 0.0))


MTD = """<n1:Level-{level}_User_Product>
  <PRODUCT_START_TIME>2022-04-15T16:38:39.024Z</PRODUCT_START_TIME>
  <Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
  <Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX></Special_Values>
  {numbers}
</n1:Level-{level}_User_Product>
"""
NUMBERS = {
    "1C": '<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE><Radiometric_Offset_List>'
    + "".join(f'<RADIO_ADD_OFFSET band_id="{n}">{-1000 - n}</RADIO_ADD_OFFSET>' for n in range(13))
    + "</Radiometric_Offset_List>",
    "2A": '<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE><AOT_QUANTIFICATION_VALUE unit="none">1000.0'
    "</AOT_QUANTIFICATION_VALUE><BOA_ADD_OFFSET_VALUES_LIST>"
    + "".join(f'<BOA_ADD_OFFSET band_id="{n}">{-1000 - n}</BOA_ADD_OFFSET>' for n in range(13))
    + "</BOA_ADD_OFFSET_VALUES_LIST>",
}


@pytest.mark.parametrize("level", ["1C", "2A"])
@pytest.mark.parametrize("offsets", [True, False])
def test_sentinels_counts_are_reflectance_as_its_metadata_says(level: str, offsets: bool, tmp_path: Path) -> None:
    """Since processing baseline 04.00 an offset is added to the counts of a band, by its number among all 13."""
    product = tmp_path / f"S2B_MSIL{level}_20220415T163839_N0400_R126_T15PXT_20220415T195024.SAFE"
    inner = product / "GRANULE" / "L_T15PXT_A026664_20220415T164555" / "IMG_DATA" / "R20m"
    for n, band in enumerate(("B02", "B8A", "B12")):
        write(inner / f"T15PXT_20220415T163839_{band}_20m.tif", noise(9, 9, seed=n), step=20.0)
    numbers = NUMBERS[level] if offsets else NUMBERS[level].replace("ADD_OFFSET ", "NO_OFFSET ")
    (product / f"MTD_MSIL{level}.xml").write_text(MTD.format(level=level, numbers=numbers))
    expected = [(1e-4, -(0.1 + n / 10000) if offsets else 0.0) for n in (1, 8, 12)]
    for folder in (product, inner):
        image = open_image(folder)
        assert image.bands == ("B02", "B8A", "B12")
        assert image.scaling == tuple(pytest.approx(pair) for pair in expected)
        assert image.nodata == (0.0, 0.0, 0.0)
        assert image.time == "2022-04-15T16:38:39.024000Z"
    assert open_image(product, BandFiles(nodata=(7.0,))).nodata == (7.0, 7.0, 7.0)
    assert open_image(product, BandFiles(scale="none")).scaling is None
