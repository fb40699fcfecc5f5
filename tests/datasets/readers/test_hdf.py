"""HDF5, NetCDF-4 and HDF4: the reader's exam, which arrays are bands, what attributes mean, and no other file's bytes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from datasets.handles import discard
from datasets.readers import configured, open_image
from datasets.readers._eos import grid
from datasets.readers.hdf import Hdf
from datasets.testing.reader_contract import Case, ReaderContract

WHY = "HDF is an extra: pip install 'halfseen[hdf]'"
h5py = pytest.importorskip("h5py", reason=WHY)
hdf4 = pytest.importorskip("pyhdf.SD", reason=WHY)


def noise(*shape: int, dtype: str = "i2", seed: int = 5) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    return rng.integers(0, 200, shape).astype(dtype)


def write5(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, Any] | None = None, **options: Any) -> Path:
    with h5py.File(path, "w", userblock_size=options.pop("userblock", 0)) as file:
        for name, values in arrays.items():
            data = file.create_dataset(name, data=values, **options)
            data.attrs.update(attributes or {})
    return path


def write4(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, Any] | None = None) -> Path:
    kinds = {"i2": "INT16", "u1": "UINT8", "u2": "UINT16", "f4": "FLOAT32", "i4": "INT32"}
    file = hdf4.SD(str(path), hdf4.SDC.WRITE | hdf4.SDC.CREATE)
    for name, values in arrays.items():
        data = file.create(name, getattr(hdf4.SDC, kinds[values.dtype.str[1:]]), values.shape)
        for key, value in (attributes or {}).items():
            data.setfillvalue(value) if key == "_FillValue" else setattr(data, key, value)
        data[:] = values
        data.endaccess()
    file.end()
    return path


class TestHdf(ReaderContract):
    def reader(self) -> Hdf:
        return Hdf()

    def cases(self, folder: Path) -> list[Case]:
        three = noise(3, 40, 50, dtype="f4")
        named = dict(zip(("red", "nir", "swir"), three, strict=True))
        packed = {"chunks": (16, 16), "compression": "gzip", "shuffle": True, "fletcher32": True}
        big = noise(33, 41, dtype=">u2")
        pair = noise(2, 30, 44)
        pixels = Spacing.pixels(2)
        order = tuple(sorted(named))
        sorted_three = np.stack([named[name] for name in order])
        said = {"scale_factor": 0.5, "add_offset": 3.0, "_FillValue": 7, "valid_range": [5, 190]}
        measured = (pair[:1] != 7) & (pair[:1] >= 5) & (pair[:1] <= 190)
        return [
            Case(
                path=write4(folder / "said.hdf", {"t": pair[0]}, said),
                image=pair[:1],
                bands=("t",),
                spacing=pixels,
                nodata=(7.0,),
                scaling=((0.5, -1.5),),
                valid=measured,
            ),
            Case(
                path=write5(folder / "plain.h5", {"a/b/ndvi": pair[0]}), image=pair[:1], bands=("ndvi",), spacing=pixels
            ),
            Case(path=write5(folder / "packed.nc", named, **packed), image=sorted_three, bands=order, spacing=pixels),
            Case(path=write5(folder / "big", {"x": big}), image=big.astype("u2")[None], bands=("x",), spacing=pixels),
            Case(
                path=write5(folder / "block.h5", {"x": pair[1]}, userblock=1024),
                image=pair[1:],
                bands=("x",),
                spacing=pixels,
            ),
            Case(
                path=write4(folder / "four.hdf", {"b": pair[0], "a": pair[1]}),
                image=pair,
                bands=("b", "a"),
                spacing=pixels,
            ),
        ]

    def large(self, folder: Path) -> Path:
        return write5(folder / "large.h5", {"x": np.zeros((1500, 1500), "f4")})


def test_a_folder_of_arrays_is_walked_once_and_in_order(tmp_path: Path) -> None:
    path = write5(tmp_path / "a.h5", {f"group/b{n}": noise(9, 8, seed=n) for n in (3, 1, 2)})
    with h5py.File(path, "a") as file:
        file["again"] = file["group"]  # a second hard link
        file["soft"] = h5py.SoftLink("/group/b1")
        file["text"] = "words"
        file["line"] = np.arange(8)
    image = open_image(path)
    assert image.shape == (3, 9, 8)
    assert sorted(name[-2:] for name in image.bands) == ["b1", "b2", "b3"]


def test_variables_are_picked_by_path_name_or_pattern_in_the_order_given(tmp_path: Path) -> None:
    arrays = {"g/b1": noise(9, 8, seed=1), "g/b2": noise(9, 8, seed=2), "q": noise(4, 4), "f": noise(9, 8, dtype="f4")}
    path = write5(tmp_path / "a.h5", arrays)
    image = open_image(path, *configured(["hdf.variables=[g/b2, b1]"]))
    assert image.bands == ("b2", "b1")
    assert np.array_equal(image.read(), np.stack([arrays["g/b2"], arrays["g/b1"]]))
    assert np.array_equal(image.read(bands=["b1"])[0], arrays["g/b1"])
    assert open_image(path, Hdf(variables=("b?",))).bands == ("b1", "b2")
    assert open_image(path, Hdf(variables=("b?",), bands=("red", "nir"))).bands == ("red", "nir")
    with pytest.raises(
        UnsupportedError, match=r"a\.h5: .*q 4x4 int16, g/b1 9x8 int16.*such as --options 'hdf\.variables=\[b1,b2\]'"
    ):
        open_image(path)
    with pytest.raises(UnsupportedError, match="one shape and type"):
        open_image(path, Hdf(variables=("g/b1", "f")))
    with pytest.raises(ConfigError, match=r"a\.h5: has no array 'g/b7': did you mean 'g/b"):
        open_image(path, Hdf(variables=("g/b7",)))
    with pytest.raises(BandError, match="2 different band names"):
        open_image(path, Hdf(variables=("b?",), bands=("red",)))


def test_axes_say_which_one_is_the_bands(tmp_path: Path) -> None:
    stack = noise(3, 9, 8)
    path = write5(tmp_path / "a.h5", {"x": stack}, chunks=(1, 4, 8))
    with pytest.raises(UnsupportedError, match="x 3x9x8 int16"):
        open_image(path)
    image = open_image(path, Hdf(axes="byx", bands=("r", "g", "b")))
    assert (image.shape, image.chunks, image.bands) == ((3, 9, 8), (4, 8), ("r", "g", "b"))
    window = (slice(2, 7), slice(1, 8))
    assert np.array_equal(image.read(window, ["b", "r"]), stack[[2, 0], 2:7, 1:8])
    image = open_image(path, Hdf(axes="yxb"))
    assert np.array_equal(image.read(), stack.transpose(2, 0, 1))
    assert image.bands[:2] == ("band_1", "band_2")
    assert "unnamed_bands" in {flag.code for flag in image.flags}
    image = open_image(path, Hdf(axes="zyx"))
    assert image.shape == (1, 3, 9, 8)
    assert np.array_equal(image.read((slice(1, 3), slice(0, 2), slice(3, 4))), stack[None, 1:3, 0:2, 3:4])
    once = write5(tmp_path / "b.h5", {"t": stack[:1], "u": stack[1:2]})
    assert np.array_equal(open_image(once).read(), stack[:2])
    with pytest.raises(UnsupportedError, match="one array whose axis is the bands"):
        open_image(write5(tmp_path / "c.h5", {"t": stack, "u": stack}), Hdf(axes="byx"))


def test_scale_and_offset_follow_the_convention_of_the_format(tmp_path: Path) -> None:
    values = noise(9, 8)
    said = {"scale_factor": 0.5, "add_offset": 10.0, "units": "K"}
    image = open_image(write5(tmp_path / "a.nc", {"t": values}, said))
    assert (image.scaling, image.units) == (((0.5, 10.0),), ("K",))
    assert np.array_equal(image.read()[0], values)
    image = open_image(write4(tmp_path / "a.hdf", {"t": values}, said))
    assert image.scaling == ((0.5, -5.0),)  # scale_factor * (raw - add_offset)
    assert np.array_equal(image.read()[0], values)


def test_a_reflectance_with_a_factor_above_one_is_divided(tmp_path: Path) -> None:
    said = {"scale_factor": 10000.0, "add_offset": 0.0, "units": "reflectance"}
    path = write4(tmp_path / "a.hdf", {"t": noise(9, 8)}, said)
    image = open_image(path)
    assert image.scaling == ((1e-4, 0.0),)
    assert "scale_divides" in {flag.code for flag in image.flags}
    assert open_image(path, Hdf(scale="multiply")).scaling == ((10000.0, 0.0),)
    metres = write4(tmp_path / "b.hdf", {"t": noise(9, 8)}, {"scale_factor": 25.0, "units": "meters"})
    assert open_image(metres).scaling == ((25.0, 0.0),)
    assert open_image(metres, Hdf(scale="divide")).scaling == ((0.04, 0.0),)
    with pytest.raises(DamagedError, match="scale_factor 0"):
        open_image(write5(tmp_path / "c.h5", {"t": noise(9, 8)}, {"scale_factor": 0.0}))


@pytest.mark.parametrize("write", [write5, write4])
def test_fill_values_and_values_out_of_range_are_not_measured(tmp_path: Path, write: Any) -> None:
    values = noise(9, 8)
    values[0, :3], values[1, :2], values[2, 0] = -999, 300, -1
    path = write(tmp_path / "a", {"t": values}, {"_FillValue": np.int16(-999), "valid_range": [0, 250]} if write is write5
                 else {"_FillValue": -999, "valid_range": [0, 250]})  # fmt: skip
    image = open_image(path)
    assert image.nodata == (-999.0,)
    read, valid = image.read_valid()
    assert np.array_equal(read[0], values)
    assert np.array_equal(valid[0], (values >= 0) & (values <= 250))
    window = (slice(1, 4), slice(0, 5))
    assert np.array_equal(image.read_valid(window)[1][0], valid[0][window])
    read[...] = 0
    assert np.array_equal(image.read()[0], values), "what is remembered must not be what was given away"


def test_half_open_ranges_hold_on_one_side(tmp_path: Path) -> None:
    values = noise(9, 8)
    image = open_image(write5(tmp_path / "a.h5", {"t": values}, {"valid_min": np.int16(50)}))
    assert np.array_equal(image.read_valid()[1][0], values >= 50)


def test_blocks_that_were_never_written_are_not_measured(tmp_path: Path) -> None:
    values = noise(20, 30) + 1
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (20, 30), "i2", chunks=(8, 8))
        data[:8] = values[:8]
        data[16:, 16:24] = values[16:, 16:24]
    image = open_image(path)
    assert [flag.code for flag in image.flags if flag.code == "unwritten_blocks"]
    expected = np.zeros((20, 30), bool)
    expected[:8] = expected[16:, 16:24] = True
    read, valid = image.read_valid()
    assert np.array_equal(valid[0], expected)
    assert np.array_equal(read[0], values * expected)
    window = (slice(5, 18), slice(13, 29))
    assert np.array_equal(image.read_valid(window)[1][0], expected[window])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", (20, 30), "i2")
    assert not open_image(tmp_path / "b.h5").read_valid()[1].any()


def geographic(path: Path, latitudes: np.ndarray, longitudes: np.ndarray) -> Path:
    write5(path, {"t": noise(len(latitudes), len(longitudes))})
    with h5py.File(path, "a") as file:
        for axis, (name, values, unit) in enumerate(
            [("lat", latitudes, "degrees_north"), ("lon", longitudes, "degrees_east")]
        ):
            file[name] = values.astype("f4")
            file[name].attrs["units"] = unit
            file[name].make_scale(name)
            file["t"].dims[axis].attach_scale(file[name])
    return path


def test_even_latitudes_and_longitudes_place_the_pixels(tmp_path: Path) -> None:
    image = open_image(geographic(tmp_path / "a.nc", 50 - 0.25 * np.arange(9), 10 + 0.25 * np.arange(8)))
    assert image.georeference is not None
    assert image.georeference.crs == "EPSG:4326"
    assert image.georeference.transform == pytest.approx((0.25, 0, 9.875, 0, -0.25, 50.125))
    assert "geographic_crs" in {flag.code for flag in image.flags}
    down, right = image.spacing.values
    assert down == pytest.approx(27_800, rel=0.01)
    assert right == pytest.approx(27_830 * np.cos(np.radians(49)), rel=0.01)
    uneven = open_image(geographic(tmp_path / "b.nc", np.arange(9) ** 2 / 5, np.arange(8) / 4))
    assert uneven.georeference is None
    assert [flag.code for flag in uneven.flags] == ["no_crs"]


def test_a_grid_mapping_gives_the_crs_and_units_of_coordinates_count(tmp_path: Path) -> None:
    from rasterio.crs import CRS

    for unit, factor, placed in (("m", 1, True), ("km", 1000, True), ("rad", 1, False)):
        path = tmp_path / f"{unit}.nc"
        with h5py.File(path, "w") as file:
            file["t"] = noise(9, 8)
            file["t"].attrs["grid_mapping"] = "crs"
            file["crs"] = np.int32(0)
            file["crs"].attrs["crs_wkt"] = CRS.from_epsg(32633).to_wkt()
            for axis, (name, values) in enumerate((("y", 5e6 - 20.0 * np.arange(9)), ("x", 4e5 + 10.0 * np.arange(8)))):
                file[name] = values / factor
                file[name].attrs["units"] = unit
                file[name].make_scale(name)
                file["t"].dims[axis].attach_scale(file[name])
        image = open_image(path)
        assert (image.georeference is not None) == placed
        if image.georeference is not None:
            assert image.georeference.crs == "EPSG:32633"
            assert image.georeference.transform == pytest.approx((10, 0, 399_995, 0, -20, 5_000_010))
            assert image.spacing.unit == "m"
            assert image.spacing.values == pytest.approx((20, 10))


EOS = """GROUP=GridStructure
 GROUP=GRID_1
  GridName="a"
  XDim=8
  YDim=9
  UpperLeftPointMtrs=(-180000000.000000,90000000.000000)
  LowerRightMtrs=(-170030000.000000,80000000.000000)
  Projection=GCTP_GEO
  GROUP=DataField
   DataFieldName="t"
  END_GROUP=DataField
 END_GROUP=GRID_1
END_GROUP=GridStructure
"""


def test_packed_degrees_of_an_eos_grid_are_unpacked() -> None:
    found = grid(EOS, (9, 8), "t")
    assert found is not None
    assert found[0] == "EPSG:4326"
    assert found[1] == pytest.approx((9.5 / 8, 0, -180, 0, -10 / 9, 90))
    assert grid(EOS, (9, 9), "t") is None
    assert grid(EOS.replace("GCTP_GEO", "GCTP_PS"), (9, 8), "t") is None
    assert grid("", (9, 8), "t") is None


def outsiders(folder: Path) -> list[Path]:
    """Files that name another file's values as theirs."""
    secret = write5(folder / "secret.h5", {"x": np.full((9, 8), 77, "i2")})
    (folder / "secret.raw").write_bytes(np.full((9, 8), 77, "i2").tobytes())
    with h5py.File(folder / "link.h5", "w") as file:
        file["x"] = h5py.ExternalLink(secret.name, "x")
    with h5py.File(folder / "storage.h5", "w") as file:
        file.create_dataset("x", (9, 8), "i2", external=[(str(folder / "secret.raw"), 0, 144)])
    with h5py.File(folder / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((9, 8), "i2")
        layout[:] = h5py.VirtualSource(str(secret), "x", (9, 8))
        file.create_virtual_dataset("x", layout)
    file = hdf4.SD(str(folder / "four.hdf"), hdf4.SDC.WRITE | hdf4.SDC.CREATE)
    data = file.create("x", hdf4.SDC.INT16, (9, 8))
    data.setexternalfile(str(folder / "four.raw"), 0)
    data[:] = np.full((9, 8), 77, "i2")
    data.endaccess()
    file.end()
    assert (folder / "four.raw").stat().st_size == 144
    return [folder / name for name in ("link.h5", "storage.h5", "virtual.h5", "four.hdf")]


def test_values_of_other_files_are_never_read(tmp_path: Path) -> None:
    for path in outsiders(tmp_path):
        for reader in (Hdf(), Hdf(variables=("x",))):
            with pytest.raises(DataError, match=path.name) as caught:
                open_image(path, reader).read()
        assert isinstance(caught.value, UnsafeError), path


def test_classic_netcdf_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "a.nc").write_bytes(b"CDF\x01" + b"\0" * 200)
    with pytest.raises(UnsupportedError, match=r"a\.nc: is classic NetCDF.*nccopy"):
        open_image(tmp_path / "a.nc")


def test_a_damaged_block_is_noticed_by_its_checksum_and_named(tmp_path: Path) -> None:
    values = noise(32, 32)
    path = write5(tmp_path / "a.h5", {"x": values}, chunks=(8, 32), fletcher32=True)
    with h5py.File(path) as file:
        place = file["x"].id.get_chunk_info(2).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 5] ^= 4
    path.write_bytes(data)
    image = open_image(path)
    assert np.array_equal(image.read((slice(0, 16), slice(0, 32)))[0], values[:16])
    with pytest.raises(DamagedError, match=r"a\.h5: .*x\[16:24, 0:32\] cannot be read"):
        image.read((slice(16, 24), slice(0, 32)))
    assert np.array_equal(image.read((slice(24, 32), slice(0, 32)))[0], values[24:])


def test_budgets_hold_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (200_000, 200_000), "f4", chunks=(100, 100))
    with pytest.raises(BudgetError, match=r"a\.h5: .*in one read"):
        open_image(path).read()
    assert open_image(path).read((slice(7, 9), slice(8, 9))).shape == (1, 2, 1)
    path = tmp_path / "b.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (40_000, 40_000), "f4", chunks=(40_000, 20_000), compression="gzip")
    with pytest.raises(BudgetError, match=r"b\.h5: one block of x takes 3\.0 GiB"):
        open_image(path)


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((9, 8))
        properties.set_filter(32_099, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((9, 8))
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT16, space, properties)
    with pytest.raises(UnsupportedError, match=r"a\.h5: x is packed with filter 32099"):
        open_image(path)


@pytest.mark.parametrize("seed", range(5))
def test_truncated_and_altered_hdf4_is_refused_before_the_library_sees_it(tmp_path: Path, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    path = write4(tmp_path / "a.hdf", {"b": noise(30, 44), "a": noise(30, 44)})
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(8, len(data) - 1))])
    with pytest.raises(DamagedError, match=r"a\.hdf: expected a whole HDF4 file"):
        open_image(path)


def test_the_real_modis_granule_is_placed_scaled_and_masked(shared: Path) -> None:
    path = next((shared / "data/satellite/modis_mod09ga").glob("*.hdf"))
    with pytest.raises(UnsupportedError, match="sur_refl_b01_1 2400x2400 int16"):
        open_image(path)
    image = open_image(path, Hdf(variables=("sur_refl_b0?_1",)))
    assert (image.shape, image.dtype) == ((7, 2400, 2400), np.int16)
    assert image.scaling == ((1e-4, 0.0),) * 7
    assert image.nodata == (-28672.0,) * 7
    assert image.units == ("reflectance",) * 7
    assert image.spacing.values == pytest.approx((463.3127, 463.3127), abs=1e-4)
    file = hdf4.SD(str(path), hdf4.SDC.READ)
    expected = file.select("sur_refl_b04_1").get()
    file.end()
    read, valid = image.read_valid(bands=["sur_refl_b04_1"])
    assert np.array_equal(read[0], expected)
    assert valid.mean() == pytest.approx(0.00254, abs=1e-5)
    assert 0 < read[valid].min() * 1e-4 < read[valid].max() * 1e-4 < 1.6
    window = (slice(2300, 2400), slice(17, 2303))
    assert np.array_equal(image.read(window, ["sur_refl_b04_1"])[0], expected[window])


def test_the_real_modis_tile_begins_at_eighty_degrees_south(shared: Path) -> None:
    from rasterio.warp import transform

    path = next((shared / "data/satellite/modis_mod09ga").glob("*.hdf"))
    place = open_image(path, Hdf(variables=("sur_refl_b01_1",))).georeference
    assert place is not None
    _, latitude = transform(place.crs, "EPSG:4326", [0.0], [place.transform[5]])
    # Tile v17 reaches from 80 to 90 degrees south on the sphere; on the ellipsoid of EPSG:4326 the latitude differs a bit.
    assert latitude[0] == pytest.approx(-80.0, abs=0.1)
    coarse = open_image(path, Hdf(variables=("SensorZenith_1",)))
    assert coarse.spacing.values == pytest.approx((926.6254, 926.6254), abs=1e-3)
    assert coarse.scaling == ((0.01, 0.0),)


@pytest.mark.parametrize(("library", "write"), [("h5py", write5), ("pyhdf", write4)])
def test_without_its_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, write: Any
) -> None:
    path = write(tmp_path / "a.h5", {"x": noise(9, 8)})
    for name in (library, "pyhdf.error", "pyhdf.SD"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDataError, match=rf"a\.h5: .* needs {library}: pip install 'halfseen\[hdf\]'"):
        open_image(path)


@pytest.mark.parametrize("how", ["replaced", "rewritten"])
def test_a_file_that_was_replaced_is_read_anew(how: str, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    first, second = noise(20, 20, seed=1), noise(20, 20, seed=2)
    assert np.array_equal(open_image(write5(path, {"a": first})).read()[0], first)
    other = write5(tmp_path / "b.h5", {"a": second}, {"units": "K"})
    if how == "replaced":
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
    assert np.array_equal(open_image(path).read()[0], second)


def test_a_coordinate_that_declares_terabytes_is_not_allocated(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", data=noise(20, 20))
        for axis, name in enumerate("yx"):
            huge = file.create_dataset(name, shape=(1 << 40,), chunks=(1 << 16,), dtype="f8")
            huge.make_scale(name)
            data.dims[axis].attach_scale(huge)
    image = open_image(tmp_path / "a.h5", Hdf(variables=("a",)))
    assert image.georeference is None
    assert image.spacing == Spacing.pixels(2)


def test_a_grid_mapping_that_names_a_file_opens_nothing(tmp_path: Path) -> None:
    from rasterio.crs import CRS

    (tmp_path / "wkt.txt").write_text(CRS.from_epsg(32615).to_wkt())
    for text, found in ((str(tmp_path / "wkt.txt"), False), ("EPSG:32615", True)):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            data = file.create_dataset("a", data=noise(20, 20))
            for axis, name in enumerate("yx"):
                file.create_dataset(name, data=np.arange(20) * 30.0).make_scale(name)
                file[name].attrs["units"] = "m"
                data.dims[axis].attach_scale(file[name])
            file.create_dataset("crs", data=0).attrs["crs_wkt"] = text
            data.attrs["grid_mapping"] = "crs"
        image = open_image(tmp_path / "a.h5", Hdf(variables=("a",)))
        assert (image.georeference is not None) == found
        discard(("hdf5", tmp_path / "a.h5"))  # h5py writes no file that it holds open


@pytest.mark.parametrize(
    ("radius", "known"), [("6371007.181000", True), ("-5.0", False), ("nan", False), ("inf", False)]
)
def test_a_sphere_that_is_no_planet_is_no_place_and_no_crash(radius: str, known: bool) -> None:
    text = EOS.replace("GCTP_GEO", f"GCTP_SNSOID\n  ProjParams=({radius},0,0,0)")
    assert (grid(text, (9, 8), "t") is not None) == known
