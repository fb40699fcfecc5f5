"""Slides: the reader's exam, levels, transparency, what is no slide, and what must never be seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from core.errors import (
    BandError,
    BudgetError,
    ConfigError,
    DamagedError,
    DataError,
    MissingDataError,
    UnsafeError,
    UnsupportedError,
)
from core.geometry import Spacing
from datasets.readers import configured, find_reader, name_of, open_image, options_of
from datasets.readers.slide import Slide
from datasets.testing.reader_contract import Case, ReaderContract

openslide = pytest.importorskip("openslide", reason="slides are an extra: pip install 'halfseen[slide]'")

APERIO = "Aperio Image Library v12.0.15 \r\n{w}x{h} [0,0 {w}x{h}] (64x64) |AppMag = 20|MPP = {mpp}"
RGB = ("red", "green", "blue")


def noise(height: int, width: int, seed: int = 3) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.integers(1, 255, (height, width, 3)).astype(np.uint8)


def smaller(pixels: np.ndarray, factor: int) -> np.ndarray:
    height, width = (n // factor for n in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.asarray(blocks.mean(axis=(1, 3)).astype(np.uint8))


def pyramid(path: Path, *levels: np.ndarray, mpp: float | None = 0.5, tile: int = 64, **options: Any) -> Path:
    """Write levels, finest first, as Aperio does; with `mpp=None` as a plain tiled pyramid that names no maker."""
    height, width = levels[0].shape[:2]
    text = None if mpp is None else APERIO.format(w=width, h=height, mpp=mpp)
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as file:
        for number, level in enumerate(levels):
            file.write(
                level,
                tile=(tile, tile),
                photometric="rgb",
                metadata=None,
                description=text,
                subfiletype=int(number > 0),
                **{"compression": "zlib", **options},
            )
    return path


def planes(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


class TestSlide(ReaderContract):
    def reader(self) -> Slide:
        return Slide()

    def cases(self, folder: Path) -> list[Case]:
        pixels, mm = noise(150, 203), Spacing((0.0005, 0.0005), "mm")
        files = [
            (pyramid(folder / "one.svs", pixels), mm),
            (pyramid(folder / "three.svs", pixels, smaller(pixels, 2), smaller(pixels, 4), compression=None), mm),
            (pyramid(folder / "big.tif", pixels, smaller(pixels, 2), bigtiff=True), mm),
            (pyramid(folder / "plain.tiff", pixels, smaller(pixels, 2), mpp=None), Spacing.pixels(2)),
        ]
        return [Case(path=path, image=planes(pixels), bands=RGB, spacing=spacing) for path, spacing in files]

    def large(self, folder: Path) -> Path:
        return pyramid(folder / "large.svs", np.full((1700, 1700, 3), 200, np.uint8), tile=256)


def windows(size: tuple[int, ...], count: int = 30) -> list[tuple[slice, slice]]:
    rng = np.random.Generator(np.random.Philox(key=9))
    found = []
    for _ in range(count):
        starts = [int(rng.integers(0, n)) for n in size]
        stops = [int(rng.integers(a + 1, n + 1)) for a, n in zip(starts, size, strict=True)]
        found.append((slice(starts[0], stops[0]), slice(starts[1], stops[1])))
    return found


def test_a_level_of_whole_downsampling_is_read_exactly(tmp_path: Path) -> None:
    pixels = noise(640, 512)
    levels = [pixels, smaller(pixels, 2), smaller(pixels, 8)]
    path = pyramid(tmp_path / "a.svs", *levels, mpp=0.25)
    for number, (level, factor) in enumerate(zip(levels, (1, 2, 8), strict=True)):
        image = open_image(path, Slide(level=number))
        assert image.levels == ((640, 512), (320, 256), (80, 64))
        assert (image.level, image.size, image.flags) == (number, level.shape[:2], ())
        assert image.spacing.values == pytest.approx((0.00025 * factor,) * 2)
        for window in windows(image.size):
            assert np.array_equal(image.read(window), planes(level)[(slice(None), *window)])


def test_a_level_of_fractional_downsampling_is_the_same_for_every_window(tmp_path: Path) -> None:
    y, x = np.mgrid[:1307, :1001]
    smooth = np.stack([x % 256 // 2 + 60, y % 256 // 2 + 60, (x + y) // 16 + 40], axis=-1).astype(np.uint8)
    smooth = np.abs(smooth.astype(int) - 128).astype(np.uint8)
    levels = [smooth, smaller(smooth, 4)]
    image = open_image(pyramid(tmp_path / "a.svs", *levels), Slide(level=1))
    assert [flag.code for flag in image.flags] == ["level_resampled"]
    whole = image.read()
    for window in windows(image.size, 60):
        assert np.array_equal(image.read(window), whole[(slice(None), *window)]), window
    # The first block begins at 0 and is exact; the others are moved by less than a pixel.
    assert np.array_equal(whole[:, :64, :64], planes(levels[1])[:, :64, :64])
    assert np.abs(whole.astype(int) - planes(levels[1])).mean() < 1.0


def test_options_are_text_and_checked(tmp_path: Path) -> None:
    pixels = noise(256, 256)
    path = pyramid(tmp_path / "a.svs", pixels, smaller(pixels, 2))
    reader = find_reader(path, *configured(["slide.level=1", "slide.bands=[r, g, b]"]))
    assert options_of(reader) == ["slide.level=1", 'slide.bands=["r", "g", "b"]']
    assert open_image(path, reader).bands == ("r", "g", "b")
    with pytest.raises(ConfigError, match=r"a\.svs: expected a level from 0 to 1, got 2"):
        open_image(path, Slide(level=2))
    with pytest.raises(BandError, match="expected 3 band names"):
        open_image(path, Slide(bands=("r",)))
    image = open_image(path, Slide(max_bytes=100_000))
    assert image.read((slice(0, 100), slice(0, 100))).shape == (3, 100, 100)
    with pytest.raises(BudgetError, match=r"a\.svs: .*256 x 256"):
        image.read()


def test_tiles_that_were_never_scanned_are_not_measured(tmp_path: Path) -> None:
    pixels = noise(256, 320)
    path = pyramid(tmp_path / "a.svs", pixels, compression=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages[0].tags["TileByteCounts"]
        counts = list(tag.value)
        counts[7] = 0  # row 1, column 2 of tiles
        tag.overwrite(counts)
    image = open_image(path)
    read, valid = image.read_valid()
    expected = np.ones((256, 320), bool)
    expected[64:128, 128:192] = False
    assert np.array_equal(valid, np.broadcast_to(expected, (3, 256, 320)))
    assert np.array_equal(read, planes(pixels) * expected)
    window = (slice(60, 70), slice(120, 200))
    assert np.array_equal(image.read_valid(window)[1][0], expected[window])


def test_photographs_and_scenes_stay_with_their_readers(tmp_path: Path) -> None:
    pixels = noise(256, 256)
    tifffile.imwrite(tmp_path / "tiled.tif", pixels, tile=(64, 64), photometric="rgb", metadata=None)
    tifffile.imwrite(tmp_path / "strips.tif", pixels, photometric="rgb")
    scene = pyramid(
        tmp_path / "scene.tif",
        pixels,
        smaller(pixels, 2),
        mpp=None,
        extratags=[(33550, "d", 3, (10.0, 10.0, 0.0)), (33922, "d", 6, (0, 0, 0, 5e5, 4e6, 0))],
    )
    Image.fromarray(pixels).save(tmp_path / "p.png")
    Image.fromarray(pixels).save(tmp_path / "p.jpg")
    assert name_of(find_reader(scene)) == "geotiff"
    for name in ("tiled.tif", "strips.tif", "p.png", "p.jpg"):
        assert name_of(find_reader(tmp_path / name)) == "raster_image", name
    assert name_of(find_reader(pyramid(tmp_path / "renamed.png", pixels))) == "slide"


def test_a_file_that_only_claims_to_be_a_slide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, noise(60, 60), photometric="rgb", metadata=None, description="Aperio Image Library v1")
    with pytest.raises(UnsupportedError, match=r"a\.svs: expected a slide that openslide reads"):
        open_image(path)
    (tmp_path / "b.svs").write_bytes(b"no slide at all" * 100)
    with pytest.raises(UnsupportedError, match=r"b\.svs"):
        open_image(tmp_path / "b.svs")


@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_tile_is_an_error_that_names_the_window_and_the_rest_stays_readable(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    pixels = noise(256, 256)
    path = pyramid(tmp_path / "a.svs", pixels)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        place, length = page.dataoffsets[5], page.databytecounts[5]
    data = bytearray(path.read_bytes())
    data[place : place + length] = rng.bytes(length)
    path.write_bytes(data)
    image = open_image(path)
    with pytest.raises(DamagedError, match=r"a\.svs: rows 64 to 128 and columns 64 to 128 of level 0"):
        image.read((slice(64, 128), slice(64, 128)))
    good = (slice(0, 64), slice(0, 256))
    assert np.array_equal(image.read(good), planes(pixels)[(slice(None), *good)])


@pytest.mark.parametrize("seed", range(5))
def test_a_truncated_slide_is_refused_when_it_is_opened(tmp_path: Path, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    pixels = noise(200, 200)
    path = pyramid(tmp_path / "a.svs", pixels, smaller(pixels, 2))
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(600, len(data)))])
    with pytest.raises(DataError, match=r"a\.svs"):
        open_image(path)


def test_a_list_of_files_that_climbs_out_is_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(20, 20)).save(tmp_path / "a.mrxs", "JPEG")
    assert name_of(find_reader(tmp_path / "a.mrxs")) == "slide"
    with pytest.raises(DamagedError, match=r"a\.mrxs: expected the folder of a MIRAX slide"):
        open_image(tmp_path / "a.mrxs")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/Slidedat.ini").write_text("[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = ../../secret.dat\n")
    with pytest.raises(UnsafeError, match=r"a\.mrxs: its Slidedat.ini names a file outside"):
        open_image(tmp_path / "a.mrxs")
    (tmp_path / "a/Slidedat.ini").write_text(
        "[GENERAL]\nSLIDE_ID = x\n[DATAFILE]\nFILE_COUNT = 1\nFILE_0 = Data0000.dat\n"
    )
    with pytest.raises(DataError, match=r"a\.mrxs"):
        open_image(tmp_path / "a.mrxs")


def test_the_real_slide_reads_as_openslide_reads_it_and_tells_nothing_of_its_label(shared: Path) -> None:
    path = shared / "data/pathology/openslide_cmu1_small/CMU-1-Small-Region.svs"
    image = open_image(path)
    assert (image.shape, image.chunks) == ((3, 2967, 2220), (240, 240))
    assert image.spacing == Spacing((0.000499, 0.000499), "mm")
    window = (slice(1001, 1300), slice(700, 1111))
    with openslide.OpenSlide(path) as slide:
        expected = np.asarray(slide.read_region((700, 1001), 0, (411, 299)))
        secrets = [slide.properties[f"aperio.{name}"] for name in ("User", "Date", "ImageID")]
    read, valid = image.read_valid(window)
    assert np.array_equal(read, planes(expected[..., :3]))
    assert valid.all()
    assert not any(secret in repr(image) for secret in secrets)
    with pytest.raises(DataError, match="inside"):
        image.read((slice(2900, 2968), slice(0, 10)))


def test_without_openslide_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pyramid(tmp_path / "a.svs", noise(100, 100))
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(MissingDataError, match=r"a\.svs: .* needs openslide: pip install 'halfseen\[slide\]'"):
        open_image(path)
