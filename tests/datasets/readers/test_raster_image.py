"""Photographs: the reader's exam, and what is particular to PNG, JPEG and TIFF."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from core.bands import RGB
from core.errors import DataError, MissingDataError
from core.geometry import Spacing
from datasets.readers import open_image
from datasets.readers.raster_image import RasterImage
from datasets.testing.reader_contract import Case, ReaderContract


def colours(height: int, width: int, *, dtype: type = np.uint8, bands: int = 3, seed: int = 0) -> np.ndarray:
    """Noise on a ramp, (height, width, bands): every pixel differs from its neighbours."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    top = np.iinfo(dtype).max
    ramp = np.linspace(0, 0.8, height * width * bands).reshape(height, width, bands)
    return ((ramp + 0.2 * rng.random((height, width, bands))) * top).astype(dtype)


def png16(pixels: np.ndarray, filters: list[int], colour: int = 2) -> bytes:
    """Encode 16-bit PNG with the given filter type per line, straight from the specification."""
    height, width, samples = pixels.shape
    raw = pixels.astype(">u2").tobytes()
    line, lanes = width * samples * 2, samples * 2
    stream = b""
    for y in range(height):
        kind = filters[y % len(filters)]
        stream += bytes([kind])
        for i in range(line):
            here = raw[y * line + i]
            left = raw[y * line + i - lanes] if i >= lanes else 0
            up = raw[(y - 1) * line + i] if y else 0
            corner = raw[(y - 1) * line + i - lanes] if y and i >= lanes else 0
            guess = left + up - corner
            near = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
            stream += bytes([(here - (0, left, up, (left + up) // 2, near)[kind]) & 255])
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    data = zlib.compress(stream)
    half = len(data) // 2
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:]) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


class TestRasterImage(ReaderContract):
    def reader(self) -> RasterImage:
        return RasterImage()

    def cases(self, folder: Path) -> list[Case]:
        cases = []

        def add(name: str, pixels: np.ndarray, *, checked: bool = False) -> None:
            bands = RGB if pixels.shape[-1] == 3 else ("gray",)
            image = np.ascontiguousarray(pixels.transpose(2, 0, 1))
            cases.append(Case(path=folder / name, image=image, bands=bands, spacing=Spacing.pixels(2), checked=checked))

        rgb, gray = colours(21, 34), colours(20, 17, bands=1, seed=1)
        Image.fromarray(rgb).save(folder / "colour.png")
        add("colour.png", rgb)
        Image.fromarray(gray[..., 0]).save(folder / "gray.png")
        add("gray.png", gray)
        Image.fromarray(rgb).save(folder / "colour.jpg", quality=95)
        with Image.open(folder / "colour.jpg") as decoded:
            add("colour.jpg", np.asarray(decoded))
        deep_gray = colours(19, 23, dtype=np.uint16, bands=1, seed=2)
        Image.fromarray(deep_gray[..., 0]).save(folder / "deep_gray.png")
        add("deep_gray.png", deep_gray)
        deep = colours(13, 11, dtype=np.uint16, seed=3)
        (folder / "deep.png").write_bytes(png16(deep, [0, 1, 2, 3, 4]))
        add("deep.png", deep, checked=True)
        tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb", compression="zlib")
        add("deep.tif", deep)
        tifffile.imwrite(folder / "big_endian.tif", deep, photometric="rgb", byteorder=">")
        add("big_endian.tif", deep)
        tifffile.imwrite(folder / "planes.tif", rgb.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
        add("planes.tif", rgb)
        Image.fromarray(rgb).save(folder / "lzw.tif", compression="tiff_lzw")
        add("lzw.tif", rgb)
        return cases

    def large(self, folder: Path) -> Path:
        Image.fromarray(np.zeros((2000, 1500, 3), np.uint8)).save(folder / "large.png", compress_level=1)
        return folder / "large.png"


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_opening_never_calls_the_decoder(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(colours(20, 20)).save(tmp_path / f"a.{ending}")

    def never(*_: object) -> None:
        raise AssertionError("decoded while opening")

    monkeypatch.setattr(ImageFile.ImageFile, "load", never)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", never)
    assert open_image(tmp_path / f"a.{ending}").shape == (3, 20, 20)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(ending: str, orientation: int, tmp_path: Path) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 200  # a mark at the upper left, larger than a JPEG block's blur
    upright[8:, 24:] = 90
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{ending}"
    options = {"tiffinfo": {0x0112: orientation}} if ending == "tif" else {"exif": exif}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, **options)
    image = open_image(path)
    assert image.shape == (3, 16, 32)
    assert np.abs(image.read().astype(int) - upright.transpose(2, 0, 1)).max() < 12


def test_sixteen_bit_png_with_every_filter_is_exact(tmp_path: Path) -> None:
    for kind in range(5):
        for bands, colour in ((3, 2), (2, 4), (4, 6)):
            pixels = colours(9, 7, dtype=np.uint16, bands=bands, seed=kind)
            if bands != 3:
                pixels[..., -1] = 65535
            (tmp_path / "a.png").write_bytes(png16(pixels, [kind], colour))
            expected = pixels if bands == 3 else pixels[..., :-1]
            assert np.array_equal(open_image(tmp_path / "a.png").read(), expected.transpose(2, 0, 1))


def test_opaque_alpha_is_dropped_and_transparency_refused(tmp_path: Path) -> None:
    pixels = colours(8, 9, bands=4)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "opaque.png")
    assert np.array_equal(open_image(tmp_path / "opaque.png").read(), pixels[..., :3].transpose(2, 0, 1))
    pixels[3, 3, 3] = 254
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    with pytest.raises(DataError, match=r"clear\.png: expected an opaque photograph"):
        open_image(tmp_path / "clear.png").read()


def test_palette_is_resolved_to_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2, 1])
    image.save(tmp_path / "palette.png")
    opened = open_image(tmp_path / "palette.png")
    assert opened.bands == RGB
    assert opened.read()[:, 1, 0].tolist() == [70, 80, 90]


@pytest.mark.parametrize(
    ("mode", "name", "message"),
    [
        ("CMYK", "a.jpg", "printer's colours"),
        ("CMYK", "a.tif", "SEPARATED"),
        ("1", "a.png", "1-bit"),
    ],
)
def test_kinds_that_need_a_decision_are_refused(mode: str, name: str, message: str, tmp_path: Path) -> None:
    Image.new(mode, (20, 20)).save(tmp_path / name)
    with pytest.raises(DataError, match=message) as caught:
        open_image(tmp_path / name)
    assert name in str(caught.value)


def test_several_pages_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((2, 20, 20), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match=r"pages\.tif: expected one image, got a TIFF of 2 pages"):
        open_image(tmp_path / "pages.tif")


def test_pixel_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    data = bytearray(png16(colours(4, 4, dtype=np.uint16), [0]))
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(DataError, match=r"bomb\.png: expected at most 200 megapixels, the header says 30000 x 30000"):
        open_image(tmp_path / "bomb.png")


def test_pixel_budget_is_an_option(tmp_path: Path) -> None:
    Image.fromarray(colours(20, 20)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png", RasterImage(max_pixels=400)).size == (20, 20)
    with pytest.raises(DataError, match=r"at most 0\.000399 megapixels"):
        open_image(tmp_path / "a.png", RasterImage(max_pixels=399))


def test_empty_foreign_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("this is no photograph")
    with pytest.raises(DataError, match=r"empty\.jpg: expected an image, got an empty file"):
        open_image(tmp_path / "empty.jpg")
    with pytest.raises(
        DataError, match=r"text\.jpg: expected an image .* begins with the bytes 74 68 69 73 20 69 73 20"
    ):
        open_image(tmp_path / "text.jpg")
    with pytest.raises(MissingDataError, match=r"emty\.jpg does not exist; did you mean 'empty\.jpg'"):
        open_image(tmp_path / "emty.jpg")


def test_full_scale_follows_the_type(tmp_path: Path) -> None:
    for dtype, top in ((np.uint8, 255.0), (np.uint16, 65535.0)):
        tifffile.imwrite(tmp_path / "a.tif", colours(5, 5, dtype=dtype), photometric="rgb")
        assert open_image(tmp_path / "a.tif").full_scale == top


def test_real_photograph_reads(shared: Path) -> None:
    image = open_image(shared / "data/retina/idrid_grading/IDRiD_001.jpg")
    assert image.shape == (3, 568, 856)
    assert image.read().mean(axis=(1, 2)) == pytest.approx([121.12, 59.54, 8.07], abs=0.3)
