"""Pictures show what they say: slices are central, only hidden pixels change, one row shares one grey scale."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from core import viz
from core.contract import Contract, Input, Normalisation
from core.errors import ShapeError
from core.pictures import Pictures

RGB = ("red", "green", "blue")
PATCH = {2: (8, 8), 3: (4, 4, 4)}
SIZE = {2: (32, 48), 3: (12, 16, 20)}


def pictures(ndim: int, *, batch: int = 2, seed: int = 0, name: str | None = None) -> Pictures:
    """Make a batch with a missing corner, random hidden patches, and a prediction that is off where it counts."""
    rng = torch.Generator().manual_seed(seed)
    size, patch, bands = SIZE[ndim], PATCH[ndim], RGB if ndim == 2 else ("intensity",)
    original = torch.randn(batch, len(bands), *size, generator=rng)
    valid = torch.ones_like(original, dtype=torch.bool)
    valid[(..., *(slice(p) for p in patch))] = False
    tokens = tuple(s // p for s, p in zip(size, patch, strict=True))
    mask = torch.rand(batch, *tokens, generator=rng) < 0.5
    mask[(slice(None), *(0,) * ndim)] = False
    hidden = torch.stack([viz.to_voxels(m, patch) for m in mask])[:, None]
    return Pictures(
        original=original * valid,
        valid=valid,
        seen=torch.where(hidden | ~valid, 0.0, original),
        mask=mask,
        reconstructions={
            "image": torch.where(hidden, original + 0.5, original),
            "gradient": torch.rand(batch, len(bands), *size, generator=rng),
        },
        targets={"gradient": torch.rand(batch, len(bands), *size, generator=rng)},
        bands=bands,
        input=name or {2: "photograph", 3: "volume"}[ndim],
        patch=patch,
    )


def entry(ndim: int, **changes: object) -> Input:
    options: dict[str, object] = {
        "name": {2: "photograph", 3: "volume"}[ndim],
        "bands": RGB if ndim == 2 else ("intensity",),
        "patch": PATCH[ndim],
        "size": SIZE[ndim],
        "spacing": (1.0,) * ndim,
        "unit": "px",
        "normalisation": Normalisation(method="per_image"),
    }
    return Input(**(options | changes))  # type: ignore[arg-type]


def columns(row: viz.Row) -> dict[str, np.ndarray]:
    return {column.name: column.pixels for column in row.columns}


def pixels_of(mask: Tensor, patch: tuple[int, ...], shape: tuple[int, int]) -> np.ndarray:
    """Spread a 2D token mask to the pixels of a magnified picture."""
    full = viz.to_voxels(mask, patch).numpy()
    zoom = shape[0] // full.shape[0]
    return np.kron(full, np.ones((zoom, zoom), bool))


def test_central_slices_are_the_middle_planes() -> None:
    volume = torch.arange(2 * 5 * 6 * 7).reshape(2, 5, 6, 7)
    across_z, across_y, across_x = viz.central_slices(volume)
    assert torch.equal(across_z, volume[:, 2])
    assert torch.equal(across_y, volume[:, :, 3])
    assert torch.equal(across_x, volume[:, :, :, 3])


def test_central_slices_refuse_a_photograph() -> None:
    with pytest.raises(ShapeError, match=r"\(C Z Y X\)"):
        viz.central_slices(torch.zeros(3, 8, 8))


@pytest.mark.parametrize("change", [viz.mask_overlay, viz.hatch])
def test_marking_hidden_pixels_changes_all_of_them_and_no_other(change: object) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8)
    hidden = np.random.default_rng(1).random((24, 40)) < 0.5
    marked = change(rgb, hidden)  # type: ignore[operator]
    assert np.array_equal(marked[~hidden], rgb[~hidden])
    assert (marked[hidden] != rgb[hidden]).any(-1).mean() > 0.99


def test_hidden_missing_and_black_look_different() -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    everywhere = np.ones((32, 32), bool)
    hidden = viz.clear_nodata(viz.hatch(black, everywhere), everywhere)
    missing = viz.clear_nodata(black, ~everywhere)
    assert hidden[..., 3].min() == 255
    assert hidden[..., :3].min() > 90
    assert missing[..., 3].max() < 200


def test_the_overlay_column_differs_from_the_original_at_hidden_patches_only() -> None:
    shown = pictures(2)
    for index, row in enumerate(viz.panels(shown, limit=2)):
        drawn = columns(row)
        hidden = pixels_of(shown.mask[index], shown.patch, drawn["mask"].shape[:2])
        same = (drawn["mask"] == drawn["original"]).all(-1)
        assert same[~hidden].all()
        assert not same[hidden].any()


def test_the_seen_column_shows_nothing_of_a_hidden_patch() -> None:
    shown = pictures(2)
    leaky = Pictures(**{**vars(shown), "seen": shown.original})  # a recipe that forgot to blank what it hid
    [row, *_] = viz.panels(leaky, limit=1)
    hidden = pixels_of(shown.mask[0], shown.patch, columns(row)["seen"].shape[:2])
    grey = columns(row)["seen"][hidden]
    assert len(np.unique(grey, axis=0)) == 2


def test_a_rim_that_the_encoder_was_not_given_is_drawn_as_missing() -> None:
    shown = pictures(2)
    shown.mask[0] = False
    seen = shown.original.clone()
    seen[0, :, 8:16, 8:16] = 0.0
    [row, *_] = viz.panels(Pictures(**{**vars(shown), "seen": seen}), limit=1)
    zoom = columns(row)["seen"].shape[0] // 32
    opaque = columns(row)["seen"][::zoom, ::zoom, 3] == 255
    assert not opaque[8:16, 8:16].any()
    assert opaque[16:, :].all()


def test_one_window_serves_a_whole_row() -> None:
    shown = pictures(2)
    plain = Pictures(**{**vars(shown), "reconstructions": {"image": shown.original}, "targets": {}})
    [row, *_] = viz.panels(plain, limit=1)
    assert np.array_equal(columns(row)["image"], columns(row)["original"])
    bright = Pictures(**{**vars(plain), "reconstructions": {"image": shown.original + 100}})
    [row, *_] = viz.panels(bright, limit=1)
    assert (columns(row)["image"][..., :3][columns(row)["image"][..., 3] == 255] == 255).all()


def test_missing_voxels_decide_no_window() -> None:
    image, valid = torch.rand(1, 40, 40), torch.ones(1, 40, 40, dtype=torch.bool)
    valid[:, :20] = False
    spoilt = image.clone()
    spoilt[:, :10], spoilt[:, 10:20] = 1e6, math.nan
    assert viz.stretch(spoilt, valid) == viz.stretch(image, valid)


def test_a_fixed_normalisation_keeps_the_colour_of_the_photograph() -> None:
    raw = torch.rand(3, 64, 64) * torch.tensor([1.0, 0.5, 0.1]).reshape(3, 1, 1)
    rule = Normalisation(method="fixed", mean=(0.5, 0.4, 0.1), std=(0.2, 0.3, 0.05))
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (rule.mean, rule.std))
    values, valid = (raw - mean) / std, torch.ones(3, 64, 64, dtype=torch.bool)
    drawn = viz.to_rgb(values, RGB, viz.stretch(values, valid, normalisation=rule, percent=(0, 100)))
    expected = (raw - raw.min()) / (raw.max() - raw.min()) * 255
    assert np.abs(drawn.astype(float) - expected.permute(1, 2, 0).numpy()).max() <= 0.51


def test_bands_are_drawn_by_name() -> None:
    image = torch.rand(4, 8, 8)
    window = viz.Window((0.0,) * 4, (1.0,) * 4)
    drawn = viz.to_rgb(image, ("blue", "nir", "green", "red"), window)
    assert np.array_equal(drawn, np.rint(image[[3, 2, 0]].permute(1, 2, 0).numpy() * 255).astype(np.uint8))


def test_values_that_are_not_finite_do_not_stop_a_picture() -> None:
    image = torch.tensor([[[math.nan, math.inf, -math.inf, 0.5]]])
    drawn = viz.to_rgb(image, ("intensity",), viz.Window((0.0,), (1.0,)))
    assert drawn[0, :, 0].tolist() == [0, 255, 0, 128]


def test_to_rgb_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="2 names"):
        viz.to_rgb(torch.zeros(1, 4, 4), ("a", "b"), viz.Window((0.0,), (1.0,)))


def test_a_volume_becomes_three_planes_whose_edges_agree() -> None:
    shown = pictures(3)
    [row, *_] = viz.panels(shown, limit=1)
    sheet = columns(row)["original"]
    zoom = math.ceil(192 / 20)
    z, y, x, gap = 12 * zoom, 16 * zoom, 20 * zoom, 6
    assert sheet.shape == (y + gap + z, x + gap + z, 4)
    volume = shown.original[0]
    grey = viz.stretch(volume, shown.valid[0])
    expected = viz.to_rgb(volume[:, 6], ("intensity",), grey)
    assert np.array_equal(sheet[:y:zoom, :x:zoom, :3], expected)
    expected = viz.to_rgb(volume[:, :, :, 10], ("intensity",), grey)
    assert np.array_equal(sheet[:y:zoom, x + gap :: zoom, :3], np.swapaxes(expected, 0, 1))
    assert (sheet[y + gap :, x + gap :, 3] == 0).all()


def test_slices_of_thick_voxels_keep_their_proportions() -> None:
    [row, *_] = viz.panels(pictures(3), limit=1, reads=entry(3, spacing=(3.0, 1.0, 1.0), unit="mm"))
    height, width, _ = columns(row)["original"].shape
    zoom = math.ceil(192 / 36)
    assert (height, width) == ((16 + 36) * zoom + 6, (20 + 36) * zoom + 6)


def test_large_images_are_made_smaller() -> None:
    big = torch.rand(1, 3, 1504, 800)
    valid = torch.ones_like(big, dtype=torch.bool)
    shown = Pictures(
        original=big, valid=valid, seen=big, mask=torch.zeros(1, 94, 50, dtype=torch.bool), reconstructions={},
        bands=RGB, input="photograph", patch=(16, 16),
    )  # fmt: skip
    [row] = viz.panels(shown, limit=4)
    assert columns(row)["original"].shape == (640, 340, 4)


def test_token_pca_gives_like_tokens_like_colours_whatever_their_order() -> None:
    kinds = torch.randn(4, 16, generator=torch.Generator().manual_seed(3))
    order = torch.arange(24) % 4
    drawn = viz.token_pca(kinds[order], (4, 6)).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) == 4
    for kind in range(4):
        assert len(np.unique(drawn[order == kind], axis=0)) == 1
    turned = viz.token_pca(kinds[order.flip(0)], (4, 6)).reshape(-1, 3)
    assert np.abs(turned[::-1].astype(int) - drawn).max() <= 1


def test_token_pca_of_equal_tokens_is_one_grey() -> None:
    assert len(np.unique(viz.token_pca(torch.full((6, 8), 3.7), (2, 3)))) == 1


def test_token_pca_refuses_the_wrong_grid() -> None:
    with pytest.raises(ShapeError, match="N = 6"):
        viz.token_pca(torch.zeros(5, 8), (2, 3))


def test_save_panels_writes_its_pictures_and_forgets_older_ones(tmp_path: Path) -> None:
    many = [pictures(2, seed=0), pictures(2, seed=1), pictures(3)]
    viz.save_panels(tmp_path, many, limit=3, contract=Contract(inputs=(entry(2), entry(3))), step=7)
    index = json.loads((tmp_path / "panels.json").read_text(encoding="utf-8"))
    assert index["step"] == 7
    assert [row["input"] for row in index["rows"]] == ["photograph"] * 3 + ["volume"] * 2
    names = [c["name"] for c in index["rows"][0]["columns"]]
    assert names == ["original", "seen", "mask", "image", "gradient-target", "gradient"]
    for row in index["rows"]:
        for column in row["columns"]:
            with Image.open(tmp_path / column["file"]) as picture:
                assert picture.size == (column["width"], column["height"])
    viz.save_panels(tmp_path, many[:1], limit=1)
    assert len(list(tmp_path.iterdir())) == 7  # six pictures and their index


def test_an_input_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    viz.save_panels(tmp_path / "figures", [pictures(2, name="../../fundus éà")], limit=1)
    assert {p.name for p in tmp_path.iterdir()} == {"figures"}
    assert all(p.is_file() for p in (tmp_path / "figures").iterdir())


def test_a_saved_png_is_the_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)
    with Image.open(viz.save_png(tmp_path / "nested" / "a.png", pixels)) as picture:
        assert np.array_equal(np.asarray(picture), pixels)
    assert [p.name for p in (tmp_path / "nested").iterdir()] == ["a.png"]


S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
MODIS = ("B01", "B02", "B03", "B06", "B07", "B21", "B26", "B27", "B28", "B29", "B30", "B31", "B32", "B33")


@pytest.mark.parametrize(
    ("bands", "sensor", "names", "kind"),
    [
        (RGB[::-1], "", RGB, "true colour"),
        (S2, "sentinel2_l1c", ("B04", "B03", "B02"), "true colour"),
        (S2, "", ("B04", "B03", "B02"), "true colour"),
        (MODIS, "modis_toa14", ("B01", "B02", "B03"), "near infrared as green"),
        (("VV", "VH"), "sentinel1", ("VV", "VH", "VV"), "two polarisations"),
        (("B2", "B3", "B4"), "landsat8", ("B4", "B3", "B2"), "true colour"),
        (("B2", "B3", "B4"), "", ("B2", "B3", "B4"), "false colour"),  # of Landsat 7 as well, whose B4 is infrared
        (("one", "two", "three", "four"), "", ("one", "two", "three"), "false colour"),
        (("intensity",), "", ("intensity",), "one band"),
    ],
)
def test_colours_are_chosen_by_name_in_whatever_order_bands_come(
    bands: tuple[str, ...], sensor: str, names: tuple[str, ...], kind: str
) -> None:
    for turned in (bands, bands[::-1]) if kind not in ("false colour", "two polarisations") else (bands,):
        found = viz.colours(turned, sensor)
        assert (tuple(turned[band] for band in found.bands), found.kind) == (names, kind)


def scene(bands: tuple[str, ...], **changes: object) -> tuple[Pictures, Input]:
    rng = torch.Generator().manual_seed(0)
    count, tokens = len(bands), (4, 6)
    level = torch.linspace(0.1, 0.9, count)[:, None, None]
    image = level + 0.05 * torch.randn(2, count, 32, 48, generator=rng)
    shown = Pictures(
        original=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        seen=image,
        mask=torch.zeros(2, *tokens, dtype=torch.bool),
        reconstructions={"image": image},
        bands=bands,
        input="scene",
        patch=(8, 8),
    )
    values = Normalisation(method="fixed", mean=(0.0,) * count, std=(1.0,) * count, full_scale=False)
    options = {"name": "scene", "bands": bands, "normalisation": values, "spacing": (10.0, 10.0), "unit": "m"}
    return shown, entry(2, **(options | changes))


def test_the_first_image_is_shown_again_in_each_region_of_the_spectrum(tmp_path: Path) -> None:
    shown, reads = scene(S2, sensor="sentinel2_l1c")
    rows = viz.panels(shown, limit=2, reads=reads)
    alone = "each band is stretched alone"
    assert [(row.colours, row.again) for row in rows] == [
        (f"true colour: {alone}", False),
        (f"near infrared: {alone}", True),
        (f"short-wave infrared: {alone}", True),
        (f"true colour: {alone}", False),
    ]
    assert rows[1].shown == ("B09", "B08", "B05")
    index = viz.save_panels(tmp_path, [shown, shown], limit=3, contract=Contract(inputs=(reads,)))
    saved = json.loads(index.read_text())["rows"]
    assert [row["colours"] for row in saved].count(f"true colour: {alone}") == 3, "limit counts images, not rows"
    files = [column["file"] for row in saved for column in row["columns"]]
    assert len(files) == len(set(files)) == len(list(tmp_path.glob("panel_*.png")))


def test_band_groups_have_rows_of_their_own() -> None:
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    shown, reads = scene(bands, groups=(bands[:4], bands[4:]), sensor="sentinel2_l1c")
    rows = viz.panels(shown, limit=1, reads=reads)
    assert [row.colours.partition(":")[0] for row in rows] == [
        "true colour",
        "group B02, B03, B04, B08",
        "group B11, B12",
    ]
    assert [":" in row.colours for row in rows] == [True, True, False], "one band is grey"
    assert [row.shown for row in rows] == [("B04", "B03", "B02"), ("B08", "B04", "B02"), ("B12",)]


def test_a_row_hides_and_predicts_what_its_own_group_does() -> None:
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    plain, reads = scene(bands, groups=(bands[:4], bands[4:]), sensor="sentinel2_l1c")
    hidden = torch.zeros(2, 2, 4, 6, dtype=torch.bool)
    hidden[:, 0, 1, 2] = hidden[:, 1, 3, 4] = hidden[:, 1, 0, 0] = True
    guess = plain.original.clone()
    guess[:, :4, 8:16, 16:24] = guess[:, 4:, 24:, 32:40] = guess[:, 4:, :8, :8] = 0.0
    shown = replace(
        plain,
        seen=torch.zeros_like(plain.original),  # of all groups together; no row of one group may use it
        mask=hidden.any(1),
        reconstructions={"image": guess},
        groups=reads.groups,
        shown_by_group=~hidden,
        hidden_by_group=hidden,
    )
    for row, group in zip(viz.panels(shown, limit=1, reads=reads), (0, 0, 1), strict=True):
        drawn = columns(row)
        covered = pixels_of(hidden[0, group], (8, 8), drawn["original"].shape[:2])
        for name in ("seen", "mask", "image"):
            changed = (drawn[name] != drawn["original"]).any(-1)
            assert not changed[~covered].any(), (row.colours, name)
            assert changed[covered].mean() > 0.9, (row.colours, name)


def test_groups_of_a_volume_have_rows_of_their_own() -> None:
    one, other = pictures(3, seed=0), pictures(3, seed=1)
    hidden = torch.stack([one.mask, other.mask], 1)
    both = replace(
        one,
        bands=("t1", "t2"),
        mask=hidden.any(1),
        groups=(("t1",), ("t2",)),
        shown_by_group=~hidden,
        hidden_by_group=hidden,
        reconstructions={"image": torch.cat([p.reconstructions["image"] for p in (one, other)], 1)},
        targets={},
        **{name: torch.cat([getattr(one, name), getattr(other, name)], 1) for name in ("original", "valid", "seen")},
    )
    rows = viz.panels(both, limit=2, reads=entry(3, bands=("t1", "t2"), groups=(("t1",), ("t2",))))
    assert [(row.shown, row.again) for row in rows] == [(("t1",), False), (("t2",), True), (("t1",), False)]
    for row, alone in ((rows[0], one), (rows[1], other)):
        [same] = viz.panels(alone, limit=1, reads=entry(3))
        for name in ("original", "mask", "image"):
            assert np.array_equal(columns(row)[name], columns(same)[name])


def test_a_map_that_a_group_does_not_have_is_left_out_of_its_row() -> None:
    bands = ("B02", "B03", "B04", "B08", "B11", "B12")
    plain, reads = scene(bands, groups=(bands[:4], bands[4:]), sensor="sentinel2_l1c")
    maps = plain.original.index_fill(1, torch.tensor([4, 5]), 0.0)
    none = torch.zeros(2, 2, 4, 6, dtype=torch.bool)
    shown = replace(
        plain,
        reconstructions={"indices": maps},
        targets={"indices": maps},
        groups=reads.groups,
        shown_by_group=~none,
        hidden_by_group=none,
    )
    rows = viz.panels(shown, limit=1, reads=reads)
    assert [list(columns(row)) for row in rows] == [
        ["original", "seen", "mask", "indices-target", "indices"],
        ["original", "seen", "mask", "indices-target", "indices"],
        ["original", "seen", "mask"],
    ]


def test_a_camera_keeps_its_hue_and_a_satellite_does_not_show_the_blue_of_the_air() -> None:
    shown, reads = scene(S2, sensor="sentinel2_l1c")
    [row, *_] = viz.panels(shown, limit=1, reads=reads)
    drawn = columns(row)["original"].astype(float)[..., :3].mean((0, 1))
    assert np.ptp(drawn) < 12, "B04 is brighter than B03, and that than B02; that is not seen"
    photograph, reads = scene(RGB)
    reads = replace(reads, normalisation=replace(reads.normalisation, full_scale=True), unit="px")
    [row] = viz.panels(photograph, limit=1, reads=reads)
    drawn = columns(row)["original"].astype(float)[..., :3].mean((0, 1))
    assert drawn[2] > drawn[1] + 20 > drawn[0] + 40, "blue is brighter than green, and that than red"
    assert row.colours == "true colour"


def test_other_bands_do_not_change_true_colour() -> None:
    shown, reads = scene(S2, sensor="sentinel2_l1c")
    [row, *_] = viz.panels(shown, limit=1, reads=reads)
    hot = Pictures(**{**vars(shown), "original": shown.original.index_fill(1, torch.tensor([0, 12]), 300.0)})
    [same, *_] = viz.panels(hot, limit=1, reads=reads)
    assert np.array_equal(columns(same)["original"], columns(row)["original"])


def test_classes_are_laid_over_a_picture_where_there_are_any() -> None:
    picture = np.full((1, 3, 3), 100, np.uint8)
    codes = np.array([[-1, 0, 1]])
    colours = ((0, 200, 0), (255, 0, 10))
    assert viz.classes_over(picture, codes, colours).tolist() == [[[100] * 3, [0, 200, 0], [255, 0, 10]]]
    assert viz.classes_over(picture, codes, colours, strength=0.5)[0, 1].tolist() == [50, 150, 50]


def test_the_ramp_grows_brighter_and_saturates() -> None:
    drawn = viz.ramp(np.array([-1.0, 0.0, 0.5, 1.0, 2.0, math.nan]))
    assert drawn[0].tolist() == drawn[1].tolist() == drawn[5].tolist() == [68, 1, 84]
    assert drawn[3].tolist() == drawn[4].tolist() == [253, 231, 37]
    light = viz.ramp(np.linspace(0, 1, 100)) @ [0.299, 0.587, 0.114]
    assert (np.diff(light) > -0.6).all() and light[-1] > light[0] + 150


def test_a_faded_picture_is_grey_and_light() -> None:
    drawn = viz.faded(np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8))
    assert drawn.tolist() == [[[150] * 3, [239] * 3, [180] * 3]]


def test_a_natural_picture_stretches_each_band_alone() -> None:
    values = torch.stack([torch.linspace(0, 1, 101), torch.linspace(0, 50, 101), torch.linspace(7, 8, 101)])[:, None]
    valid = torch.ones_like(values, dtype=torch.bool)
    drawn = viz.natural(values, valid, ("red", "green", "blue"))[0]
    share = (np.linspace(0, 1, 101) - 0.02) / 0.96
    for band in range(3):
        assert np.abs(drawn[:, band] - np.rint(share.clip(0, 1) * 255)).max() <= 1


@pytest.mark.parametrize(
    ("name", "said"), [("hog", "HOG"), ("scale_0_5", "scale 0.5"), ("within_rank", "within rank"), ("hog_2", "HOG 2")]
)
def test_terms_are_named_in_words(name: str, said: str) -> None:
    assert viz.spoken(name) == said
