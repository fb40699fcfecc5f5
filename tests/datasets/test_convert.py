"""Converting collections: the same voxels, facts and samples; restarts, refusals and exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from core.contract import Input
from core.errors import ConfigError, DataError, MissingDataError, RunFolderError
from core.geometry import Georeference, Spacing
from datasets import StreamSpec, TileDataset, build_manifest, open_image
from datasets.content import digest_of
from datasets.convert import main
from datasets.converting import prepare as preparing
from datasets.converting.job import Settings
from datasets.converting.prepare import convert
from datasets.manifest import Manifest
from datasets.readers import _store
from datasets.sample import Item
from datasets.writers import Facts, write_image

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def converted(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "set"
    report = convert([collection / "labels.csv"], out, group="patient")
    assert (report.converted, report.kept, report.failed) == (16, 0, ())
    return out


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `python -m datasets.convert`: exit code, standard output, standard error."""

    def type_it(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        return int(left.value.code or 0), shown.out, shown.err

    return type_it


def volumes(folder: Path, number: int = 3, dtype: type = np.int16) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.Philox(key=5))
    for n in range(number):
        data = rng.integers(-900, 900, (9, 10, 11 + n)).astype(dtype)
        nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.5, 2.0, 1.0])), folder / f"v{n}.nii.gz")
    return folder


def scene(path: Path, *, nodata: float | None = None, size: tuple[int, int] = (300, 260)) -> Path:
    rng = np.random.Generator(np.random.Philox(key=6))
    voxels = rng.integers(1, 4000, (2, *size)).astype(np.uint16)
    if nodata is not None:
        voxels[:, :40] = voxels[:, :, 200:] = nodata
    facts = Facts(
        shape=voxels.shape,
        dtype=voxels.dtype,
        bands=("red", "nir"),
        spacing=Spacing((30.0, 30.0), "m"),
        georeference=Georeference("EPSG:32615", (30.0, 0.0, 5e5, 0.0, -30.0, 1e6)),
        nodata=None if nodata is None else (nodata,) * 2,
        scaling=((0.0001, 0.0), (0.0001, -0.1)),
        units=("1", "1"),
        valid=1 if nodata is None else 0,
    )
    whole = tuple(slice(0, n) for n in size)
    mask = () if nodata is not None else (rng.random((1, *size)) < 0.8,)
    return write_image(path, facts, [(whole, voxels, *mask)])


def digests(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): digest_of(path) for path in sorted((out / "images").rglob("*.zarr"))}


def test_voxels_geometry_and_bands_are_those_of_the_source(converted: Path, manifest: Manifest) -> None:
    made = build_manifest([converted])
    for before, after in zip(manifest.paths, made.paths, strict=True):
        one, other = open_image(before), open_image(after)
        assert np.array_equal(one.read(), other.read(), equal_nan=one.dtype.kind == "f")
        for fact in ("shape", "dtype", "bands", "spacing", "affine", "georeference", "nodata", "scaling"):
            assert getattr(one, fact) == getattr(other, fact), (before, fact)


def test_order_labels_groups_and_facts_of_values_stay(converted: Path, manifest: Manifest) -> None:
    made = build_manifest([converted])
    assert made.label_names == manifest.label_names
    kept = ("group", "split", "ndim", "shape", "dtype", "spacing", "unit", "bands", "mean", "std", "low", "high")
    for name in (*kept, "valid_share", "content", "voxel_digest", *manifest.label_names):
        assert repr(made.column(name)) == repr(manifest.column(name)), name
    assert [Path(file).name for file in made.column("file")] == [
        path.name.removesuffix(".gz").rpartition(".")[0] + ".zarr" for path in manifest.paths
    ]
    assert set(made.column("reader")) == {"zarr_array"}


def test_a_converted_collection_moves_as_a_whole(converted: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(converted, tmp_path / "elsewhere")
    assert build_manifest([moved]).paths[0].is_relative_to(moved)
    assert open_image(build_manifest([moved]).paths[0]).shape == (3, 60, 80)


def test_the_store_says_where_it_comes_from_and_nothing_else(converted: Path, manifest: Manifest) -> None:
    said = _store.read_attributes(converted / "images" / "v1.zarr")
    assert said is not None
    row = manifest.column("file").index("v1.nii.gz")
    expected = {"file": "v1.nii.gz", "digest": manifest.column("digest")[row], "reader": "nifti", "options": []}
    assert said["source"] == {**expected, "settings": {}}
    assert set(said["made_by"]) == {"halfseen", "zarr", "numcodecs", "nibabel"}
    voxels = open_image(manifest.paths[row]).read().astype(np.float64)
    assert said["statistics"]["intensity"]["mean"] == pytest.approx(voxels.mean(), rel=1e-12)
    assert said["statistics"]["intensity"]["low"] == voxels.min()


def test_statistics_of_the_collection_are_those_of_all_voxels(converted: Path, manifest: Manifest) -> None:
    kinds = json.loads((converted / "statistics.json").read_text())["kinds"]
    assert [(kind["ndim"], kind["images"]) for kind in kinds] == [(2, 10), (3, 6)]
    photographs = [open_image(path).read() for path in manifest.select(ndim=2).paths]
    red = np.concatenate([voxels[0].ravel() for voxels in photographs]).astype(np.float64)
    found = kinds[0]["statistics"]["red"]
    assert found["mean"] == pytest.approx(red.mean(), rel=1e-12)
    assert found["std"] == pytest.approx(red.std(), rel=1e-12)
    assert found["p99"] == np.percentile(red, 99, method="inverted_cdf")
    share = kinds[1]["statistics"]["intensity"]
    assert 0 < share["valid_share"] < 1
    assert share["nonfinite"] > 0


def test_a_second_call_changes_nothing(converted: Path, collection: Path) -> None:
    before, table = digests(converted), Manifest.read(converted / "manifest.parquet").table
    shutil.rmtree(converted / ".convert")  # which may be deleted at any time
    report = convert([collection / "labels.csv"], converted, group="patient")
    assert (report.converted, report.kept) == (0, 16)
    assert digests(converted) == before
    assert Manifest.read(converted / "manifest.parquet").table.equals(table)


def test_the_bytes_do_not_depend_on_workers_or_place(converted: Path, collection: Path, tmp_path: Path) -> None:
    convert([collection / "labels.csv"], tmp_path / "again", group="patient", workers=3)
    assert digests(tmp_path / "again") == digests(converted)


def test_a_store_that_is_missing_is_made_again(tmp_path: Path) -> None:
    source, out = volumes(tmp_path / "source"), tmp_path / "out"
    convert([source], out)
    before = digests(out)
    shutil.rmtree(out / "images" / "v1.zarr")
    (out / "images" / ".v1.zarr.0123456789ab.halfseen-draft").mkdir()  # what a kill leaves
    report = convert([source], out)
    assert (report.converted, report.kept) == (1, 2)
    assert digests(out) == before
    assert sorted(path.name for path in (out / "images").iterdir()) == ["v0.zarr", "v1.zarr", "v2.zarr"]


def test_other_settings_or_content_are_refused_by_name_and_replaced_on_demand(tmp_path: Path) -> None:
    source, out = volumes(tmp_path / "source"), tmp_path / "out"
    convert([source], out)
    with pytest.raises(ConfigError, match=r"v0.zarr.*'dtype': 'float32'.*and 2 more.*--overwrite"):
        convert([source], out, Settings(dtype="float32"))
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)), source / "v1.nii.gz")
    with pytest.raises(ConfigError, match=r"v1.zarr is there .*its source has other content"):
        convert([source], out)
    assert Manifest.read(out / "manifest.parquet").column("shape")[1] == [1, 12, 10, 9]  # nothing was touched
    report = convert([source], out, overwrite=True)
    assert (report.converted, report.kept) == (1, 2)
    assert open_image(out / "images" / "v1.zarr").read().sum() == 4 * 5 * 6


def test_a_damaged_store_is_refused_and_replaced_on_demand(tmp_path: Path) -> None:
    source, out = volumes(tmp_path / "source"), tmp_path / "out"
    convert([source], out)
    before = digests(out)
    facts = out / "images" / "v0.zarr" / "zarr.json"
    facts.write_text(facts.read_text().replace("intensity", "intensitY"))
    with pytest.raises(ConfigError, match=r"seal.*--overwrite"):
        convert([source], out)
    convert([source], out, overwrite=True)
    assert digests(out) == before


def test_masks_nodata_scaling_and_units_are_kept(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    scene(tmp_path / "source" / "masked.zarr")
    scene(tmp_path / "source" / "marked.zarr", nodata=0)
    convert([tmp_path / "source"], tmp_path / "out")
    for name, mask in (("masked", True), ("marked", False)):
        one, other = (
            open_image(tmp_path / "source" / f"{name}.zarr"),
            open_image(tmp_path / "out/images" / f"{name}.zarr"),
        )
        for before, after in zip(one.read_valid(), other.read_valid(), strict=True):
            assert np.array_equal(before, after)
        for fact in ("georeference", "nodata", "scaling", "units", "bands", "spacing"):
            assert getattr(one, fact) == getattr(other, fact)
        assert (tmp_path / "out" / "images" / f"{name}.zarr" / "valid").exists() == mask


def test_crop_spacing_and_dtype_work_together(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    path = scene(tmp_path / "source" / "s.zarr", nodata=0)
    convert([path.parent], tmp_path / "out", Settings(crop=True, spacing=((60.0, 60.0),), dtype="int32"))
    image = open_image(tmp_path / "out" / "images" / "s.zarr")
    assert image.shape == (2, 130, 100)  # of 260 x 200 measured pixels
    assert image.dtype == np.int32
    assert image.spacing == Spacing((60.0, 60.0), "m")
    assert image.georeference is not None
    assert image.georeference.transform == (60.0, 0.0, 5e5, 0.0, -60.0, 1e6 - 40 * 30)
    made = build_manifest([tmp_path / "out"])
    voxels = image.read()
    np.testing.assert_allclose(made.column("mean")[0], voxels.mean(axis=(1, 2)), rtol=1e-9)
    assert made.column("content")[0] == [0, 130, 0, 100]
    with pytest.raises(ConfigError, match="'spacing'"):
        convert([path.parent], tmp_path / "out")


def test_chunk_and_shard_are_chosen_per_rank(tmp_path: Path) -> None:
    source = volumes(tmp_path / "source", 1)
    Image.fromarray(np.arange(100 * 90, dtype=np.uint8).reshape(100, 90)).save(source / "p.png")
    settings = Settings(chunk=((4, 5, 6), (32, 16)), shard=((8, 10, 12), (64, 64)), codec="fast")
    convert([source], tmp_path / "out", settings)
    flat, deep = open_image(tmp_path / "out" / "images" / "p.zarr"), open_image(tmp_path / "out" / "images" / "v0.zarr")
    assert (flat.chunks, deep.chunks) == ((32, 16), (4, 5, 6))
    assert len(list((tmp_path / "out" / "images" / "p.zarr" / "image" / "c").rglob("*"))) == 2 * 2 + 2 + 1
    for before, after in ((source / "p.png", flat), (source / "v0.nii.gz", deep)):
        assert np.array_equal(open_image(before).read(), after.read())


def test_a_size_for_images_that_failed_is_not_idle_and_their_names_are_kept_for_them(tmp_path: Path) -> None:
    source = volumes(tmp_path / "source", 1)
    Image.fromarray(np.arange(100 * 90, dtype=np.uint8).reshape(100, 90)).save(source / "v0.png")
    whole = (source / "v0.nii.gz").read_bytes()
    (source / "v0.nii.gz").write_bytes(whole[:40])
    settings = Settings(chunk=((4, 5, 6), (32, 16)))
    report = convert([source], tmp_path / "out", settings)
    assert [file for file, _ in report.failed] == ["v0.nii.gz"]
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["v0.png.zarr"]
    (source / "v0.nii.gz").write_bytes(whole)
    again = convert([source], tmp_path / "out", settings)
    assert (again.converted, again.kept, again.failed) == (1, 1, ())
    (source / "v0.nii.gz").unlink()
    with pytest.raises(
        ConfigError, match=r"--chunk 4,5,6 has no effect: it is for 3D images, and all of these are 2D; give 2"
    ):
        convert([source], tmp_path / "other", settings)


def test_reader_options_decide_and_are_noted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.set_qform(np.diag([-1.0, 1, 1, 1]), code=1)
    nib.save(image, source / "a.nii")
    with pytest.raises(DataError, match=r"nifti.affine|sform"):
        convert([source], tmp_path / "out")
    convert([source], tmp_path / "out", options=["nifti.affine=sform"])
    said = _store.read_attributes(tmp_path / "out" / "images" / "a.zarr")
    assert said is not None
    assert said["source"]["options"] == ["nifti.affine=sform"]
    assert build_manifest([tmp_path / "out"]).column("options") == [[]]  # the store needs none


def test_names_that_collide_keep_their_endings(tmp_path: Path) -> None:
    for place in ("a/x.png", "a/x.jpg", "a/y.png", "b/x.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 5), len(place) * 9, np.uint8)).save(tmp_path / place)
    convert([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    stores = (tmp_path / "out" / "images").rglob("*.zarr")
    names = sorted(path.relative_to(tmp_path / "out" / "images").as_posix() for path in stores)
    assert names == ["a/x.png.zarr", "b/x.png.zarr", "x.jpg.zarr", "y.zarr"]
    with pytest.raises(DataError, match="same name and folder"):
        preparing._names([("/p/a", "x.png"), ("/q/a", "x.png")], [])


def test_failures_are_listed_and_the_others_are_converted(tmp_path: Path, run: Run) -> None:
    source, out = volumes(tmp_path / "source"), tmp_path / "out"
    data = (source / "v1.nii.gz").read_bytes()
    (source / "v1.nii.gz").write_bytes(data[: len(data) // 2])
    code, shown, _ = run(source, out, "--quiet")
    assert code == 1
    assert "2 images converted, 1 failed" in shown
    assert "v1.nii.gz" in shown
    assert "no manifest was written" in shown
    assert not (out / "manifest.parquet").exists()
    code, shown, _ = run(source, out, "--quiet", "--skip-failed", "--json")
    assert code == 1
    report, last = shown.splitlines()
    assert last == str(out)
    assert json.loads(report)["kept"] == 2
    assert json.loads(report)["failed"][0]["file"] == "v1.nii.gz"
    assert len(Manifest.read(out / "manifest.parquet")) == 2
    (source / "v1.nii.gz").write_bytes(data)
    code, shown, _ = run(source, out, "--quiet")
    assert (code, shown.splitlines()[-1]) == (0, str(out))
    assert len(Manifest.read(out / "manifest.parquet")) == 3


def test_what_a_dtype_does_not_hold_fails_with_the_range(tmp_path: Path, run: Run) -> None:
    source, out = volumes(tmp_path / "source"), tmp_path / "out"
    code, shown, _ = run(source, out, "--quiet", "--dtype", "uint8")
    assert code == 1
    assert "uint8 does not hold without loss" in shown
    assert list((out / "images").rglob("*.zarr")) == []
    assert run(source, out, "--quiet", "--dtype", "uint8", "--clip")[0] == 0
    assert open_image(out / "images" / "v0.zarr").read().max() == 255


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere", "out"), "nowhere does not exist"),
        (("source", "source/out"), "outside the source"),
        (("source", "full"), "it holds 'thesis.txt'"),
        (("source", "file"), "it is a file"),
        (("source", "out", "--chunk", "4,x"), "--chunk: expected whole numbers"),
        (("source", "out", "--chunk", "4,4,4,4"), "two or three numbers"),
        (("source", "out", "--spacing", "1,1,0"), "positive numbers"),
        (("source", "out", "--clip"), "--clip has no effect without --dtype"),
        (("source", "out", "--order", "nearest"), "--order nearest has no effect without --spacing"),
        (
            ("source", "out", "--spacing", "2.5,2"),
            "--spacing 2.5,2 has no effect: it is for 2D images, and all of these are 3D",
        ),
        (("source", "out", "--chunk", "4,4,4", "--chunk", "64,64"), "--chunk 64,64 has no effect: it is for 2D images"),
        (("source", "out", "--shard", "64,64"), "--shard 64,64 has no effect: it is for 2D images"),
        (("source", "out", "--options", "nifti.affin=sform"), "affin"),
        (("source", "out", "--group", "patient"), "no column is called 'patient'"),
        (("source", "out", "--scheduler", "tcp://127.0.0.1:1"), "no Dask scheduler answers"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_code_2(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.converting.dispatch._CONNECT_S", 1)
    volumes(tmp_path / "source", 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "full" / "thesis.txt").write_text("three years")
    code, shown, error = run(*words, "--quiet")
    assert code == 2
    assert shown == ""
    assert said in error
    assert (tmp_path / "full" / "thesis.txt").read_text() == "three years"


def test_two_conversions_to_one_folder_are_refused(tmp_path: Path) -> None:
    import fcntl

    source, out = volumes(tmp_path / "source", 1), tmp_path / "out"
    (out / ".convert").mkdir(parents=True)
    with (out / ".convert" / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunFolderError, match="another process"):
            convert([source], out)
    convert([source], out)


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = volumes(tmp_path / "source"), tmp_path / "out"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(RunFolderError, match=r"expected about 6\.\d+ kB of free space, there are 1 kB"):
        convert([source], out)
    assert not (out / "images").exists()


def test_a_source_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = volumes(tmp_path / "source", 1), tmp_path / "out"
    real = preparing._room

    def replaced(*given: object) -> None:
        real(*given)  # type: ignore[arg-type]
        nib.save(nib.Nifti1Image(np.ones((4, 5, 6), np.int16), np.eye(4)), source / "v0.nii.gz")

    monkeypatch.setattr(preparing, "_room", replaced)
    report = convert([source], out)
    assert "changed" in report.failed[0][1]
    assert not (out / "manifest.parquet").exists()


def test_the_cluster_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDataError, match=r"halfseen\[cluster\]"):
        convert([volumes(tmp_path / "source", 1)], tmp_path / "out", scheduler="tcp://127.0.0.1:1")


def test_a_large_image_divided_among_tasks_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    scene(tmp_path / "source" / "masked.zarr")
    scene(tmp_path / "source" / "marked.zarr", nodata=0)
    settings = Settings(shard=((128, 128),))
    convert([tmp_path / "source"], tmp_path / "whole", settings)
    monkeypatch.setattr("datasets.converting.job._LARGE", 1000)
    monkeypatch.setattr("datasets.converting.dispatch._TASK_BYTES", 70_000)
    convert([tmp_path / "source"], tmp_path / "divided", settings, workers=2)
    assert digests(tmp_path / "divided") == digests(tmp_path / "whole")


def test_real_numbers_of_few_values_are_packed_as_they_are(tmp_path: Path) -> None:
    source = volumes(tmp_path / "source", 1)
    rng = np.random.Generator(np.random.Philox(key=4))
    few = (rng.integers(0, 200, (40, 40, 40)) * np.float32(7.123)).astype(np.float32)
    nib.save(nib.Nifti1Image(few, np.eye(4)), source / "few.nii.gz")
    nib.save(nib.Nifti1Image(rng.normal(0, 1, (40, 40, 40)).astype(np.float32), np.eye(4)), source / "many.nii.gz")
    convert([source], tmp_path / "out")
    for name, word in (("few", '"noshuffle"'), ("many", '"shuffle"'), ("v0", '"shuffle"')):
        assert word in (tmp_path / "out" / "images" / f"{name}.zarr" / "image" / "zarr.json").read_text()
    assert size_of_store(tmp_path / "out" / "images" / "few.zarr") < 1.05 * (source / "few.nii.gz").stat().st_size


def size_of_store(store: Path) -> int:
    return sum(file.stat().st_size for file in store.rglob("*") if file.is_file())


def test_training_samples_are_the_same_from_converted_images(
    converted: Path, manifest: Manifest, photograph_input: Input, volume_input: Input
) -> None:
    streams = [
        StreamSpec(input=photograph_input, batch_size=4, scale=(0.1, 1.0), flips=(True, True)),
        StreamSpec(input=volume_input, batch_size=2, flips=(False, True, True)),
    ]
    before, after = (TileDataset(entry, streams, seed=5) for entry in (manifest, build_manifest([converted])))
    for stream, rows in ((0, manifest.rows(ndim=2)), (1, manifest.rows(ndim=3))):
        for row in rows:
            for epoch in range(3):
                item = Item(stream=stream, row=int(row), index=0, epoch=epoch)
                one, other = before[item], after[item]
                assert one.key == other.key
                for name in ("image", "valid", "offset", "scale"):
                    assert np.array_equal(getattr(one, name), getattr(other, name)), (name, item)


def test_help_names_every_option(run: Run) -> None:
    code, shown, _ = run("--help")
    assert code == 0
    for word in ("--spacing", "--dtype", "--scheduler", "--skip-failed", "Exit codes", "statistics.json"):
        assert word in shown
