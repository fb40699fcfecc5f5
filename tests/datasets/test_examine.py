"""Examining: decoded to the last voxel, valid-aware, the same whether at once or in windows, bounded, and resumable."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from core.errors import ConfigError, DamagedError, MissingDataError, UnsafeError
from core.preprocess import measure
from datasets import examine as module
from datasets.collect import Entry, gather
from datasets.examine import Examined, Gate, examine, examine_all, windows
from datasets.image import LazyImage
from datasets.manifest import Manifest
from datasets.readers import open_image


def scene(path: Path, voxels: np.ndarray, *, nodata: float | None = None, block: int = 64) -> Path:
    import rasterio

    facts = {"driver": "GTiff", "count": len(voxels), "height": voxels.shape[1], "width": voxels.shape[2]}
    place = rasterio.Affine(30, 0, 5e5, 0, -30, 2e6)
    facts |= {"dtype": voxels.dtype, "crs": "EPSG:32615", "transform": place, "nodata": nodata}
    with rasterio.open(path, "w", tiled=True, blockxsize=block, blockysize=block, compress="deflate", **facts) as file:
        file.write(voxels)
    return path


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=seed))
    if np.dtype(dtype).kind == "f":
        return rng.normal(50, 20, shape).astype(dtype)
    return rng.integers(0, 200, shape).astype(dtype)


def entry_of(path: Path) -> Entry:
    return Entry(path.parent, path.name)


def test_facts_are_of_valid_voxels(tmp_path: Path) -> None:
    voxels = noise((2, 200, 150), "int16") + 1
    voxels[:, :70] = -9999
    voxels[1, 100:110] = -9999
    facts = examine(entry_of(scene(tmp_path / "a.tif", voxels, nodata=-9999))).facts
    assert facts is not None
    valid = voxels != -9999
    assert facts["content"] == [70, 200, 0, 150]
    assert facts["valid_share"] == [valid[0].mean(), valid[1].mean()]
    assert facts["low"] == [voxels[band][valid[band]].min() for band in (0, 1)]
    assert facts["high"] == [voxels[band][valid[band]].max() for band in (0, 1)]
    for band in (0, 1):
        mean, std = measure(voxels[band : band + 1], valid[band])
        assert (facts["mean"][band], facts["std"][band]) == (mean[0], std[0])  # bit for bit
    assert facts["crs"] == "EPSG:32615"
    assert facts["transform"] == [30.0, 0.0, 5e5, 0.0, -30.0, 2e6]
    assert facts["nodata"] == [-9999.0, -9999.0]
    assert facts["chunks"] == [64, 64]
    assert (facts["reader"], facts["options"]) == ("geotiff", [])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_in_windows_as_at_once(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = noise((3, 300, 260), dtype)
    voxels[:, :66, :] = 0
    voxels[2, 80:90, 80:90] = 0
    entry = entry_of(scene(tmp_path / "a.tif", voxels, nodata=0))
    at_once = examine(entry).facts
    seen: list[tuple[int, ...]] = []
    read = LazyImage.read_valid

    def watched(self: LazyImage, window: tuple[slice, ...] | None = None, bands: None = None) -> object:
        assert window is not None
        seen.append(tuple(part.stop - part.start for part in window))
        return read(self, window, bands)

    monkeypatch.setattr(LazyImage, "read_valid", watched)
    monkeypatch.setattr(module, "WHOLE", 1000)
    monkeypatch.setattr(module, "_WINDOW", 3 * 64 * 128 * voxels.itemsize)
    streamed = examine(entry).facts
    assert at_once is not None
    assert streamed is not None
    assert set(seen) == {(64, 128), (64, 4), (44, 128), (44, 4)}
    for name in ("low", "high", "valid_share", "content", "digest", "shape"):
        assert streamed[name] == at_once[name], name
    assert streamed["mean"] == pytest.approx(at_once["mean"], rel=1e-12)
    assert streamed["std"] == pytest.approx(at_once["std"], rel=1e-12)
    assert at_once["voxel_digest"] is not None
    assert streamed["voxel_digest"] is None


def test_what_cannot_be_read_in_windows_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = noise((40, 30, 20), "int16")
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    at_once = examine(entry_of(tmp_path / "a.nii.gz")).facts
    reads: list[object] = []
    read = LazyImage.read_valid
    monkeypatch.setattr(LazyImage, "read_valid", lambda self, window=None: reads.append(window) or read(self, window))
    monkeypatch.setattr(module, "WHOLE", 1000)
    monkeypatch.setattr(module, "_WINDOW", 4000)
    streamed = examine(entry_of(tmp_path / "a.nii.gz")).facts
    assert reads == [None]
    assert streamed is not None
    assert at_once is not None
    assert streamed["mean"][0] == pytest.approx(voxels.mean(), rel=1e-13)
    assert streamed["content"] == at_once["content"] == [0, 20, 0, 30, 0, 40]


@pytest.mark.parametrize("size", [(1, 1), (300, 260), (64, 64), (1000, 7)])
@pytest.mark.parametrize("most", [1, 5000, 1 << 20])
def test_windows_cover_every_voxel_once_and_follow_chunks(size: tuple[int, int], most: int) -> None:
    count = np.zeros(size, np.int8)
    for window in windows(size, (64, 32), most):
        count[window] += 1
        assert all(part.start % chunk == 0 for part, chunk in zip(window, (64, 32), strict=True))
        assert math.prod(part.stop - part.start for part in window) <= max(most, 64 * 32)
    assert (count == 1).all()


def test_the_same_voxels_have_one_voxel_digest_in_any_format(tmp_path: Path) -> None:
    voxels = noise((30, 20, 10), "int16")
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "b.nii.gz")
    voxels[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "c.nii")
    one, same, other = (examine(entry_of(tmp_path / name)).facts for name in ("a.nii", "b.nii.gz", "c.nii"))
    assert one is not None
    assert same is not None
    assert other is not None
    assert one["voxel_digest"] == same["voxel_digest"] != other["voxel_digest"]
    assert one["digest"] != same["digest"]
    assert one["mean"] == same["mean"]


def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise((20, 20), "uint8")).save(tmp_path / "a.png")
    read = LazyImage.read_valid

    def meanwhile(self: LazyImage) -> object:
        os.utime(self.path, ns=(7, 7))
        return read(self)

    monkeypatch.setattr(LazyImage, "read_valid", meanwhile)
    with pytest.raises(DamagedError, match=r"a\.png: the file changed while it was examined"):
        examine(entry_of(tmp_path / "a.png"))


def test_links_may_not_leave_the_root_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(noise((20, 20), "uint8")).save(tmp_path / "out.png")
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "out.png")
    entry = Entry(tmp_path / "in", "a.png")
    with pytest.raises(UnsafeError, match=r"in/a\.png: expected a file inside .*in, but it leads to .*out\.png"):
        examine(entry)
    assert examine(Entry(tmp_path / "in", "a.png", free=True)).facts is not None


def test_a_bad_image_stops_no_other_and_order_is_kept(tmp_path: Path) -> None:
    for number in range(20):
        Image.fromarray(noise((30, 30), "uint8", number)).save(tmp_path / f"{number:02d}.png")
    (tmp_path / "07.png").write_bytes((tmp_path / "07.png").read_bytes()[:300])
    entries, _ = gather([tmp_path])
    seen: list[tuple[int, int]] = []
    results = examine_all(entries, workers=4, progress=lambda *at: seen.append(at))
    assert seen == [(number, 20) for number in range(1, 21)]
    assert [row for row, result in enumerate(results) if result.facts is None] == [7]
    assert results[7].findings[0].code == "unreadable"
    assert results[7].findings[0].text.startswith("DamagedError: expected")
    for row in (0, 19):
        facts = results[row].facts
        assert facts is not None
        assert facts["mean"] == [pytest.approx(noise((30, 30), "uint8", row).mean())]


def test_a_reader_that_breaks_is_a_finding_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise((30, 30), "uint8")).save(tmp_path / "a.png")

    def breaks(self: LazyImage) -> object:
        raise RecursionError("too deep")

    monkeypatch.setattr(LazyImage, "read_valid", breaks)
    (result,) = examine_all([entry_of(tmp_path / "a.png")])
    assert result.facts is None
    assert result.findings[0].text.startswith("RecursionError: too deep (a fault of the reader")


def test_the_gate_keeps_its_budget_and_lets_the_heavy_in_alone() -> None:
    gate, inside, most = Gate(100), [0], [0]
    lock = threading.Lock()

    def work(weight: int) -> None:
        with gate.held(weight):
            with lock:
                inside[0] += min(weight, 100)
                most[0] = max(most[0], inside[0])
            time.sleep(0.002)
            with lock:
                inside[0] -= min(weight, 100)

    threads = [threading.Thread(target=work, args=(weight,)) for weight in [30, 60, 500, 10, 90] * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in threads)
    assert 60 <= most[0] <= 100


def journal_of(folder: Path, journal: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Examined], int]:
    """Examine a folder with a journal; the results, and how many images were decoded."""
    decoded: list[Path] = []
    monkeypatch.setattr(
        module, "examine", lambda entry, chosen, gate: decoded.append(entry.path) or examine(entry, chosen, gate)
    )
    return examine_all(gather([folder])[0], journal=journal, workers=2), len(decoded)


def test_a_journal_saves_work_and_notices_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, journal = tmp_path / "images", tmp_path / "j.jsonl"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(noise((20, 20), "uint8", number)).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    first, decoded = journal_of(folder, journal, monkeypatch)
    assert decoded == 6
    again, decoded = journal_of(folder, journal, monkeypatch)
    assert decoded == 0
    assert [(r.facts, r.findings) for r in again] == [(r.facts, r.findings) for r in first]
    os.utime(folder / "1.png", ns=(9, 9))
    assert journal_of(folder, journal, monkeypatch)[1] == 1
    text = journal.read_text()
    journal.write_text(text[: text.rindex('"stamp"')])  # torn by a kill
    assert journal_of(folder, journal, monkeypatch)[1] == 1
    assert journal_of(folder, journal, monkeypatch)[1] == 0


def test_a_journal_of_other_options_is_begun_anew_and_other_files_are_kept(tmp_path: Path) -> None:
    from datasets.readers import configured

    Image.fromarray(noise((20, 20), "uint8")).save(tmp_path / "a.png")
    entries, journal = [entry_of(tmp_path / "a.png")], tmp_path / "j.jsonl"
    examine_all(entries, journal=journal)
    examine_all(entries, configured(["raster_image.max_pixels=1000"]), journal=journal)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert len(lines) == 2
    assert any("max_pixels=1000" in reader for reader in lines[0]["readers"])
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n")
    with pytest.raises(ConfigError, match=r"notes\.txt: expected a journal of an earlier check"):
        examine_all(entries, journal=notes)
    assert notes.read_text() == "my notes\n"


@pytest.mark.slow
def test_a_large_scene_is_examined_in_little_memory(tmp_path: Path) -> None:
    import rasterio
    from rasterio.windows import Window as Box

    height, width = 12_000, 30_000
    facts = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint16", "nodata": 0}
    facts |= {"transform": rasterio.Affine(30, 0, 5e5, 0, -30, 2e6), "crs": "EPSG:32615"}
    row = noise((1, 512, width), "uint16")
    with rasterio.open(tmp_path / "large.tif", "w", tiled=True, blockxsize=512, blockysize=512, **facts) as file:
        for start in range(0, height, 512):
            file.write(row[:, : height - start], window=Box(0, start, width, min(512, height - start)))
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom datasets.check import main\n"
        "from datasets.readers import open_image\n"
        "open_image(Path(sys.argv[1])).read((slice(0, 8), slice(0, 8)))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    main([*sys.argv[1:], '--quiet'])\nfinally:\n"
        "    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    words = [str(tmp_path / "large.tif"), "--out", str(tmp_path / "m.parquet")]
    environment = dict(os.environ, GDAL_CACHEMAX="64")
    out = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=200, env=environment, check=False
    )
    assert out.returncode == 0, out.stderr
    assert int(out.stdout.splitlines()[-1]) < 256, "MiB for 720 MB of voxels"
    found = Manifest.read(tmp_path / "m.parquet")
    blocks = [row[0, : height - start].astype(np.int64) for start in range(0, height, 512)]
    total, number = sum(int(block.sum()) for block in blocks), sum(int((block > 0).sum()) for block in blocks)
    assert found.column("mean") == [[total / number]]  # exact, though streamed
    assert found.column("valid_share") == [[number / (height * width)]]


def test_examined_files_can_be_opened_again_as_checked(tmp_path: Path) -> None:
    shutil.copy(scene(tmp_path / "a.tif", noise((1, 64, 64), "uint8")), tmp_path / "b.tif")
    facts = examine(entry_of(tmp_path / "b.tif")).facts
    assert facts is not None
    assert list(open_image(tmp_path / "b.tif").shape) == facts["shape"]


def test_a_failure_that_need_not_be_in_the_file_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise((20, 20), "uint8")).save(tmp_path / "a.png")
    entries, journal = [entry_of(tmp_path / "a.png")], tmp_path / "j.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("datasets.examine.find_reader", _needs_a_library)
        first = examine_all(entries, journal=journal)[0]
    assert first.facts is None
    assert (first.findings[0].code, "pip install x" in first.findings[0].text) == ("unreadable", True)
    assert examine_all(entries, journal=journal)[0].facts is not None


def test_a_journal_keeps_what_an_image_is_too_large_for_and_looks_again_with_other_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise((20, 20), "uint8")).save(tmp_path / "a.png")
    journal, tried = tmp_path / "j.jsonl", []
    monkeypatch.setattr(
        module, "examine", lambda entry, chosen, gate: tried.append(entry.options) or examine(entry, chosen, gate)
    )
    few, many = (replace(entry_of(tmp_path / "a.png"), options=(f"raster_image.max_pixels={n}",)) for n in (100, 1000))
    for _ in range(2):
        assert examine_all([few], journal=journal)[0].findings[0].text.startswith("BudgetError: ")
    for _ in range(2):
        facts = examine_all([many], journal=journal)[0].facts
        assert facts is not None
        assert facts["options"] == ["raster_image.max_pixels=1000"]
    assert tried == [few.options, many.options]


def _needs_a_library(path: Path, *chosen: object) -> None:
    raise MissingDataError(f"{path}: this needs a library: pip install x.")
