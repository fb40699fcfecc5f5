"""The pages beside maps and features: what is counted is the whole map, what is shown lies where it belongs."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from core import viz
from core.cli import Options
from core.errors import ConfigError, RunFolderError
from core.geometry import Spacing
from core.heads.load import load_model
from core.inference import Windows
from core.report.html import document, shown_by
from core.report.maps import Sheet
from datasets import open_image
from datasets.writers import Facts, write_image
from domains.satellite import embed, looking, overlay, predict
from domains.satellite.looking import Lattice, map_picture, open_map, scene_picture
from domains.satellite.pages import page_of, sheet_of_map
from domains.satellite.products import Legend, legend_of
from domains.satellite.scenes import Reading
from tests.core.test_report import watch
from tests.domains.satellite.models import reads, save_encoder, save_model, write_scene

BANDS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "landcover"
    save_model(folder, reads(BANDS), about={"codes": [1, 2, 7], "finetuned_from": "runs/mine"})
    return folder


def drawn(height: int = 70, width: int = 90, seed: int = 1) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.integers(1, 255, (3, height, width)).astype(np.uint8)


def mapped(model: Path, *data: Path, out: Path, overwrite: bool = False, **options: Any) -> Path:
    own = {name: options.pop(name) for name in ("output", "picture", "report") if name in options}
    reading = Reading(data=tuple(map(str, data)), device="cpu", **options)
    return predict.run(predict.Predict(model=str(model), reading=reading, **own), Options(out=out, overwrite=overwrite))


def text(path: Path) -> str:
    body = re.sub(r"<style>.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


def test_the_page_tells_the_area_of_each_class_and_what_made_the_map(trained: Path, tmp_path: Path) -> None:
    image = drawn()
    image[:, :20, :30] = 0
    scene = write_scene(tmp_path / "a<b>&c.tif", image, BANDS, nodata=0)
    path = mapped(trained, scene, out=tmp_path / "map.tif")
    with rasterio.open(path) as file:
        codes = file.read(1)
    html, said = page_of([path]).read_text(encoding="utf-8"), text(page_of([path]))
    assert page_of([path]).name == "map.report.html"
    known = int((codes != 255).sum())
    assert known == 70 * 90 - 20 * 30
    for code, name in ((1, "forest"), (2, "water"), (7, "town")):
        count = int((codes == code).sum())
        assert f"{name} {count * 0.0009:.3f} {100 * count / known:.1f} %" in said, name
    assert f"Not measured {100 * 600 / 6300:.1f} %" in said
    assert "70 × 90 pixels of 30 m, EPSG:32615. Not measured: 9.5 %." in said
    for fact in ("window 32 × 32 pixels", "overlap 8 × 8 pixels", "bands red, green, blue", "trained from runs/ mine"):
        assert fact in said, fact
    seen = watch(html)
    assert (seen.mistakes, seen.open) == ([], [])
    assert "a<b>&c.tif" in said
    assert "<b>" not in html
    assert len(seen.sources) == 3
    assert all(source.startswith("data:image/webp;base64,") for source in seen.sources)
    assert html.count('loading="lazy"') == 3


def test_probabilities_give_the_same_page_as_classes(trained: Path, tmp_path: Path) -> None:
    image = drawn()
    image[:, :20, :30] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    tables = []
    for kind in ("classes", "probabilities"):
        mapped(trained, scene, out=tmp_path / kind / "map.tif", output=kind)
        tables.append(re.findall(r'<tr style="--c.*?</tr>', (tmp_path / kind / "map.report.html").read_text()))
    assert len(tables[0]) == 3
    assert tables[0] == tables[1]


def test_cells_at_the_rim_count_the_pixels_that_the_scene_has(tmp_path: Path) -> None:
    save_model(tmp_path / "run", reads(BANDS), "classify")
    scene = write_scene(tmp_path / "scene.tif", drawn(), BANDS)
    model, legend = load_model(tmp_path / "run"), legend_of(load_model(tmp_path / "run"))
    path = mapped(tmp_path / "run", scene, out=tmp_path / "map.tif")
    with rasterio.open(path) as file:
        codes = file.read(1)
    image = open_image(scene)
    windows = Windows(size=(70, 90), window=(32, 32), overlap=(0, 0), cell=(32, 32))
    sheet = sheet_of_map(model, legend, image, model.contract.inputs[0], windows, path, seconds=1.0, pictured=True)
    pixels = np.where(np.arange(3) < 2, 32, 6)[:, None] * np.where(np.arange(3) < 2, 32, 26)[None]
    assert codes.shape == (3, 3)
    assert sheet.measured == int(pixels[codes != 255].sum()) < sheet.pixels == 6300
    assert {c.name: c.pixels for c in sheet.covers} == {
        name: int(pixels[codes == code].sum()) for code, name in enumerate(model.classes) if (codes == code).any()
    }
    assert "one value for 32 × 32 pixels" in sheet.said


def test_numbers_have_their_unit_and_spread(tmp_path: Path) -> None:
    save_model(tmp_path / "run", reads(BANDS), "regress", units=("m", ""))
    scene = write_scene(tmp_path / "scene.tif", drawn(96, 96), BANDS)
    path = mapped(tmp_path / "run", scene, out=tmp_path / "map.tif")
    with rasterio.open(path) as file:
        height = file.read(1)
    said = text(page_of([path]))
    assert "height [m] " in said
    mean = float(re.search(r"height \[m\] \S+ \S+ \S+ (\S+)", said)[1])  # type: ignore[index]
    assert mean == pytest.approx(float(height.mean()), rel=1e-3)
    assert len(watch(page_of([path]).read_text()).sources) == 3
    assert "class share" not in said


def test_a_large_scene_is_shown_whole_and_its_map_on_the_same_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_LONGEST", 40)
    monkeypatch.setattr(looking, "_SIDE", 16)
    image = np.arange(70 * 90, dtype=np.uint16).reshape(1, 70, 90)
    entry = reads(("grey",), unit="px", spacing=(1.0, 1.0)).inputs[0]
    scene = open_image(write_scene(tmp_path / "scene.tif", image, ("grey",)))
    lattice = Lattice(size=(70, 90), cell=(1, 1))
    assert (lattice.step, lattice.shape) == (3, (24, 30))
    rgb, known = scene_picture(scene, entry, lattice)
    assert known.all()
    mean = np.stack([[image[0, y : y + 3, x : x + 3].mean() for x in range(0, 90, 3)] for y in range(0, 70, 3)])
    low, high = np.percentile(mean, (2, 98))
    assert np.abs(rgb[..., 0] - np.rint(255 * ((mean - low) / (high - low)).clip(0, 1))).max() <= 1
    seen = np.zeros((70, 90), dtype=int)
    shown = map_picture(open_map(tmp_path / "scene.tif"), lattice, lambda values, _, weights: values * weights)
    assert np.array_equal(shown[0], image[0][np.r_[1:70:3, 69]][:, 1:90:3])
    for window in looking.blocks((70, 90), 16):
        seen[window] += 1
    assert (seen == 1).all()


def test_a_page_of_a_folder_adds_its_scenes_up_and_shows_some(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domains.satellite.predict.PICTURED", 2)
    monkeypatch.setattr("core.report.maps.PICTURED", 2)
    total = np.zeros(256, dtype=int)
    for number in range(3):
        write_scene(tmp_path / f"scenes/s{number}.tif", drawn(40, 50, number), BANDS)
    out = mapped(trained, tmp_path / "scenes", out=tmp_path / "maps")
    for number in range(3):
        with rasterio.open(out / f"s{number}.tif") as file:
            total += np.bincount(file.read(1).ravel(), minlength=256)
    said = text(out / "report.html")
    together = said.partition("All scenes together")[2].partition("Scenes")[0]
    assert f"forest {total[1] * 0.0009:.3f} {100 * total[1] / total.sum():.1f} %" in together
    assert "The first 2 of 3 scenes are shown; all are counted." in said
    assert "s1.tif" in said and "s2.tif" not in said.partition("Command to repeat")[0]
    assert len(watch((out / "report.html").read_text()).sources) == 6


def test_a_page_that_is_there_is_kept_and_may_be_left_out(trained: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", drawn(40, 40), BANDS)
    page = tmp_path / "map.report.html"
    page.write_text("mine")
    with pytest.raises(RunFolderError, match=r"map\.report\.html exists"):
        mapped(trained, scene, out=tmp_path / "map.tif")
    assert not (tmp_path / "map.tif").exists()
    mapped(trained, scene, out=tmp_path / "map.tif", report=False)
    assert page.read_text() == "mine"
    mapped(trained, scene, out=tmp_path / "map.tif", overwrite=True)
    assert "forest" in page.read_text()


def test_without_a_place_areas_are_told_in_pixels_and_that_is_said(tmp_path: Path) -> None:
    save_model(tmp_path / "run", reads(BANDS, unit="px", spacing=(1.0, 1.0)))
    facts = Facts(shape=(3, 40, 40), dtype=np.dtype(np.uint8), bands=BANDS, spacing=Spacing.pixels(2))
    scene = write_image(tmp_path / "plain.zarr", facts, [((slice(0, 40), slice(0, 40)), drawn(40, 40))])
    path = mapped(tmp_path / "run", scene, out=tmp_path / "map.tif")
    said = text(page_of([path]))
    assert "plain.zarr: the size of its pixels is not known, so areas are told in pixels." in said
    assert "1,600 pixels mapped" in said and "km²" not in said


def test_a_map_of_one_class_and_a_scene_with_little_data_are_warned_of(tmp_path: Path) -> None:
    model = save_model(tmp_path / "run", reads(BANDS))
    image = np.full((3, 64, 64), 90, np.uint8)
    image[:, 20:] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    codes = np.full((1, 64, 64), 1, np.uint8)
    codes[:, 20:] = 255
    made = write_scene(tmp_path / "map.tif", codes, ("class",), nodata=255)
    windows = Windows(size=(64, 64), window=(32, 32), overlap=(8, 8), cell=(1, 1))
    sheet: Sheet = sheet_of_map(
        model, legend_of(model), open_image(scene), model.contract.inputs[0], windows, made, seconds=1.0, pictured=False
    )
    assert sheet.pictures == ()
    assert sheet.warnings[0] == "less than half of it is measured."
    assert sheet.warnings[1].startswith("every pixel is 'water', one of 3 classes")


@pytest.mark.parametrize(("product", "name"), [("grid", "f.tif"), ("grid", "f.zarr"), ("colours", "f.tif")])
def test_tokens_are_shown_beside_their_scene(tmp_path: Path, product: Any, name: str) -> None:
    save_encoder(tmp_path / "run", reads(BANDS))
    image = drawn()
    image[:, :, :40] = 0
    scene = write_scene(tmp_path / "scene.tif", image, BANDS, nodata=0)
    reading = Reading(data=(str(scene),), device="cpu")
    given = embed.Embed(encoder=str(tmp_path / "run"), reading=reading, product=product)
    path = embed.run(given, Options(out=tmp_path / name))
    html, said = page_of([path]).read_text(), text(page_of([path]))
    assert "one value for 8 × 8 pixels" in said
    assert "scene, seen by run" in said
    assert "Tokens" in said and len(watch(html).sources) == 2
    assert "Not measured 4" in said
    assert "km² described." in said and "mapped" not in said


def test_features_too_few_for_colours_are_kept_and_not_drawn(tmp_path: Path) -> None:
    save_encoder(tmp_path / "run", reads(BANDS))
    scene = write_scene(tmp_path / "scene.tif", drawn(8, 16), BANDS)
    given = embed.Embed(
        encoder=str(tmp_path / "run"), reading=Reading(data=(str(scene),), device="cpu"), product="grid"
    )
    path = embed.run(given, Options(out=tmp_path / "f.tif"))
    assert open_image(path).size == (1, 2)
    html, said = page_of([path]).read_text(), text(page_of([path]))
    assert "its features are written but not drawn: expected at least 4 tokens" in said
    assert not watch(html).sources


def test_tiles_have_no_page() -> None:
    with pytest.raises(ConfigError, match="option 'report' has no effect on the product 'tiles'"):
        embed.Embed(encoder="run", reading=Reading(), report=False)


def drawn_names(names: tuple[str, ...], width: int = 64) -> np.ndarray[Any, Any]:
    legend = Legend(codes=(1, 2, 7), names=names, colours=((0, 90, 0), (0, 0, 200), (200, 0, 0)), nodata=255)
    return overlay._legend(legend, np.array([0, 0, 0, 1, 1, 2]), width)


def test_names_of_classes_are_drawn_in_letters_that_a_font_has(monkeypatch: pytest.MonkeyPatch) -> None:
    own = overlay._fonts()[0]
    assert overlay._has_letters(own, "Forest, 10-20 m")
    assert not overlay._has_letters(own, "W\u00e4lder")
    monkeypatch.setattr(overlay, "_fonts", lambda: (own,))
    assert overlay._named(7, "Wald") == ("7: Wald", own)
    assert overlay._named(7, "7") == ("class 7", own)
    for name in ("W\u00e4lder", "\u68ee\u6797", "\u0644\u0627"):
        assert overlay._named(7, name) == ("7: its name is in the map's own legend", own)
    unknown, numbered = drawn_names(("a", "b", "\u68ee")), drawn_names(("a", "b", "\u6c34"))
    assert np.array_equal(unknown, numbered), "no boxes are drawn"


def test_a_legend_is_as_wide_as_its_names() -> None:
    short, long = drawn_names(("a", "b", "c"), 300), drawn_names(("a\nb", "b", "a long name of a class " * 4), 300)
    assert short.shape[1] == 300
    assert long.shape[1] > 500
    assert (long[:, -4:, :3] == 255).all(), "no letter is cut"
    assert short.shape[0] == long.shape[0] == 3 * 22 + 11


def test_pages_and_pictures_of_a_scene_are_drawn_by_one_rule(trained: Path, tmp_path: Path) -> None:
    from PIL import Image

    image = drawn(40, 40)
    scene = write_scene(tmp_path / "scene.tif", image, BANDS)
    mapped(trained, scene, out=tmp_path / "map.tif")
    values, valid = torch.from_numpy(image.astype(np.float32)), torch.ones(3, 40, 40, dtype=torch.bool)
    expected = viz.natural(values, valid, BANDS)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "map.overlay.png"))[:40, :40, :3], expected)
    entry = reads(BANDS).inputs[0]
    assert np.array_equal(scene_picture(open_image(scene), entry, Lattice(size=(40, 40), cell=(1, 1)))[0], expected)
    assert viz.NATURAL in text(page_of([tmp_path / "map.tif"]))


def test_each_map_has_one_page_that_is_right(trained: Path, tmp_path: Path) -> None:
    a, b, c = (write_scene(tmp_path / f"scenes/{name}.tif", drawn(40, 40, n), BANDS) for n, name in enumerate("abc"))
    out = tmp_path / "maps"

    def pages() -> dict[str, list[str]]:
        return {path.name: shown_by(path) for path in sorted(out.glob("*.html"))}

    mapped(trained, a, out=out / "a.tif")
    assert pages() == {"a.report.html": ["a.tif"]}
    mapped(trained, b, out=out)
    assert pages() == {"a.report.html": ["a.tif"], "b.report.html": ["b.tif"]}, (
        "a second scene keeps the first one's page"
    )
    before = (out / "a.tif").read_bytes()
    with pytest.raises(RunFolderError, match=r"a\.tif exists: replace it with --overwrite"):
        mapped(trained, a, c, out=out)
    mapped(trained, a, c, out=out, overwrite=True)
    assert pages() == {"b.report.html": ["b.tif"], "report.html": ["a.tif", "c.tif"]}
    for alone in ({}, {"report": False}):
        with pytest.raises(RunFolderError, match=r"report\.html shows c\.tif too.*name all of its scenes"):
            mapped(trained, a, out=out, overwrite=True, **alone)
    assert (out / "a.tif").read_bytes() == before
    mapped(trained, a, c, out=out, overwrite=True, report=False)
    assert pages() == {"b.report.html": ["b.tif"]}, "no page shows what is no longer there"
    mapped(trained, a, b, c, out=out, overwrite=True)
    assert pages() == {"report.html": ["a.tif", "b.tif", "c.tif"]}
    (out / "c.tif").unlink()
    mapped(trained, a, b, out=out, overwrite=True)
    assert pages() == {"report.html": ["a.tif", "b.tif"]}


def test_features_of_a_scene_keep_the_page_of_another(tmp_path: Path) -> None:
    save_encoder(tmp_path / "run", reads(BANDS))
    for name in "ab":
        scene = write_scene(tmp_path / f"{name}.tif", drawn(40, 40), BANDS)
        reading = Reading(data=(str(scene),), device="cpu")
        given = embed.Embed(encoder=str(tmp_path / "run"), reading=reading, product="colours")
        embed.run(given, Options(out=tmp_path / "made"))
    assert sorted(path.name for path in (tmp_path / "made").glob("*.html")) == ["a.report.html", "b.report.html"]


def test_a_page_that_says_nothing_of_its_maps_is_of_none(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    for content in (
        b"",
        b"mine",
        b"\xff",
        b'<meta name="halfseen-shows" content="{">',
        b'<meta name="halfseen-shows" content="3">',
    ):
        page.write_bytes(content)
        assert shown_by(page) == []
    assert shown_by(tmp_path / "none.html") == []
    names = ['a"<b>&amp;.tif', "\udcff.tif"]
    page.write_text(document(title="", kicker="", header="", sections=[], footer="", shows=names), encoding="utf-8")
    assert shown_by(page) == names
