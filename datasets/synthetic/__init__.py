"""The embedded sample sets, one per domain: labelled procedural images in real formats, written once.

`sample_set` (retina), `ct_set` (radiology), `slide_set` (pathology) and `scene_set` (satellite) share their manners: same
arguments, same bytes on one software version; the folder appears complete or not at all; a second call writes nothing and
a folder that holds anything else is refused. Every set has `labels.csv`, which `build_manifest` takes, with its group
column, and a README.txt that says that it is synthetic.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from core.errors import ConfigError, RunFolderError
from core.rng import numpy_rng

if TYPE_CHECKING:
    from datasets.synthetic.scene import Sensor
    from datasets.synthetic.slide import Slide

Row = TypeVar("Row")

_VERSION = 1  # of what is drawn: a folder of another version is another sample set
_GRADE_SHARES = (0.30, 0.16, 0.22, 0.16, 0.16)
_README = """halfseen sample set: SYNTHETIC images, drawn by a program

No patient, eye or scanner was involved. Use it to run and test software; nothing measured on it says anything about
medicine. Licence: CC0 1.0 (public domain).

photographs/  colour fundus photographs, JPEG and PNG; grade 0-4 by their lesions
volumes/      OCT-like volumes, NIfTI; grade 0-4 by drusen and fluid. x runs along a B-scan, y into the depth, z from
              B-scan to B-scan; world directions are nominal.
labels.csv    file, grade, patient (keep a patient's images together when splitting), kind
"""


_README_CT = """halfseen radiology sample set: SYNTHETIC images, drawn by a program

No patient or scanner was involved. Use it to run and test software; nothing measured on it says anything about medicine.
Licence: CC0 1.0 (public domain).

volumes/    CT-like phantoms of chest and upper abdomen, NIfTI, int16, Hounsfield units; smaller than a person
labels/     the same grid: 1 lung, 2 liver, 3 bone, 4 nodule
labels.csv  file, grade 0-3 by the number of lung nodules, nodules, patient (keep a patient's scans together), label_file
"""
_README_SLIDE = """halfseen pathology sample set: SYNTHETIC images, drawn by a program

No patient, tissue or scanner was involved. Use it to run and test software; nothing measured on it says anything about
medicine. Licence: CC0 1.0 (public domain).

slides/     H&E-like slides at 0.5 um per pixel, pyramidal TIFF that describes itself as Aperio's
tiles/      256 x 256 tiles of them, PNG
instances/  numbered nuclei of each tile, PNG, uint16
labels.csv  tiles: file, tumour_share of the tissue, nuclei, grade of the slide, slide (keep its tiles together), label_file
slides.csv  slides: file, grade 0-3 by tumour share, tumour_share, nuclei, slide
"""
_README_SCENE = """halfseen satellite sample set: SYNTHETIC images, drawn by a program

No satellite was involved; the coordinates are real places, the contents are not. Use it to run and test software; nothing
measured on it says anything about the Earth. Licence: CC0 1.0 (public domain).

scenes/     multispectral scenes in four files each, GeoTIFF, uint16; physical value = raw * scale
covers/     land cover: 1 water, 2 forest, 3 crop, 4 soil, 5 urban, 6 snow, 0 not measured
labels.csv  file, cover that holds the most ground, share of each, cloud, scene (keep its files together), label_file
"""


def sample_set(root: Path, *, photographs: int = 240, volumes: int = 48, seed: int = 0) -> Path:
    """Write the sample set into the folder `root` unless it is there; gives `root`.

    `root/photographs`, `root/volumes` (.nii.gz), `root/labels.csv` (file, grade, patient, kind), `root/README.txt`. Two
    images per patient. Same arguments, same bytes on one software version. The folder appears complete or not at all.

    Raises:
        ConfigError: fewer than one photograph or volume in all, or `root` holds something else.
        RunFolderError: `root` cannot be written.
    """
    facts = {"version": _VERSION, "photographs": photographs, "volumes": volumes, "seed": seed}
    if photographs < 0 or volumes < 0 or photographs + volumes < 1:
        raise ConfigError(f"expected at least one photograph or volume, got {photographs} and {volumes}.")
    return _published(Path(root), facts, _README, lambda folder: _write(folder, photographs, volumes, seed))


def ct_set(root: Path, *, patients: int = 24, size: tuple[int, int, int] = (48, 96, 96), seed: int = 0) -> Path:
    """Write a radiology set unless it is there: CT phantoms with lung nodules, two scans per patient; gives `root`.

    `volumes/*.nii.gz` (int16 HU, anisotropic, in several orientations), `labels/*.nii.gz` (see `datasets.synthetic.ct.LABELS`),
    `labels.csv` (file, grade 0-3, nodules, patient, label_file). `size` is (Z, Y, X) as drawn.

    Raises:
        ConfigError: no patient, a size below 16 voxels, or `root` holds something else.
        RunFolderError: `root` cannot be written.
    """
    _at_least("patients", patients, 1)
    _at_least("voxels along each axis", min(size), 16)
    facts = {"version": _VERSION, "domain": "radiology", "patients": patients, "size": list(size), "seed": seed}
    return _published(Path(root), facts, _README_CT, lambda folder: _write_ct(folder, patients, size, seed))


def slide_set(
    root: Path, *, slides: int = 12, tiles: int = 24, size: tuple[int, int] = (1536, 2048), seed: int = 0
) -> Path:
    """Write a pathology set unless it is there: H&E slides with tumour, and tiles cut from them; gives `root`.

    `slides/*.svs` (pyramids), `tiles/*.png` (256 x 256, at least half tissue, at most `tiles` per slide), `instances/*.png`
    (uint16 nuclei of a tile). `labels.csv` lists the tiles (file, tumour_share, nuclei, grade of the slide, slide,
    label_file), `slides.csv` the slides (file, grade, tumour_share, nuclei, slide).

    Raises:
        ConfigError: no slide, a slide of less than 512 pixels, or `root` holds something else.
        RunFolderError: `root` cannot be written.
    """
    _at_least("slides", slides, 1)
    _at_least("pixels along each axis", min(size), 512)
    facts = {"version": _VERSION, "domain": "pathology", "slides": slides, "tiles": tiles, "size": list(size)}
    facts |= {"seed": seed}
    return _published(Path(root), facts, _README_SLIDE, lambda folder: _write_slides(folder, slides, tiles, size, seed))


def scene_set(
    root: Path, *, scenes: int = 24, sensor: Sensor = "sentinel2", size: tuple[int, int] = (512, 512), seed: int = 0
) -> Path:
    """Write a satellite set unless it is there: multispectral scenes, each cut into four files; gives `root`.

    `scenes/*.tif` (uint16, 13 bands of Sentinel-2 or 14 of MODIS, UTM, nodata, scales), `covers/*.tif` (land cover),
    `labels.csv` (file, cover, share of each cover, cloud, scene, label_file). Files of one scene are of one group.

    Raises:
        ConfigError: no scene, a scene of less than 64 pixels, or `root` holds something else.
        RunFolderError: `root` cannot be written.
    """
    _at_least("scenes", scenes, 1)
    _at_least("pixels along each axis", min(size), 64)
    facts = {"version": _VERSION, "domain": "satellite", "scenes": scenes, "sensor": sensor, "size": list(size)}
    facts |= {"seed": seed}
    return _published(
        Path(root), facts, _README_SCENE, lambda folder: _write_scenes(folder, scenes, sensor, size, seed)
    )


def _at_least(what: str, count: int, least: int) -> None:
    if count < least:
        raise ConfigError(f"expected at least {least} {what}, got {count}.")


def _published(root: Path, facts: dict[str, Any], readme: str, write: Callable[[Path], None]) -> Path:
    """Write into a draft beside `root` and rename it, so that the folder appears complete or not at all."""
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        return _verified(root, facts)
    draft = root.parent / f".{root.name}.{uuid.uuid4().hex[:12]}"
    try:
        draft.mkdir(parents=True)
        write(draft)
        (draft / "README.txt").write_text(readme)
        (draft / "sample_set.json").write_text(json.dumps(facts) + "\n")
        try:
            draft.rename(root)
        except OSError:
            if not (root / "sample_set.json").exists():
                raise
            return _verified(root, facts)  # another process was first
    except OSError as error:
        raise RunFolderError(f"{root}: the sample set cannot be written ({error}); choose a writable folder.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _verified(root: Path, facts: dict[str, Any]) -> Path:
    mark = root / "sample_set.json"
    try:
        found = json.loads(mark.read_text())
    except (OSError, ValueError):
        found = None
    if found != facts:
        raise ConfigError(
            f"{root}: expected no folder or the sample set {facts}, found {found}; choose another folder."
        )
    return root


def _write(folder: Path, photographs: int, volumes: int, seed: int) -> None:
    (folder / "photographs").mkdir()
    (folder / "volumes").mkdir()
    lines: list[tuple[Any, ...]] = []
    jobs: list[Callable[[], None]] = []
    for kind, letter, total in (("photograph", "P", photographs), ("volume", "V", volumes)):
        grades = _grades(kind, (total + 1) // 2, seed)
        for number in range(total):
            patient, side = number // 2, "RL"[number % 2]
            stem = f"{letter}{patient + 1:04d}_{side}"
            grade = _second_eye(kind, patient, grades[patient], seed) if side == "L" else grades[patient]
            ending = ".nii.gz" if kind == "volume" else ".png" if number % 8 == 7 else ".jpg"
            file = f"{kind}s/{stem}{ending}"
            lines.append((file, grade, f"{letter}{patient + 1:04d}", kind))
            jobs.append(_job(folder / file, kind, stem, grade, seed))
    _run(jobs)
    _write_list(folder / "labels.csv", ("file", "grade", "patient", "kind"), lines)


def _run(jobs: Sequence[Callable[[], Row]]) -> list[Row]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return [done.result() for done in [pool.submit(job) for job in jobs]]


def _write_list(path: Path, header: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _grades(kind: str, patients: int, seed: int) -> list[int]:
    """A grade per patient: the shares are met as nearly as whole numbers allow, the order is random."""
    edges = np.round(np.cumsum((0.0, *_GRADE_SHARES)) * patients).astype(int)
    grades = np.repeat(np.arange(len(_GRADE_SHARES)), np.diff(edges))
    return [int(grade) for grade in numpy_rng(seed, "sample set", kind, "grades").permutation(grades)]


def _second_eye(kind: str, patient: int, grade: int, seed: int) -> int:
    """The other eye usually has the same grade, else a neighbouring one."""
    rng = numpy_rng(seed, "sample set", kind, "second eye", patient)
    return int(np.clip(grade + rng.choice((-1, 0, 0, 0, 1)), 0, len(_GRADE_SHARES) - 1))


def _job(path: Path, kind: str, stem: str, grade: int, seed: int) -> Callable[[], None]:
    rng = numpy_rng(seed, "sample set", stem)
    if kind == "volume":
        return lambda: _write_volume(path, rng, grade)
    return lambda: _write_photograph(path, rng, grade)


def _write_photograph(path: Path, rng: np.random.Generator, grade: int) -> None:
    from PIL import Image

    from datasets.synthetic.fundus import photograph

    pixels = photograph(rng, grade, right_eye="_R." in path.name)
    options: dict[str, Any] = {"compress_level": 3} if path.suffix == ".png" else {"quality": int(rng.integers(84, 95))}
    Image.fromarray(pixels).save(path, **options)


def _write_volume(path: Path, rng: np.random.Generator, grade: int) -> None:
    """Save as NIfTI; every other patient as LPS, as some scanners do, so that readers have something to turn."""
    import gzip

    import nibabel as nib

    from datasets.synthetic.oct import SPACING_MM, volume

    voxels = volume(rng, grade).transpose(2, 1, 0)  # stored (x, y, z)
    affine = np.diag([*SPACING_MM[::-1], 1.0])
    if int(path.name[1:5]) % 2 == 0:
        shape = np.array(voxels.shape)
        voxels = voxels[::-1, ::-1]
        affine[:2, 3] = affine[[0, 1], [0, 1]] * (shape[:2] - 1)
        affine[:2, :2] *= -1
    image = nib.Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.header.set_xyzt_units("mm")
    # mtime=0 and no file name in the gzip header: the same volume is the same bytes.
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=5, mtime=0))


def _write_ct(folder: Path, patients: int, size: tuple[int, int, int], seed: int) -> None:
    from datasets.synthetic.ct import GRADES, ORIENTATIONS, volume, write_volume

    (folder / "volumes").mkdir()
    (folder / "labels").mkdir()
    rng = numpy_rng(seed, "ct set", "patients")
    grades = rng.permutation(np.arange(patients) % len(GRADES))

    def draw(patient: int, scan: int) -> tuple[Any, ...]:
        name = f"C{patient + 1:04d}"
        change = numpy_rng(seed, "ct set", name, scan)
        grade = int(grades[patient])
        if scan:  # the later scan usually has the same grade, else a neighbouring one
            grade = int(np.clip(grade + change.choice((-1, 0, 0, 1)), 0, len(GRADES) - 1))
        drawn = volume(numpy_rng(seed, "ct set", name), change, grade, size)
        orientation = str(change.choice(ORIENTATIONS))
        file, label_file = f"volumes/{name}_{scan + 1}.nii.gz", f"labels/{name}_{scan + 1}.nii.gz"
        write_volume(folder / file, drawn.voxels, drawn.spacing_mm, orientation)
        write_volume(folder / label_file, drawn.label, drawn.spacing_mm, orientation)
        return file, grade, drawn.nodules, name, label_file

    rows = _run([lambda p=p, s=s: draw(p, s) for p in range(patients) for s in (0, 1)])  # type: ignore[misc]
    _write_list(folder / "labels.csv", ("file", "grade", "nodules", "patient", "label_file"), rows)


def _write_slides(folder: Path, slides: int, tiles: int, size: tuple[int, int], seed: int) -> None:
    from datasets.synthetic.slide import GRADES, slide, write_slide

    for name in ("slides", "tiles", "instances"):
        (folder / name).mkdir()
    grades = numpy_rng(seed, "slide set", "slides").permutation(np.arange(slides) % len(GRADES))

    def draw(number: int) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
        name, grade = f"S{number + 1:04d}", int(grades[number])
        rng = numpy_rng(seed, "slide set", name)
        drawn = slide(rng, grade, size)
        write_slide(folder / f"slides/{name}.svs", drawn.pixels, number=number + 1)
        row = (f"slides/{name}.svs", grade, round(drawn.tumour_share, 4), int(drawn.nuclei.max()), name)
        return row, [(*tile, grade, name, label) for *tile, label in _tiles(folder, name, drawn, tiles, rng)]

    drawn = _run([lambda n=n: draw(n) for n in range(slides)])  # type: ignore[misc]
    _write_list(folder / "slides.csv", ("file", "grade", "tumour_share", "nuclei", "slide"), [row for row, _ in drawn])
    header = ("file", "tumour_share", "nuclei", "grade", "slide", "label_file")
    _write_list(folder / "labels.csv", header, [row for _, rows in drawn for row in rows])


def _tiles(folder: Path, name: str, drawn: Slide, count: int, rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """Save tiles of at least half tissue; gives (file, tumour share, nuclei, label file) of each."""
    from PIL import Image

    height, width = drawn.tissue.shape
    places = [(y, x) for y in range(0, height - 255, 256) for x in range(0, width - 255, 256)]
    places = [(y, x) for y, x in places if drawn.tissue[y : y + 256, x : x + 256].mean() >= 0.5]
    chosen = sorted(int(place) for place in rng.permutation(len(places))[:count])
    rows = []
    for y, x in (places[place] for place in chosen):
        window = (slice(y, y + 256), slice(x, x + 256))
        file, label_file = f"tiles/{name}_y{y:05d}_x{x:05d}.png", f"instances/{name}_y{y:05d}_x{x:05d}.png"
        Image.fromarray(drawn.pixels[window]).save(folder / file, compress_level=3)
        present, nuclei = np.unique(drawn.nuclei[window], return_inverse=True)
        first = 0 if present[0] == 0 else 1
        Image.fromarray((nuclei.reshape(256, 256) + first).astype(np.uint16)).save(folder / label_file)
        share = drawn.tumour[window].sum() / drawn.tissue[window].sum()
        rows.append((file, round(float(share), 4), len(present) - 1 + first, label_file))
    return rows


def _write_scenes(folder: Path, scenes: int, sensor: Sensor, size: tuple[int, int], seed: int) -> None:
    from datasets.synthetic.scene import COVERS, cut, scene, write_geotiff, write_label

    (folder / "scenes").mkdir()
    (folder / "covers").mkdir()
    covers = numpy_rng(seed, "scene set", sensor, "covers").permutation(np.arange(scenes) % len(COVERS))

    def draw(number: int) -> list[tuple[Any, ...]]:
        name = f"X{number + 1:04d}"
        whole = scene(numpy_rng(seed, "scene set", sensor, name), COVERS[int(covers[number])], sensor, size)
        rows = []
        for part in range(4):
            y, x = (part // 2) * (size[0] // 2), (part % 2) * (size[1] // 2)
            drawn = cut(whole, slice(y, y + size[0] // 2), slice(x, x + size[1] // 2))
            if (drawn.label > 0).mean() < 0.25:  # outside the swath
                continue
            file, label_file = f"scenes/{name}_{part + 1}.tif", f"covers/{name}_{part + 1}.tif"
            write_geotiff(folder / file, drawn)
            write_label(folder / label_file, drawn)
            shares = [round(drawn.fractions[cover], 4) for cover in COVERS]
            top = COVERS[int(np.argmax(shares))]
            rows.append((file, top, *shares, round(float(drawn.cloud.mean()), 4), name, label_file))
        return rows

    header = ("file", "cover", *(f"share_{cover}" for cover in COVERS), "cloud", "scene", "label_file")
    rows = [row for drawn in _run([lambda n=n: draw(n) for n in range(scenes)]) for row in drawn]  # type: ignore[misc]
    _write_list(folder / "labels.csv", header, rows)
