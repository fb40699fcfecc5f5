"""What bands are called: files without names, and numbers that mean other bands in another sensor's product."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.contract import Input, Normalisation
from core.errors import BandError
from datasets import Manifest
from domains.satellite.collection import SATELLITE, check_values
from domains.satellite.naming import taken_by_name
from domains.verbs.collection import collect
from tests.domains.satellite.writing import geotiff, landsat, noise

MSI = Input(
    name="scene",
    bands=("B02", "B03", "B08"),
    patch=(4, 4),
    size=(8, 8),
    spacing=(10.0, 10.0),
    unit="m",
    sensor="sentinel2_l2a",
    normalisation=Normalisation(method="per_image"),
)


def look(*paths: str | Path, options: tuple[str, ...] = ()) -> Manifest:
    return collect(SATELLITE, [str(path) for path in paths], options=options, quiet=True)[0]


def sentence(*paths: Path) -> str:
    with pytest.raises(BandError) as refused:
        look(*paths)
    return str(refused.value)


def typed(text: str) -> Manifest:
    """Do what a sentence tells to type, as a shell would."""
    found = re.search(r"--data (.*) --options (\'.*?\')", text)
    assert found is not None, text
    paths = [path for word in found[1].split(" ") for path in sorted(Path("/").glob(shlex.split(word)[0][1:]))]
    return look(*paths, options=tuple(shlex.split(found[2])))


def unnamed(folder: Path, *bands: int) -> None:
    for number, count in enumerate(bands):
        geotiff(folder / f"scene_{number}_{count}.tif", noise(count, 64, 64, seed=number).astype(np.uint16))


def test_scenes_beside_their_label_rasters_are_told_apart_in_a_command_that_works(tmp_path: Path) -> None:
    unnamed(tmp_path, 4, 1, 4, 1, 1)
    text = sentence(tmp_path)
    assert text.startswith(
        f"{tmp_path}/scene_0_4.tif: expected bands with names, the file names 0 of its 4, and one option "
    )
    assert text.count("scene_") == 6  # the first, the two to read, the three that are left out
    assert text.endswith("which leaves out scene_1_1.tif, scene_3_1.tif, scene_4_1.tif.")
    manifest = typed(text)
    assert [path.name for path in manifest.paths] == ["scene_0_4.tif", "scene_2_4.tif"]
    assert manifest.column("bands") == [["blue", "green", "red", "nir"]] * 2


def test_names_that_a_file_of_the_same_kind_has_are_proposed(tmp_path: Path) -> None:
    unnamed(tmp_path, 3, 1)
    names = ("band 1", "band 2", "mask")
    geotiff(tmp_path / "named.tif", noise(3, 64, 64).astype(np.uint16), names)
    text = sentence(tmp_path)
    assert "read the 2 of 3 bands, all named in the file's order as named.tif does, with --data" in text
    assert typed(text).column("bands") == [list(names)] * 2


def test_many_files_are_told_as_a_pattern_or_as_a_list(tmp_path: Path) -> None:
    unnamed(tmp_path / "a [1]", *[4] * 6)
    unnamed(tmp_path / "a [1]" / "labels", *[1] * 4)
    text = sentence(tmp_path / "a [1]")
    assert text.count("*") == 1
    assert text.endswith("scene_0_1.tif, scene_1_1.tif, scene_2_1.tif and 1 more.")
    command = text[text.index("--data ") + 7 : text.index(" --options")]
    assert command == f"'{tmp_path}/a [1]/scene_'*_4.tif"
    geotiff(
        tmp_path / "a [1]" / "scene_9_4.tif", noise(1, 64, 64).astype(np.uint16)
    )  # a label that the pattern would read
    assert "--data LIST.csv (a list of these files in its column `file`) --options" in sentence(tmp_path / "a [1]")


@pytest.mark.parametrize(
    ("name", "said", "refused"),
    [
        (
            "LC08_L1TP_190029_20200101_stack.tif",
            ("B2", "B3", "B8"),
            "band B8 is at 590 nm.* reads B08 of .* at 832.8 nm",
        ),
        (
            "LC08_L1TP_190029_20200101_stack.tif",
            ("B2", "B3", "B08"),
            None,
        ),  # B08 is no name of Landsat's: named by a person
        (
            "LE07_L1TP_022049_19991118_stack.tif",
            ("B2", "B3", "B8"),
            "landsat7, whose band B2 is at 560 nm.* at 492.4 nm",
        ),
        ("HLS.L30.T33TWM.2020001T100401.v2.0.tif", ("B02", "B03", "B08"), None),
        (
            "HLS.L30.T33TWM.2020001T100401.v2.0.tif",
            ("B02", "B03", "B08", "B09"),
            "hls_l30, whose band B09 is at 1370 nm",
        ),
        ("HLS.S30.T33TWM.2020001T100401.v2.0.tif", ("B02", "B03", "B08"), None),
        ("S2A_MSIL2A_20200101T100401_N0208_R122_T33TWM.tif", ("B2", "B3", "B8"), None),
        ("MOD09GA.A2008296.h14v17.tif", ("B02", "B03", "B08"), "modis_toa14, whose band B02 is at 858.5 nm"),
    ],
)
def test_numbers_of_another_sensors_product_are_refused_by_wavelength(
    name: str, said: tuple[str, ...], refused: str | None
) -> None:
    path, entry = Path("somewhere") / name, replace(MSI, bands=(*MSI.bands, *said[3:]))
    if refused is None:
        assert taken_by_name(path, said, MSI) == ()  # the product is known: nothing is taken for granted
    else:
        with pytest.raises(BandError, match=f"{re.escape(name)}: by its name or platform a product of .*{refused}"):
            taken_by_name(path, said, entry)
    for own in (("B02", "B03", "B08"), ("red",)):
        assert taken_by_name(path, said, replace(MSI, sensor="", bands=own)) == ()


def test_where_nothing_tells_the_product_what_is_taken_for_what_is_given(tmp_path: Path) -> None:
    path = Path("field.tif")
    assert taken_by_name(path, ("B2", "B03", "B8", "B4", "qa"), MSI) == (("B2", "B02"), ("B8", "B08"))
    assert taken_by_name(path, ("B02", "B03", "B08"), MSI) == ()
    oli = replace(MSI, bands=("B2", "B10"), sensor="landsat8")
    assert taken_by_name(path, ("B2", "B10"), oli) == (("B2", "B2"),)  # landsat7 calls another band so; B10 is its own
    folder = landsat(tmp_path / "scene", noise(2, 64, 64).astype(np.uint16), ("B2", "B3"))
    with pytest.raises(
        BandError, match=r"scene: by its name or platform a product of landsat7, whose band B2 is at 560"
    ):
        taken_by_name(folder, ("B2", "B3"), replace(oli, bands=("B2", "B3")))
    assert taken_by_name(folder, ("B2", "B3"), replace(oli, bands=("B2", "B3"), sensor="landsat7")) == ()


def test_the_platform_that_a_list_names_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = noise(3, 64, 64, low=0.1, high=0.6).astype(np.float32)
    for number in range(3):
        geotiff(tmp_path / f"{number}.tif", pixels, ("B2", "B3", "B8"))
    for platforms, refused in ((("sentinel-2a", "sentinel-2b", "sentinel-2a"), ""), (("", "", "landsat-8"), "2.tif")):
        rows = "\n".join(f"{n}.tif,{platform}" for n, platform in enumerate(platforms))
        (tmp_path / "list.csv").write_text(f"file,platform\n{rows}\n")
        manifest = look(tmp_path / "list.csv")
        if refused:
            with pytest.raises(
                BandError, match=rf"{refused}: by its name or platform a product of landsat8, whose band B8"
            ):
                check_values(manifest, MSI)
        else:
            check_values(manifest, MSI)
            assert capsys.readouterr().err == ""
    check_values(look(tmp_path), MSI)
    assert capsys.readouterr().err == (
        "bands B2, B3, B8 of 0.tif, and of scenes that call them so, are taken for B02, B03, B08 of sentinel2_l2a by these names "
        "alone; if they are of another sensor, name them by the reader's option\n"
    )
