"""The page of maps adds up, stays small, and takes no string for markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.report.maps import PICTURED, Cover, Numbers, Sheet, shown, write_maps
from tests.core.test_report import text, watch

NASTY = "<img src=x onerror=alert(1)>&\"'"


def sheet(**changes: Any) -> Sheet:
    covers = (Cover(name="water", colour=(0, 0, 255), pixels=10), Cover(name="forest", colour=(0, 99, 0), pixels=30))
    given: dict[str, Any] = {
        "name": "s.tif",
        "said": "5 × 10 pixels.",
        "pixels": 50,
        "measured": 40,
        "pixel_km2": 0.5,
        "seconds": 2.0,
        "covers": covers,
    }
    return Sheet(**(given | changes))


def page(path: Path, *sheets: Sheet, **changes: Any) -> str:
    given: dict[str, Any] = {"title": "Maps", "kicker": "maps", "facts": [("Network", [("run", "runs/a")])]}
    given |= {"command": ["python", "-m", "x", "a b"]}
    return write_maps(path / "report.html", sheets, **(given | changes)).read_text(encoding="utf-8")


def test_strings_from_outside_stay_text(tmp_path: Path) -> None:
    numbers = (Numbers(name=NASTY, unit=NASTY, low=0.0, median=1.0, high=2.0, mean=1.0),)
    nasty = sheet(
        name=NASTY,
        said=NASTY,
        covers=(Cover(name=NASTY, colour=(1, 2, 3), pixels=40),),
        numbers=numbers,
        notes=(NASTY,),
        warnings=(NASTY,),
    )
    facts = [(NASTY, [(NASTY, NASTY)])]
    for sheets in ((nasty,), (nasty, sheet())):
        html = page(tmp_path, *sheets, title=NASTY, kicker=NASTY, facts=facts, command=[NASTY], reading=[NASTY])
        seen = watch(html)
        assert "img" not in seen.tags
        assert (seen.mistakes, seen.open) == ([], [])
        assert html.count("onerror") == html.count("&lt;img src=x onerror=alert(1)&gt;") > 10


def test_scenes_of_other_pixels_are_added_by_their_area(tmp_path: Path) -> None:
    said = text(page(tmp_path, sheet(), sheet(name="t.tif", pixel_km2=2.0)))
    together = said.partition("All scenes together")[2]
    assert "2 scenes, 100 km² mapped: 75.0 % forest, 25.0 % water." in said
    assert "forest 75.00 75.0 % water 25.00 25.0 %" in together
    assert "Not measured 20.0 %" in said
    assert "Time 4 s" in said
    mixed = text(page(tmp_path, sheet(), sheet(pixel_km2=None)))
    assert "2 scenes, 80 pixels mapped" in mixed, "where one has no size, none is told"


def test_many_scenes_are_counted_and_some_are_shown(tmp_path: Path) -> None:
    drawn = shown("Scene", np.zeros((8, 8, 3), np.uint8), "s.tif")
    many = [sheet(name=f"s{n}.tif", pictures=(drawn,), warnings=("cloudy.",) * (n < 4)) for n in range(PICTURED + 6)]
    html = page(tmp_path, *many)
    said = text(html)
    assert "The first 24 of 30 scenes are shown; all are counted." in said
    assert len(watch(html).sources) == PICTURED
    assert "s23.tif" in said and "s24.tif" not in said
    assert "30 scenes, 600 km² mapped" in said
    assert "s0.tif, s1.tif, s2.tif and 1 more: cloudy." in said
    assert "are shown" not in text(page(tmp_path, *many[:PICTURED]))


@pytest.mark.parametrize(
    ("pixels", "told"), [(0, "0 %"), (1, "< 0.1 %"), (2_500, "25.0 %"), (9_999, "> 99.9 %"), (10_000, "100 %")]
)
def test_a_little_is_told_from_nothing_and_nearly_all_from_all(tmp_path: Path, pixels: int, told: str) -> None:
    said = text(page(tmp_path, sheet(pixels=10_000, measured=10_000 - pixels, covers=())))
    assert f"Not measured {told} of all pixels" in said


def test_a_scene_of_which_nothing_is_measured_has_a_page(tmp_path: Path) -> None:
    said = text(page(tmp_path, sheet(measured=0, covers=(), seconds=0.0)))
    assert "1 scene, 0 km² mapped." in said


def cover(name: str, pixels: int) -> Cover:
    return Cover(name=name, colour=(1, 2, 3), pixels=pixels)


def test_areas_of_one_table_have_as_many_decimals(tmp_path: Path) -> None:
    covers = (cover("a", 17_090), cover("b", 1_250), cover("c", 2))
    html = page(tmp_path, sheet(covers=covers, pixels=20_000, measured=18_342, pixel_km2=1e-4))
    assert re.findall(r"</th><td>([^%]*?)</td>", html) == ["1.709", "0.125", "&lt; 0.001"]
    small = sheet(covers=covers[1:], pixels=20_000, measured=18_342, pixel_km2=1e-4)
    several = page(tmp_path, sheet(covers=covers, pixels=20_000, measured=18_342, pixel_km2=1e-4), small)
    column = re.findall(r"</th><td>([^%]*?)</td>", several)
    assert column == ["1.709", "0.250", "&lt; 0.001", "1.709", "0.125", "&lt; 0.001", "0.125", "&lt; 0.001"]
    large = page(tmp_path, sheet(covers=covers, pixels=20_000, measured=18_342, pixel_km2=1.0))
    assert re.findall(r"</th><td>([^%]*?)</td>", large) == ["17,090", "1,250", "2"]


def test_classes_that_are_called_by_numbers_are_called_classes(tmp_path: Path) -> None:
    covers = (cover("2", 50), cover("3", 20), cover("8", 15), cover("1", 10), cover("9", 5))
    html = page(tmp_path, sheet(covers=covers, pixels=100, measured=100))
    assert "50 km² mapped: 50.0 % class 2, 20.0 % class 3, 15.0 % class 8, 15.0 % in 2 other classes." in text(html)
    assert re.findall(r'scope="row">([^<]*)<', html) == ["class 2", "class 3", "class 8", "class 1", "class 9"]


def test_columns_have_heads(tmp_path: Path) -> None:
    numbers = (Numbers(name="height", unit="m", low=0.0, median=1.0, high=2.0, mean=1.0),)
    html = page(tmp_path, sheet(), sheet(covers=(), numbers=numbers))
    heads = [re.findall(r'scope="col">([^<]*)<', head) for head in re.findall("<thead>.*?</thead>", html)]
    assert heads == [["class", "km²", "share"]] * 2 + [["number", "1 %", "99 %", "median", "mean"]]


def test_what_is_not_measured_is_in_the_legend_where_it_is_shown(tmp_path: Path) -> None:
    drawn = (shown("Scene", np.zeros((8, 8, 3), np.uint8), "s.tif"),)
    swatch = '<p class="swatches"><span class="nodata">not measured</span></p>'
    assert page(tmp_path, sheet(pictures=drawn), sheet(pictures=drawn)).count(swatch) == 1
    assert swatch not in page(tmp_path, sheet(pictures=drawn, measured=50))
    assert swatch not in page(tmp_path, sheet())
