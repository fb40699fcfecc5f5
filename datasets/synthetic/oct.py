"""Procedural OCT-like volumes of the macula: retinal layers with a foveal pit, speckle, and graded drusen and fluid.

Grades: 0 none, 1 few small drusen, 2 many larger ones, 3 drusen and cysts within the retina, 4 large cysts and fluid
under the retina. Brightness, speckle, tilt, depth and thickness are drawn independently of the grade. A stand-in to run
the software on, not a model of disease.
"""

from __future__ import annotations

import numpy as np

SIZE = (32, 96, 96)  # B-scans, depth, A-scans
SPACING_MM = (0.19, 0.021, 0.0625)  # 6 mm x 2 mm x 6 mm

# Boundaries below the inner surface, as shares of the retina's thickness, and how bright each layer between them is.
_LAYERS = (
    (0.00, 0.11, 0.66),  # nerve fibres
    (0.11, 0.30, 0.45),  # ganglion cells, inner plexiform
    (0.30, 0.44, 0.27),  # inner nuclear
    (0.44, 0.54, 0.42),  # outer plexiform
    (0.54, 0.80, 0.17),  # outer nuclear
    (0.80, 0.83, 0.34),  # outer limiting membrane
    (0.83, 0.87, 0.20),
    (0.87, 0.92, 0.78),  # inner segments
    (0.92, 0.955, 0.40),
    (0.955, 1.00, 0.95),  # pigment epithelium
)
# Per grade: drusen (least, most), their height in voxels, cysts, and height of fluid under the retina.
_DRUSEN = ((0, 0), (4, 8), (12, 20), (12, 20), (10, 18))
_DRUSEN_HEIGHT = ((0.0, 0.0), (2.0, 3.5), (3.5, 6.5), (3.5, 6.5), (3.0, 6.0))
_CYSTS = ((0, 0), (0, 0), (0, 0), (5, 9), (8, 14))
_FLUID_HEIGHT = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (6.0, 11.0))


def volume(rng: np.random.Generator, grade: int) -> np.ndarray:
    """Draw one volume, SIZE uint8 in (Z, Y, X): B-scan, depth with the vitreous at 0, A-scan."""
    z, x = np.mgrid[-1 : 1 : SIZE[0] * 1j, -1 : 1 : SIZE[2] * 1j].astype(np.float32)  # mm / 3
    depth = np.arange(SIZE[1], dtype=np.float32)[None, :, None]
    fovea = (float(rng.uniform(-0.18, 0.18)), float(rng.uniform(-0.18, 0.18)))
    from_fovea = np.hypot(z - fovea[0], x - fovea[1])

    bowl = rng.uniform(2, 8) * (z**2 + x**2) + rng.uniform(-5, 5) * x + rng.uniform(-3, 3) * z
    base = rng.uniform(60, 68) - bowl + 0.5 * _smooth(rng, 6)
    fluid = _dome(z, x, fovea, rng.uniform(0.28, 0.45)) * rng.uniform(*_FLUID_HEIGHT[grade])
    raised = _drusen(rng, grade, z, x)
    outer = base - np.maximum(raised, 0)  # lower border of the neurosensory retina, lifted by drusen and by fluid
    thick = rng.uniform(27, 33) + 3.5 * np.exp(-(((from_fovea - 0.38) / 0.22) ** 2))
    thick = thick - rng.uniform(11, 15) * np.exp(-((from_fovea / 0.17) ** 2)) + 0.4 * _smooth(rng, 8)
    inner = base - 0.3 * raised - fluid - thick  # the inner surface follows a druse only faintly
    thick = outer - fluid - inner

    retina = (depth - inner[:, None]) / thick[:, None]
    image = np.full(SIZE, 0.035, dtype=np.float32)
    for top, bottom, bright in _LAYERS[:-1]:
        image = _paint(image, retina, top, bottom, bright)
    image = _paint(image, retina, -0.02, 0.03, 0.72)
    below = depth - outer[:, None]
    image = np.where((retina >= _LAYERS[-1][0]) & (below < 0), 0.045, image)  # clear fluid under the retina
    epithelium = np.exp(-((below / 1.3) ** 2))
    image = image + (0.95 - image) * epithelium
    choroid = 0.46 * np.exp(-np.clip(depth - base[:, None] - 2, 0, None) / rng.uniform(9, 15))
    choroid = choroid * np.clip(1 + 0.5 * _grain(rng), 0.15, None)
    under = depth > base[:, None] + 1.5
    image = np.where(under, np.maximum(choroid, 0.04), image)
    filled = (below > 1.5) & (depth <= base[:, None] + 1.5)
    image = np.where(filled, 0.42, image)  # what lifts the epithelium: a druse is homogeneous and fairly bright
    image = _cysts(rng, grade, image, inner, thick, z, x, fovea)
    return _scanner(rng, image * _shadows(rng, depth, outer, x))


def _smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """A smooth random surface over (Z, X) of about unit deviation."""
    from PIL import Image

    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((SIZE[2], SIZE[0]), Image.Resampling.BICUBIC))


def _grain(rng: np.random.Generator) -> np.ndarray:
    """Coarse vessels of the choroid: noise over the volume, smooth over a few voxels."""
    from PIL import Image

    coarse = rng.standard_normal((SIZE[0] // 2 + 1, SIZE[1] // 6, SIZE[2] // 6), dtype=np.float32)
    fine = [np.asarray(Image.fromarray(part).resize(SIZE[:0:-1], Image.Resampling.BICUBIC)) for part in coarse]
    ends = np.stack(fine)
    between = np.empty(SIZE, dtype=np.float32)
    between[0::2], between[1::2] = ends[:-1], (ends[:-1] + ends[1:]) / 2
    return between


def _dome(z: np.ndarray, x: np.ndarray, at: tuple[float, float], radius: float) -> np.ndarray:
    return np.clip(1 - ((z - at[0]) ** 2 + (x - at[1]) ** 2) / radius**2, 0, None) ** 0.75


def _drusen(rng: np.random.Generator, grade: int, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Height in voxels by which drusen lift the pigment epithelium, (Z, X)."""
    raised = np.zeros_like(z)
    for _ in range(int(rng.integers(_DRUSEN[grade][0], _DRUSEN[grade][1] + 1))):
        at = (float(np.clip(rng.normal(0, 0.42), -0.9, 0.9)), float(np.clip(rng.normal(0, 0.42), -0.9, 0.9)))
        height = rng.uniform(*_DRUSEN_HEIGHT[grade])
        raised = np.maximum(raised, height * _dome(z, x, at, rng.uniform(0.018, 0.032) * (2 + height)))
    return raised


def _paint(image: np.ndarray, share: np.ndarray, top: float, bottom: float, bright: float) -> np.ndarray:
    return np.where((share >= top) & (share < bottom), np.float32(bright), image)


def _cysts(
    rng: np.random.Generator,
    grade: int,
    image: np.ndarray,
    inner: np.ndarray,
    thick: np.ndarray,
    z: np.ndarray,
    x: np.ndarray,
    fovea: tuple[float, float],
) -> np.ndarray:
    """Dark fluid-filled ellipsoids in the nuclear layers around the fovea."""
    depth = np.arange(SIZE[1], dtype=np.float32)[None, :, None]
    for _ in range(int(rng.integers(_CYSTS[grade][0], _CYSTS[grade][1] + 1))):
        at = (fovea[0] + rng.normal(0, 0.22), fovea[1] + rng.normal(0, 0.22))
        level = (inner + thick * rng.choice((0.40, 0.64)))[:, None]
        across, high = rng.uniform(0.05, 0.13), rng.uniform(2.5, 5.5)
        flat = ((z - at[0]) ** 2 + (x - at[1]) ** 2)[:, None] / across**2
        image = np.where(flat + ((depth - level) / high) ** 2 < 1, np.float32(0.05), image)
    return image


def _shadows(rng: np.random.Generator, depth: np.ndarray, outer: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Retinal vessels cast shadows: dark columns below the inner retina that run across the B-scans."""
    dark = np.zeros(x.shape, dtype=np.float32)
    drift = np.linspace(-0.5, 0.5, SIZE[0], dtype=np.float32)[:, None]
    for _ in range(int(rng.integers(3, 7))):
        middle = rng.uniform(-1, 1) + rng.uniform(-0.5, 0.5) * drift
        dark = np.maximum(dark, rng.uniform(0.35, 0.6) * np.exp(-(((x - middle) / rng.uniform(0.012, 0.028)) ** 2)))
    return np.where(depth > outer[:, None] - 24, 1 - dark[:, None], 1)


def _scanner(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Speckle, loss of signal with depth and at the rim, gain, detector floor: independent of the grade."""
    speckle: np.ndarray = rng.gamma(rng.uniform(7, 12), 1.0, SIZE).astype(np.float32)
    speckle /= speckle.mean()
    speckle = (speckle + np.roll(speckle, 1, axis=2)) / 2  # grains are wider than high
    signal = image * speckle * np.linspace(1.06, 0.9, SIZE[1], dtype=np.float32)[None, :, None]
    signal = signal * (1 + 0.12 * _smooth(rng, 4))[:, None]
    floor = rng.uniform(0.02, 0.06) + 0.02 * np.abs(rng.standard_normal(SIZE, dtype=np.float32))
    gain = rng.uniform(0.72, 1.05)
    counts: np.ndarray = np.clip(255 * gain * (signal + floor), 0, 255).astype(np.uint8)
    return counts
