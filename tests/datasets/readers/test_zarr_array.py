"""Zarr: the reader's exam on prepared and foreign stores, OME-Zarr, geo attributes, and every store that must be refused."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, TransposeCodec, ZstdCodec

from core.errors import BandError, ConfigError, DamagedError, DataError, GeometryError, UnsafeError, UnsupportedError
from core.geometry import Affine, Georeference, Spacing
from datasets.image import LazyImage
from datasets.readers import _store, configured, find_reader, open_image, options_of
from datasets.readers._zarr_source import missing_chunks
from datasets.readers.zarr_array import ZarrArray
from datasets.testing.reader_contract import Case, ReaderContract

AFFINE = np.array([[0.0, 0, 1.5, 7], [0, 0.8, 0, -3], [2.5, 0, 0, 11], [0, 0, 0, 1]])  # (z, y, x, 1) to (x, y, z)


def voxels(shape: tuple[int, ...], dtype: str = "i2") -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) * 7 % 251).astype(dtype)


def volume(path: Path, data: np.ndarray, *, valid: np.ndarray | None = None, **options: Any) -> Path:
    """Write a prepared store of a volume (C, Z, Y, X)."""
    arrays = _store.create(path, data.shape, data.dtype, valid=0 if valid is None else len(valid), **options)
    arrays["image"][...] = data
    if valid is not None:
        arrays["valid"][...] = valid
    bands = [f"b{number}" for number in range(len(data))]
    attributes = {"bands": bands, "spacing": [2.5, 0.8, 1.5], "unit": "mm", "affine": AFFINE[:3], "georeference": None}
    empty = {"nodata": None, "scaling": None, "units": None, "statistics": {"mean": [1.5]}, "source": {"digest": "ab"}}
    _store.finish(path, {"version": 1, **attributes, **empty})
    return path


def scene(path: Path, data: np.ndarray) -> Path:
    """Write a prepared store of a scene (C, Y, X)."""
    _store.create(path, data.shape, data.dtype)
    _store.writable(path)[...] = data
    where = {"crs": "EPSG:32615", "transform": [30.0, 0.0, 5e5, 0.0, -30.0, 4e6]}
    attributes = {"bands": ["red", "nir"], "spacing": [30, 30], "unit": "m", "affine": None, "georeference": where}
    values = {"nodata": [float("nan"), -9999], "scaling": [[0.1, 1], [1, 0]], "units": ["K", None]}
    _store.finish(path, {"version": 1, **attributes, **values})
    return path


def plain(path: Path, data: np.ndarray, **arguments: Any) -> Path:
    array = zarr.create_array(path, shape=data.shape, dtype=data.dtype, **arguments)
    array[...] = data
    return path


class TestPrepared(ReaderContract):
    def reader(self) -> ZarrArray:
        return ZarrArray()

    def cases(self, folder: Path) -> list[Case]:
        spacing = Spacing((2.5, 0.8, 1.5), "mm")
        cases = []
        for number, (shape, dtype, chunk) in enumerate(
            [((1, 9, 8, 7), "i2", (1, 4, 4, 4)), ((3, 9, 8, 7), "f4", (2, 9, 3, 7)), ((1, 41, 8, 7), "u1", None)]
        ):
            data = voxels(shape, dtype)
            path = volume(folder / f"v{number}.zarr", data, chunk=chunk)
            bands = tuple(f"b{band}" for band in range(shape[0]))
            cases.append(Case(path=path, image=data, bands=bands, spacing=spacing, affine=AFFINE, checked=True))
        data = voxels((2, 140, 30), "u2")
        path = scene(folder / "s.zarr", data)
        cases.append(
            Case(path=path, image=data, bands=("red", "nir"), spacing=Spacing((30.0, 30.0), "m"), checked=True)
        )
        return cases

    def large(self, folder: Path) -> Path:
        return volume(folder / "large.zarr", np.zeros((1, 110, 200, 200), "i2"))


class TestForeign(ReaderContract):
    """Plain arrays without checksums: v3, v2 and F order, whatever the codec."""

    def reader(self) -> ZarrArray:
        return ZarrArray(axes="zyx")

    def cases(self, folder: Path) -> list[Case]:
        data = voxels((9, 8, 7), "i4")
        arguments: list[dict[str, Any]] = [
            {"chunks": (4, 8, 3), "dimension_names": ["z", "y", "x"]},
            {"chunks": (4, 8, 3), "serializer": BytesCodec(endian="big"), "filters": [TransposeCodec(order=(2, 0, 1))]},
            {"chunks": (3, 3, 3), "zarr_format": 2, "order": "F"},
            {"chunks": (3, 3, 3), "zarr_format": 2, "filters": [], "compressors": zarr_bz2()},
        ]
        return [
            Case(
                path=plain(folder / f"a{number}", data, **more),
                image=data[None],
                bands=("band_1",),
                spacing=Spacing.pixels(3),
            )
            for number, more in enumerate(arguments)
        ]

    def large(self, folder: Path) -> Path:
        return plain(folder / "large", np.zeros((110, 200, 200), "i2"), chunks=(40, 40, 40))


def zarr_bz2() -> Any:
    from numcodecs import BZ2

    return BZ2()


def codes(image: LazyImage) -> set[str]:
    """What was flagged, but for the checksums that no foreign store here has."""
    return {flag.code for flag in image.flags} - {"unchecked"}


def facts(image: LazyImage) -> dict[str, Any]:
    names = ("shape", "dtype", "bands", "spacing", "affine", "georeference", "nodata", "scaling", "units", "chunks")
    return {name: getattr(image, name) for name in names}


def test_facts_of_a_scene_survive(tmp_path: Path) -> None:
    image = open_image(scene(tmp_path / "s.zarr", voxels((2, 140, 130), "i2")))
    assert image.georeference == Georeference("EPSG:32615", (30.0, 0.0, 5e5, 0.0, -30.0, 4e6))
    assert image.nodata is not None and np.isnan(image.nodata[0]) and image.nodata[1] == -9999
    assert (image.scaling, image.units) == (((0.1, 1.0), (1.0, 0.0)), ("K", None))
    assert (image.chunks, image.flags) == ((128, 128), ())


def test_attributes_of_an_image_are_read_back(tmp_path: Path) -> None:
    first = open_image(volume(tmp_path / "a.zarr", voxels((2, 9, 8, 7))))
    _store.create(tmp_path / "b.zarr", first.shape, first.dtype)
    _store.writable(tmp_path / "b.zarr")[...] = first.read()
    made_by = {"halfseen": "0.1"}
    written = _store.attributes_of(first, statistics={"low": float("-inf")}, source={"file": "a"}, made_by=made_by)
    _store.finish(tmp_path / "b.zarr", written)
    again = open_image(tmp_path / "b.zarr")
    assert facts(again) == facts(first)
    kept = _store.read_attributes(tmp_path / "b.zarr")
    assert kept is not None
    assert (kept["made_by"], kept["source"], kept["statistics"]) == (made_by, {"file": "a"}, {"low": "-Infinity"})


@pytest.mark.parametrize("bands", [1, 3])
def test_the_mask_says_what_was_measured(tmp_path: Path, bands: int) -> None:
    data = voxels((3, 9, 8, 7))
    valid = voxels((bands, 9, 8, 7)) % 3 > 0
    image = open_image(volume(tmp_path / "v.zarr", data, valid=valid, chunk=(1, 4, 4, 4)))
    window = (slice(1, 7), slice(2, 8), slice(0, 7))
    got, measured = image.read_valid(window, ["b2", "b0"])
    assert np.array_equal(got, data[[2, 0]][(slice(None), *window)])
    expected = valid[[2, 0]] if bands == 3 else np.repeat(valid, 2, axis=0)
    assert np.array_equal(measured, expected[(slice(None), *window)])


def test_a_subset_of_bands_reads_only_their_chunks(tmp_path: Path) -> None:
    path = volume(tmp_path / "v.zarr", voxels((3, 9, 8, 7)), chunk=(1, 9, 8, 7))
    image = open_image(path)
    shard = path / "image" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[2] ^= 1  # in the chunk of the first band
    shard.write_bytes(data)
    assert np.array_equal(image.read(bands=["b2", "b1"]), voxels((3, 9, 8, 7))[[2, 1]])
    with pytest.raises(DamagedError, match="checksum of a chunk"):
        image.read(bands=["b0"])


def test_each_of_200_flipped_bits_in_metadata_changes_nothing_or_is_refused(tmp_path: Path) -> None:
    data = voxels((1, 9, 8, 7))
    path = volume(tmp_path / "v.zarr", data, chunk=(1, 4, 4, 4), valid=data > 100)
    before = facts(open_image(path))
    rng = np.random.Generator(np.random.Philox(key=5))
    refused = 0
    for number in range(200):
        file = path / ("zarr.json", "image/zarr.json", "valid/zarr.json")[number % 3]
        whole = file.read_bytes()
        flipped = bytearray(whole)
        place = int(rng.integers(0, len(whole) * 8))
        flipped[place // 8] ^= 1 << (place % 8)
        broken = tmp_path / f"broken{number}.zarr"
        shutil.copytree(path, broken)
        (broken / file.relative_to(path)).write_bytes(flipped)
        error = ""
        try:
            image = open_image(broken)
            same = facts(image) == before and np.array_equal(image.read_valid()[0], data)
            assert same and np.array_equal(image.read_valid()[1], data > 100), f"bit {place} of {file}"
        except DataError as caught:
            error = str(caught)
        refused += broken.name in error
        assert not error or broken.name in error
    assert refused > 190


def test_a_store_changed_in_place_is_noticed_although_opening_is_remembered(tmp_path: Path) -> None:
    path = volume(tmp_path / "v.zarr", voxels((1, 9, 8, 7)))
    assert open_image(path) is open_image(path)
    metadata = path / "zarr.json"
    metadata.write_text(metadata.read_text().replace("2.5", "2.25"))
    with pytest.raises(DamagedError, match="seal"):
        open_image(path)


def test_a_missing_or_half_written_part_of_a_prepared_store_is_damage(tmp_path: Path) -> None:
    for number, remove in enumerate(("image/c/0/0/0/0", "image/zarr.json", "image", "valid", "valid/c")):
        path = volume(tmp_path / f"v{number}.zarr", voxels((1, 9, 8, 7)), valid=voxels((1, 9, 8, 7)) > 9)
        gone = path / remove
        if gone.is_dir():
            shutil.rmtree(gone)
        else:
            gone.unlink()
        with pytest.raises((DamagedError, FileNotFoundError), match=path.name):
            open_image(path).read_valid()
    half = tmp_path / "half.zarr"
    _store.create(half, (1, 9, 8, 7), np.dtype("i2"))
    with pytest.raises(DamagedError, match="half-written"):
        open_image(half)
    with pytest.raises(UnsupportedError, match="open the store itself"):
        open_image(volume(tmp_path / "whole.zarr", voxels((1, 9, 8, 7))) / "image")


def test_a_later_version_is_named(tmp_path: Path) -> None:
    path = volume(tmp_path / "v.zarr", voxels((1, 9, 8, 7)))
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["halfseen"]["version"] = 2
    (path / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(UnsupportedError, match="version 1, got version 2"):
        open_image(path)


def test_facts_that_contradict_the_arrays_are_refused(tmp_path: Path) -> None:
    for number, (name, value) in enumerate(
        {"bands": ["a", "b"], "spacing": [1, 1], "nodata": [0, 0], "unit": 3, "affine": [[1]], "units": None}.items()
    ):
        path = volume(tmp_path / f"v{number}.zarr", voxels((1, 9, 8, 7)))
        attributes = _store.read_attributes(path)
        assert attributes is not None
        _store.finish(path, attributes | {name: value})
        if name == "units":
            assert open_image(path).units is None
            continue
        with pytest.raises((DamagedError, GeometryError), match=path.name):
            open_image(path)


def test_layouts_are_those_chosen_by_measurement() -> None:
    int16, uint16 = np.dtype("i2"), np.dtype("u2")
    assert _store.inner_chunk((1, 160, 160, 160), int16) == (1, 40, 40, 40)
    assert _store.inner_chunk((1, 26, 166, 164), int16) == (1, 26, 34, 33)
    assert _store.inner_chunk((14, 2048, 2000), uint16) == (14, 128, 128)
    assert _store.inner_chunk((14, 100, 2000), uint16) == (14, 100, 128)
    assert _store.inner_chunk((200, 500, 500), uint16) == (100, 128, 128)
    assert _store.shard_shape((1, 160, 160, 160), (1, 40, 40, 40), int16) == (1, 160, 160, 160)
    for shape in ((14, 20_000, 30_000), (1, 900, 512, 512)):
        shard = _store.shard_shape(shape, _store.inner_chunk(shape, uint16), uint16)
        assert 8 << 20 < np.prod(shard) * 2 <= 64 << 20


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_real_integer_volumes_take_at_most_1_05_of_their_nii_gz(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "volume3d"
    files = [*(folder / "totalseg_examples").glob("*.nii.gz"), *(folder / "msd_spleen_crop").glob("*.nii.gz")]
    eight_bit = ("001", "033", "034", "065")  # of 50 KB each: there the metadata counts
    files += [folder / "msd_hippocampus" / "images" / f"hippocampus_{number}.nii.gz" for number in eight_bit]
    assert len(files) == 10
    for number, file in enumerate(files):
        image = open_image(file)
        data = image.read()
        if data.dtype.kind == "f":
            assert np.array_equal(data, np.rint(data))
            data = data.astype(np.int16)
        path = volume(tmp_path / f"v{number}.zarr", data)
        assert np.array_equal(open_image(path).read(), data)
        assert size_of(path) <= 1.05 * file.stat().st_size, file.name


def test_axes_are_named_or_told_and_never_guessed(tmp_path: Path) -> None:
    data = voxels((3, 8, 7))
    path = plain(tmp_path / "a.zarr", data, chunks=(2, 4, 4))
    with pytest.raises(
        UnsupportedError,
        match=r"3 axes .* does not name them.*--options zarr_array\.axes=\.\.\. \(zyx for a volume, cyx",
    ):
        open_image(path)
    assert np.array_equal(open_image(path, ZarrArray(axes="zyx")).read(), data[None])
    assert np.array_equal(open_image(path, ZarrArray(axes="cyx")).read(), data)
    assert np.array_equal(open_image(path, ZarrArray(axes="yxc")).read(), data.transpose(2, 0, 1))
    picked = open_image(path, ZarrArray(axes="yxc", bands=tuple("abcdefg")))
    assert np.array_equal(
        picked.read((slice(1, 3), slice(2, 5)), ["f", "b"]), data[1:3, 2:5, [5, 1]].transpose(2, 0, 1)
    )
    with pytest.raises(UnsupportedError, match="axes 'cyy'"):
        open_image(path, ZarrArray(axes="cyy"))
    assert np.array_equal(open_image(plain(tmp_path / "b.zarr", data[0])).read(), data[:1])
    named = plain(tmp_path / "c.zarr", data, dimension_names=["lat", "Band", "lon"])
    assert np.array_equal(open_image(named).read(), data.transpose(1, 0, 2))
    odd = plain(tmp_path / "d.zarr", data, dimension_names=["u", "y", "x"])
    with pytest.raises(UnsupportedError, match="names them u, y, x"):
        open_image(odd)
    old = plain(tmp_path / "e.zarr", data, zarr_format=2, attributes={"_ARRAY_DIMENSIONS": ["y", "x", "band"]})
    assert np.array_equal(open_image(old).read(), data.transpose(2, 0, 1))


def test_one_moment_of_a_series_is_chosen(tmp_path: Path) -> None:
    data = voxels((4, 6, 5))
    path = plain(tmp_path / "a.zarr", data, chunks=(1, 3, 3), dimension_names=["time", "y", "x"])
    with pytest.raises(UnsupportedError, match="its time axis has 4"):
        open_image(path)
    assert np.array_equal(open_image(path, ZarrArray(time=2)).read(), data[2:3])


def test_foreign_stores_without_checksums_are_flagged(tmp_path: Path) -> None:
    for name, packers, unchecked in (("a", [], True), ("b", [Crc32cCodec()], False), ("c", [ZstdCodec()], True)):
        image = open_image(plain(tmp_path / name, voxels((8, 7)), compressors=packers))
        assert ("unchecked" in {flag.code for flag in image.flags}) == unchecked


def test_booleans_read_as_0_and_1(tmp_path: Path) -> None:
    image = open_image(plain(tmp_path / "a.zarr", voxels((8, 7)) > 90))
    assert image.dtype == np.uint8
    assert np.array_equal(image.read()[0], (voxels((8, 7)) > 90).astype(np.uint8))


@pytest.mark.parametrize("dtype", ["c8", "U4", "S4"])
@pytest.mark.filterwarnings("ignore:The data type")
def test_complex_numbers_and_text_are_refused(tmp_path: Path, dtype: str) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(8, 7), dtype=dtype)
    with pytest.raises(UnsupportedError, match="data type"):
        open_image(tmp_path / "a.zarr")


def test_groups_give_their_one_array_or_ask_which(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("ct", data=voxels((8, 7)))
    assert np.array_equal(open_image(tmp_path / "g.zarr").read()[0], voxels((8, 7)))
    group.create_array("pet", data=voxels((8, 7)) + 1)
    with pytest.raises(UnsupportedError, match=r"several: ct, pet; choose with --options zarr_array\.array=ct"):
        open_image(tmp_path / "g.zarr")
    reader = configured(["zarr_array.array=pet"])
    assert np.array_equal(open_image(tmp_path / "g.zarr", *reader).read()[0], voxels((8, 7)) + 1)
    with pytest.raises(ConfigError, match="did you mean 'pet'"):
        open_image(tmp_path / "g.zarr", ZarrArray(array="pett"))
    with pytest.raises((UnsafeError, DataError), match="outside|leads"):
        open_image(tmp_path / "g.zarr", ZarrArray(array="../../x"))
    zarr.create_group(tmp_path / "empty.zarr").create_group("inner")
    with pytest.raises(UnsupportedError, match="it holds the groups inner"):
        open_image(tmp_path / "empty.zarr")


def ome(path: Path, version: str, *, unit: str | None = "micrometer", depth: int = 4, **omero: Any) -> Path:
    """Write an OME-Zarr image of two levels, axes t c z y x."""
    new = version == "0.5"
    group = zarr.create_group(path, zarr_format=3 if new else 2)
    axes = [{"name": name, "type": "space", **({"unit": unit} if unit else {})} for name in "zyx"]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *axes]
    levels = []
    for level in range(2):
        data = voxels((1, 2, depth, 16 >> level, 12 >> level), "u2") + level
        more: dict[str, Any] = {} if new else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        group.create_array(str(level), data=data, chunks=(1, 1, 2, 8, 8), **more)
        scale = [1, 1, 2, 0.5 * 2**level, 0.25 * 2**level]
        levels.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    image = {"multiscales": [{"version": version, "axes": axes, "datasets": levels}], **omero}
    group.attrs.update({"ome": {"version": version, **image}} if new else image)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_has_levels_spacing_in_mm_and_channel_names(tmp_path: Path, version: str) -> None:
    channels = {"omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}}
    path = ome(tmp_path / "i.zarr", version, **channels)
    image = open_image(path)
    assert (image.shape, image.bands, image.level) == ((2, 4, 16, 12), ("DAPI", "GFP"), 0)
    assert image.levels == ((4, 16, 12), (4, 8, 6))
    assert image.spacing.unit == "mm"
    np.testing.assert_allclose(image.spacing.values, (0.002, 0.0005, 0.00025), rtol=1e-12)
    assert codes(image) == set()
    assert np.array_equal(image.read(bands=["GFP"])[0], voxels((1, 2, 4, 16, 12), "u2")[0, 1])
    coarse = open_image(path, ZarrArray(level=1))
    assert np.array_equal(coarse.read(), voxels((1, 2, 4, 8, 6), "u2")[0] + 1)
    np.testing.assert_allclose(coarse.spacing.values, (0.002, 0.001, 0.0005), rtol=1e-12)
    with pytest.raises(UnsupportedError, match="levels 0 to 1"):
        open_image(path, ZarrArray(level=2))
    extra = {"omero": {"channels": [{"label": "a"}, {"label": "b"}, {"label": ""}]}}
    assert open_image(ome(tmp_path / "odd.zarr", version, **extra)).bands == ("band_1", "band_2")
    flat = open_image(ome(tmp_path / "flat.zarr", version, depth=1, unit=None))
    assert (flat.shape, flat.spacing, flat.bands) == ((2, 16, 12), Spacing.pixels(2), ("band_1", "band_2"))
    assert codes(flat) == {"no_spacing", "unnamed_bands"}


def test_damaged_or_foreign_multiscales_are_refused(tmp_path: Path) -> None:
    bad: list[Any] = [
        [],
        [{"axes": ["t", "c", "z", "y", "x"], "datasets": [{"path": "0"}]}],
        [{"axes": [{"name": "y"}, {"name": "y"}], "datasets": [{"path": "0"}]}],
        [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}],
        [{"axes": [{"name": n} for n in "tczyx"], "datasets": [{"path": "../../other.zarr/0"}]}],
    ]
    ome(tmp_path / "other.zarr", "0.5")
    for number, multiscales in enumerate(bad):
        path = ome(tmp_path / f"i{number}.zarr", "0.5")
        zarr.open_group(path, mode="r+").attrs["ome"] = {"multiscales": multiscales}
        with pytest.raises((DamagedError, UnsafeError), match=path.name):
            open_image(path)
    plate = zarr.create_group(tmp_path / "plate.zarr", attributes={"ome": {"plate": {}}})
    assert plate.attrs
    with pytest.raises(UnsupportedError, match="plate"):
        open_image(tmp_path / "plate.zarr")


UTM = Georeference("EPSG:32615", (30.0, 0.0, 500000.0, 0.0, -20.0, 4000000.0))


def geo_attributes() -> list[dict[str, Any]]:
    return [
        {"proj:code": "EPSG:32615", "spatial:transform": [30, 0, 500000, 0, -20, 4000000]},
        {"proj:epsg": 32615, "proj:transform": [30, 0, 500000, 0, -20, 4000000, 0, 0, 1]},
        {"proj:code": "EPSG:32615", "spatial:bbox": [500000, 3999840, 500210, 4000000]},
        {
            "proj:code": "EPSG:32615",
            "spatial:registration": "node",
            "spatial:transform": [30, 0, 500015, 0, -20, 3999990],
        },
    ]


def test_geo_attributes_place_a_scene(tmp_path: Path) -> None:
    for number, attributes in enumerate(geo_attributes()):
        image = open_image(plain(tmp_path / f"a{number}.zarr", voxels((8, 7)), attributes=attributes))
        assert image.georeference == UTM, attributes
        assert image.spacing == Spacing((20.0, 30.0), "m")
        assert codes(image) == {"unnamed_bands"}
    assert codes(open_image(plain(tmp_path / "none.zarr", voxels((8, 7))))) == {"no_crs", "unnamed_bands"}


@pytest.mark.parametrize("how", ["GeoTransform", "coordinates"])
def test_cf_grid_mappings_place_a_scene(tmp_path: Path, how: str) -> None:
    from rasterio.crs import CRS

    group = zarr.create_group(tmp_path / "g.zarr")
    names = ["y", "x"]
    group.create_array("sst", data=voxels((8, 7)), dimension_names=names, attributes={"grid_mapping": "crs"})
    attributes = {"crs_wkt": CRS.from_epsg(32615).to_wkt()}
    if how == "GeoTransform":
        attributes["GeoTransform"] = "500000 30 0 4000000 0 -20"
    else:
        group.create_array("x", data=500015.0 + 30 * np.arange(7), dimension_names=["x"])
        group.create_array("y", data=3999990.0 - 20 * np.arange(8), dimension_names=["y"])
    group.create_array("crs", data=np.array(0), attributes=attributes)
    image = open_image(tmp_path / "g.zarr")
    assert image.georeference == UTM
    assert np.array_equal(image.read()[0], voxels((8, 7)))


def test_a_crs_without_a_place_or_that_is_none_is_refused(tmp_path: Path) -> None:
    bad = [
        {"proj:code": "EPSG:32615"},
        {"proj:code": "EPSG:99999", "spatial:transform": [30, 0, 5e5, 0, -20, 4e6]},
        {"proj:code": "http://example.org/crs", "spatial:transform": [30, 0, 5e5, 0, -20, 4e6]},
        {"proj:code": "EPSG:32615", "spatial:transform": [30, 0]},
        {"proj:code": "EPSG:32615", "spatial:transform": [0, 0, 0, 0, 0, 0]},
    ]
    for number, attributes in enumerate(bad):
        path = plain(tmp_path / f"a{number}.zarr", voxels((8, 7)), attributes=attributes)
        with pytest.raises(GeometryError, match=path.name):
            open_image(path)


def test_cf_values_are_facts_and_raw_values_stay_raw(tmp_path: Path) -> None:
    data = voxels((8, 7))
    cf = {"scale_factor": 0.01, "add_offset": 273.15, "_FillValue": 7, "units": "K"}
    image = open_image(plain(tmp_path / "a.zarr", data, attributes=cf))
    assert (image.scaling, image.nodata, image.units) == (((0.01, 273.15),), (7.0,), ("K",))
    got, valid = image.read_valid()
    assert np.array_equal(got[0], data) and got.dtype == data.dtype
    assert np.array_equal(valid[0], data != 7)
    packed = plain(tmp_path / "b.zarr", data.astype("f4"), attributes={"_FillValue": "AAAAAAAA+H8="})
    image = open_image(packed)
    assert image.nodata is not None and np.isnan(image.nodata[0])
    for bad in ({"scale_factor": 0}, {"scale_factor": "much"}, {"add_offset": float("inf")}, {"_FillValue": "?"}):
        path = plain(tmp_path / f"bad{len(str(bad))}{next(iter(bad))}.zarr", data, attributes=bad)
        with pytest.raises(DamagedError, match=path.name):
            open_image(path)


def test_missing_chunks_of_a_foreign_store_are_fill_and_flagged(tmp_path: Path) -> None:
    data = voxels((8, 8)) + 1
    data[:4] = 9
    path = plain(tmp_path / "a.zarr", data, chunks=(4, 4), fill_value=9)
    image = open_image(path)
    assert np.array_equal(image.read()[0], data)
    assert "missing_chunks" in codes(image)
    assert missing_chunks(image) == (2, 4)
    full = open_image(plain(tmp_path / "b.zarr", data, chunks=(4, 4)))
    assert missing_chunks(full) == (0, 4) and "missing_chunks" not in codes(full)
    huge = zarr.create_array(tmp_path / "c.zarr", shape=(1 << 30, 1 << 30), chunks=(64, 64), dtype="u1")
    huge[:64, :64] = 1
    image = open_image(tmp_path / "c.zarr")
    assert "missing_chunks" not in codes(image), "not counted when a large store is opened"
    assert missing_chunks(image) == ((1 << 48) - 1, 1 << 48)


def test_links_zips_and_urls_do_not_lead_out(tmp_path: Path) -> None:
    outside = plain(tmp_path / "outside.zarr", voxels((8, 7)))
    group = zarr.create_group(tmp_path / "g.zarr")
    assert group.attrs is not None
    (tmp_path / "g.zarr" / "a").symlink_to(outside)
    with pytest.raises(UnsafeError, match=r"g\.zarr"):
        open_image(tmp_path / "g.zarr")
    stolen = tmp_path / "stolen.zarr"
    stolen.mkdir()
    (stolen / "zarr.json").symlink_to(outside / "zarr.json")
    with pytest.raises(UnsafeError, match=r"stolen\.zarr"):
        open_image(stolen)
    whole = tmp_path / "link.zarr"
    whole.symlink_to(outside)
    assert np.array_equal(open_image(whole).read()[0], voxels((8, 7))), "a link to a whole store is the user's choice"
    with zipfile.ZipFile(tmp_path / "z.zarr.zip", "w") as file:
        file.write(outside / "zarr.json", "zarr.json")
    with pytest.raises(UnsupportedError, match="unzip it"):
        open_image(tmp_path / "z.zarr.zip")
    for url in ("s3://bucket/a.zarr", "https://example.org/a.zarr"):
        with pytest.raises(UnsafeError, match="nothing is fetched"):
            open_image(url)


def test_consolidated_metadata_is_not_trusted(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("a", data=voxels((8, 7)))
    with pytest.warns(UserWarning, match="Consolidated"):
        zarr.consolidate_metadata(tmp_path / "g.zarr")
    metadata = tmp_path / "g.zarr" / "zarr.json"
    content = json.loads(metadata.read_text())
    content["consolidated_metadata"]["metadata"]["a"]["shape"] = [4, 4]
    metadata.write_text(json.dumps(content))
    assert np.array_equal(open_image(tmp_path / "g.zarr").read()[0], voxels((8, 7)))


def test_options_are_kept_for_the_manifest(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.zarr", voxels((3, 8, 7)))
    reader = find_reader(path, *configured(["zarr_array.axes=cyx", "zarr_array.bands=[a, b, c]"]))
    assert open_image(path, reader).bands == ("a", "b", "c")
    assert open_image(path, *configured(options_of(reader))).bands == ("a", "b", "c")
    with pytest.raises(BandError, match=r"a\.zarr.*3 different"):
        open_image(path, ZarrArray(axes="cyx", bands=("a",)))


def test_affine_class_round_trip(tmp_path: Path) -> None:
    image = open_image(volume(tmp_path / "v.zarr", voxels((1, 9, 8, 7))))
    assert image.affine == Affine.of(AFFINE, source="test")


@pytest.mark.parametrize(("key", "value"), [("dimension_separator", 5), ("dimension_separator", "/../"), ("shape", 5)])
def test_nonsense_in_metadata_of_version_2_is_damage(key: str, value: object, tmp_path: Path) -> None:
    path = plain(tmp_path / "a.zarr", voxels((4, 4)), zarr_format=2, attributes={"_ARRAY_DIMENSIONS": ["y", "x"]})
    document = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(document | {key: value}))
    with pytest.raises(DamagedError, match=r"a\.zarr: expected .* to describe a Zarr v2 array, but it is damaged"):
        open_image(path)


@pytest.mark.parametrize("after", ["text", {"name": "x", "configuration": ["codecs"]}])
def test_nonsense_after_an_unknown_codec_is_no_crash(after: object, tmp_path: Path) -> None:
    path = plain(tmp_path / "a.zarr", voxels((4, 4)))
    document = json.loads((path / "zarr.json").read_text())
    document["codecs"] = [{"name": "halfseen.unknown"}, after]
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(UnsupportedError, match=r"a\.zarr: expected codecs that are known here, got halfseen\.unknown"):
        open_image(path)


@pytest.mark.parametrize("step", [0, -1.0, math.inf])
def test_a_scale_that_no_voxel_can_have_names_the_store(step: float, tmp_path: Path) -> None:
    path = ome(tmp_path / "a.zarr", "0.5")
    document = json.loads((path / "zarr.json").read_text())
    levels = document["attributes"]["ome"]["multiscales"][0]["datasets"]
    levels[0]["coordinateTransformations"][0]["scale"][-1] = step
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(DamagedError, match=r"a\.zarr: expected OME-Zarr multiscales .*scale"):
        open_image(path)
