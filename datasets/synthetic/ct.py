"""Procedural CT: a small phantom of chest and upper abdomen in Hounsfield units, with lung nodules that carry the grade.

Body, lungs, airways, heart, aorta, liver, spleen, stomach, kidneys, spine, ribs, lung vessels, table and noise are drawn
independently of the grade; the grade decides the number of nodules alone. Two scans of a patient share the anatomy.
Spacings are those of real scanners, so a slice of 96 x 96 voxels holds a phantom of about 75 mm, not a grown person. A
stand-in to run the software on, not a model of disease.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.synthetic.noise import fractal, smooth, step

SIZE = (48, 96, 96)  # Z Y X
GRADES = ((0, 0), (1, 2), (3, 5), (7, 10))  # least and most nodules of each grade
LABELS = ("background", "lung", "liver", "bone", "nodule")
# Among the 48 ways to store a volume, some that scanners and converters really produce.
ORIENTATIONS = ("LPS", "RAS", "LAS", "RPI", "LPI", "PIR", "ASR", "SAR")
_AIR, _LUNG, _FAT, _MUSCLE = -1000.0, -860.0, -95.0, 55.0


@dataclass(frozen=True)
class Phantom:
    """One scan.

    Attributes:
        voxels: (Z, Y, X) int16, Hounsfield units; Z runs towards the head, Y to the
            front, X to the patient's right (RAS+).
        label: (Z, Y, X) uint8, positions in `LABELS`.
        spacing_mm: (Z, Y, X).
        nodules: how many.
    """

    voxels: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, float, float]
    nodules: int


def spacing(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw what a scanner may give: 0.70 to 0.90 mm within a slice, 1.5 to 5 mm between slices (Z Y X)."""
    within = round(float(rng.uniform(0.70, 0.90)), 4)
    return float(rng.choice((1.5, 2.0, 2.5, 3.0, 5.0))), within, within


def volume(
    patient: np.random.Generator, scan: np.random.Generator, grade: int, size: tuple[int, int, int] = SIZE
) -> Phantom:
    """Draw one scan; `patient` decides the anatomy and the spacing, `scan` the nodules, the noise and the contrast."""
    spacing_mm = spacing(patient)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in size), indexing="ij", sparse=True)
    body = _Body.draw(patient, z, y, x)
    voxels = np.full(size, _AIR, np.float32)
    inside = body.trunk > 0
    np.copyto(voxels, np.float32(_FAT), where=inside)
    _cover(voxels, body.muscle, _MUSCLE)
    _cover(voxels, body.lungs, _LUNG)
    contrast = float(scan.uniform(0, 1))  # contrast medium brightens blood and the organs that hold it
    for organ, native, enhanced in body.organs:
        _cover(voxels, organ, native + contrast * enhanced)
    lung = (body.lungs > 0.5) & (voxels < -500)
    voxels += lung * (35 * fractal(patient, size, 10, 2))
    vessels = _vessels(patient, size, body.lungs)
    np.maximum(voxels, _LUNG + vessels * (900 + 120 * contrast), out=voxels, where=lung)
    bone = _bones(patient, body, z)
    voxels += bone * (np.float32(patient.uniform(420, 620)) - voxels) * (0.8 + 0.2 * smooth(patient, size, 24))
    least, most = GRADES[grade]
    nodules = _nodules(scan, lung, int(scan.integers(least, most + 1)), spacing_mm)
    density = scan.uniform(-40, 60)
    for nodule in nodules:
        voxels += nodule * (np.float32(density) - voxels)
    _table(patient, voxels, y, x)
    label = np.zeros(size, np.uint8)
    label[lung] = 1
    label[body.organs[2][0] > 0.5] = 2
    label[bone > 0.5] = 3
    for nodule in nodules:
        label[nodule > 0.5] = 4
    noisy = voxels + _noise(scan, size, inside)
    return Phantom(np.clip(np.rint(noisy), -1024, 3071).astype(np.int16), label, spacing_mm, len(nodules))


@dataclass(frozen=True)
class _Body:
    """Soft shares (0 to 1) of the parts; `organs` are (share, HU without contrast medium, HU gained with it)."""

    y: np.ndarray  # coordinates about the body's middle, -1 to 1 over the image
    x: np.ndarray
    trunk: np.ndarray
    muscle: np.ndarray
    lungs: np.ndarray
    organs: list[tuple[np.ndarray, float, float]]
    deep: float
    rib_depth: np.ndarray
    spine: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> _Body:
        wide, deep = rng.uniform(0.84, 0.93), rng.uniform(0.60, 0.70)
        shift = rng.uniform(-0.04, 0.04, 2).astype(np.float32)
        x, y = x - shift[0], y - shift[1] - 0.05
        lean = 1 + 0.07 * z - 0.10 * step(z - 0.85, 0.5)  # broader shoulders, then the neck
        radius = ((np.abs(x) / (wide * lean)) ** 2.4 + (np.abs(y) / (deep * lean)) ** 2.4) ** (1 / 2.4)
        fat = rng.uniform(0.07, 0.15)
        trunk = np.asarray(radius < 1, np.float32)
        muscle = step(1 - fat - radius, 0.03)
        cage = 1 - fat - 0.10
        dome = rng.uniform(-0.35, -0.15)
        spine = (-deep * 0.56, 0.0)
        lungs = np.zeros(radius.shape, np.float32)
        for side in (-1, 1):  # +1: the patient's right
            across = ((x - side * 0.43 * wide) / (0.37 * wide)) ** 2 + ((y + 0.02) / (0.66 * deep)) ** 2
            floor = dome + side * 0.06 + 0.28 * (1 - np.minimum(across, 1.4))
            ball = 1.0 - across - np.maximum(z - 0.35, 0) ** 2 * 1.8
            lungs = np.maximum(lungs, step(np.minimum(ball, 4 * (z - floor)), 0.12) * step(cage - radius, 0.04))
        organs = [
            # heart, on the left
            (_ball(z, y, x, (-0.12, 0.18, -0.16), (0.36, 0.30, 0.27), rng), 45.0, 110.0),
            # aorta and cava beside the spine, all the way down
            (_tube(y, x, (spine[0] + 0.19, -0.14), 0.062) + _tube(y, x, (spine[0] + 0.25, 0.12), 0.062), 42.0, 190.0),
            # liver, below the right dome and across the middle
            (_ball(z, y, x, (-0.72, 0.04, 0.34), (0.52, 0.44, 0.45), rng) * (1 - step(lungs - 0.5, 0.3)), 58.0, 55.0),
            (_ball(z, y, x, (-0.66, -0.20, -0.60), (0.30, 0.22, 0.17), rng) * (1 - step(lungs - 0.5, 0.3)), 48.0, 70.0),
            (_ball(z, y, x, (-0.74, 0.16, -0.36), (0.26, 0.24, 0.22), rng), 18.0, 0.0),  # stomach
            (_ball(z, y, x, (-0.70, 0.30, -0.36), (0.13, 0.07, 0.13), rng), -960.0, 0.0),  # and the air in it
            (_ball(z, y, x, (-0.98, -0.26, 0.42), (0.28, 0.13, 0.12), rng), 32.0, 150.0),  # kidneys
            (_ball(z, y, x, (-0.92, -0.26, -0.42), (0.28, 0.13, 0.12), rng), 32.0, 150.0),
            # trachea, then two main bronchi
            (_tube(y, x, (-0.02, 0.0), 0.058) * step(z - 0.42, 0.05), -990.0, 0.0),
            (
                _tube(y, np.abs(x), (-0.05, 0.0), 0.05, slope=(0.42 - z) * 0.9)
                * step(0.44 - z, 0.03)
                * step(z - 0.2, 0.03),
                -990.0,
                0.0,
            ),
        ]
        inside = step(cage - radius, 0.04)
        organs = [(share * inside, native, gained) for share, native, gained in organs]
        return cls(y, x, trunk, muscle, lungs, organs, deep, radius - (cage + 0.03), spine)


def _cover(voxels: np.ndarray, share: np.ndarray, value: float) -> None:
    voxels += share * (np.float32(value) - voxels)


def _ball(
    z: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    centre: tuple[float, float, float],
    half: tuple[float, float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """An ellipsoid with an uneven surface, its place and size varied by a few percent."""
    a, b, c = np.asarray(half) * rng.uniform(0.9, 1.12, 3)
    q, r, s = np.asarray(centre) + rng.uniform(-0.03, 0.03, 3)
    distance = ((z - q) / a) ** 2 + ((y - r) / b) ** 2 + ((x - s) / c) ** 2
    waves = rng.uniform(0, 6.3, 3)
    uneven = 0.10 * np.sin(5 * z + waves[0]) * np.sin(6 * y + waves[1]) + 0.08 * np.sin(7 * x + waves[2])
    return step(1 - distance + uneven.astype(np.float32), 0.14).astype(np.float32)


def _tube(
    y: np.ndarray, x: np.ndarray, centre: tuple[float, float], radius: float, slope: np.ndarray | float = 0.0
) -> np.ndarray:
    distance = np.hypot(y - centre[0], x - centre[1] - slope)
    return step(radius - distance, 0.03).astype(np.float32)


def _bones(rng: np.random.Generator, body: _Body, z: np.ndarray) -> np.ndarray:
    """Vertebrae with discs, arches and processes; ribs that fall towards the front; the breastbone."""
    phase = rng.uniform(0, 1)
    (y0, x0), y, x = body.spine, body.y, body.x
    disc = 1 - 0.6 * step(np.cos((z * 4.5 + phase) * 2 * np.pi) - 0.80, 0.2)
    across = np.hypot((x - x0) / 0.135, (y - y0 - 0.03) / 0.115)
    vertebra = step(1 - across, 0.16) * disc * (0.72 + 0.28 * step(across - 0.8, 0.2))
    ring = np.hypot((x - x0) / 0.10, (y - y0 + 0.13) / 0.09)
    arch = step(0.34 - np.abs(ring - 1), 0.2) * disc * 0.9
    process = step(0.10 - np.abs(y - y0 + 0.27), 0.04) * step(0.032 - np.abs(x - x0), 0.02) * disc
    angle = (y + 0.05) / body.deep
    turns = z * 5.2 + phase + 0.55 * angle + 0.02 * np.abs(x)
    along = step(np.cos(turns * 2 * np.pi) - 0.45, 0.35) * step(z + 0.62, 0.2)
    ribs = (
        step(0.034 - np.abs(body.rib_depth), 0.025)
        * along
        * step(0.80 - np.abs(angle), 0.1)
        * step(np.abs(x) - 0.12, 0.05)
    )
    breast = (
        step(0.034 - np.abs(body.rib_depth), 0.025)
        * step(0.10 - np.abs(x), 0.03)
        * step(angle, 0.1)
        * step(z + 0.35, 0.1)
    )
    parts = (vertebra, arch, process, ribs, breast)
    bone = np.zeros(np.broadcast_shapes(*(part.shape for part in parts)), np.float32)
    for part in parts:
        np.maximum(bone, part, out=bone)
    return bone * (body.trunk > 0)


def _vessels(rng: np.random.Generator, size: tuple[int, int, int], lungs: np.ndarray) -> np.ndarray:
    """Branching vessels of the lungs: where two smooth fields cross zero together there are thin curved lines."""
    vessels = np.zeros(size, np.float32)
    for cells, width, strength in ((6, 0.16, 1.0), (11, 0.17, 0.8)):
        line = np.hypot(smooth(rng, size, cells), smooth(rng, size, cells))
        np.maximum(vessels, strength * step(width - line, 0.14), out=vessels)
    return np.asarray(vessels * lungs)


def _nodules(
    rng: np.random.Generator, lung: np.ndarray, count: int, spacing_mm: tuple[float, float, float]
) -> list[np.ndarray]:
    """Round in millimetres whatever the spacing: 3 to 5 mm in radius, apart from each other and from the lung's edge."""
    scale = np.asarray(spacing_mm, np.float32)
    inner = lung.copy()
    for axis in range(3):  # two voxels from the edge
        for by in (-2, 2):
            inner &= np.roll(lung, by, axis)
    places = np.argwhere(inner if inner.any() else lung).astype(np.float32) * scale
    found: list[np.ndarray] = []
    grid = np.meshgrid(
        *(np.arange(n, dtype=np.float32) * s for n, s in zip(lung.shape, scale, strict=True)),
        indexing="ij",
        sparse=True,
    )
    for _ in range(count):
        if not len(places):
            break
        centre, radius = places[rng.integers(len(places))], rng.uniform(2.6, 4.4)
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))
        found.append(step(radius - distance, 1.0))
        places = places[np.linalg.norm(places - centre, axis=1) > 13]
    return found


def _table(rng: np.random.Generator, voxels: np.ndarray, y: np.ndarray, x: np.ndarray) -> None:
    """The table under the back, where there is air only."""
    top = np.float32(rng.uniform(-0.90, -0.84)) + 0.10 * x**2
    shell = step(0.02 - np.abs(y - top), 0.02) * step(0.75 - np.abs(x), 0.05)
    np.copyto(voxels, np.maximum(voxels, _AIR + 820 * shell), where=voxels < -900)


def _noise(rng: np.random.Generator, size: tuple[int, int, int], inside: np.ndarray) -> np.ndarray:
    """Grainy noise, stronger within the body; drawn per scan as dose and kernel differ."""
    grain = rng.standard_normal(size, dtype=np.float32)
    blur = (grain + np.roll(grain, 1, 1) + np.roll(grain, 1, 2) + np.roll(grain, (1, 1), (1, 2))) / 2
    soft = np.float32(rng.uniform(0, 1))
    return np.float32(rng.uniform(9, 24)) * (soft * blur + (1 - soft) * grain) * np.where(inside, 1, np.float32(0.5))


def write_volume(path: Path, voxels: np.ndarray, spacing_mm: tuple[float, float, float], orientation: str) -> None:
    """Save (Z, Y, X) RAS+ voxels as .nii.gz, stored in another orientation; the affine says so and the world is the same.

    The middle of the volume is the world's origin. Same voxels, same bytes.
    """
    import gzip

    import nibabel as nib
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

    stored = voxels.transpose(2, 1, 0)
    affine = np.diag([*spacing_mm[::-1], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(stored.shape) - 1) / 2)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    affine = affine @ inv_ornt_aff(turn, stored.shape)
    image = nib.Nifti1Image(np.ascontiguousarray(apply_orientation(stored, turn)), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    # mtime=0 and no file name in the gzip header: the same volume is the same bytes.
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=5, mtime=0))
