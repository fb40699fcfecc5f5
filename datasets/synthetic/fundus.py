"""Procedural colour fundus photographs: disc, vessels, macula, uneven light, and lesions that alone carry the grade.

Grades follow the sense of the international retinopathy scale: 0 none, 1 microaneurysms, 2 more, with some blot
haemorrhages and exudates, 3 many of all with cotton-wool spots, 4 with new vessels and preretinal blood. Colour,
brightness, sharpness and geometry are drawn independently of the grade. A stand-in to run the software on, not a model
of disease.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from PIL.ImageDraw import ImageDraw as PilDraw

HEIGHT, WIDTH = 384, 432
_FINE = 2  # lines and spots are drawn this much larger, then reduced: smooth edges

# Lesions per grade: least and most of each kind.
_MICROANEURYSMS = ((0, 0), (4, 9), (9, 18), (20, 34), (20, 34))
_HAEMORRHAGES = ((0, 0), (0, 0), (3, 7), (12, 22), (12, 24))
_EXUDATE_CLUSTERS = ((0, 0), (0, 0), (1, 2), (3, 5), (3, 6))
_COTTON_WOOL = ((0, 0), (0, 0), (0, 0), (2, 4), (2, 5))
_PRERETINAL = ((0, 0), (0, 0), (0, 0), (0, 0), (1, 2))
_NEW_VESSELS = ((0, 0), (0, 0), (0, 0), (0, 0), (2, 4))


@dataclass(frozen=True)
class _Eye:
    """Where things are, in pixels (x, y); `side` is +1 when the optic disc lies to the right of the macula."""

    side: int
    centre: tuple[float, float]
    radius: float
    disc: tuple[float, float]
    disc_radius: float
    macula: tuple[float, float]


def photograph(rng: np.random.Generator, grade: int, *, right_eye: bool) -> np.ndarray:
    """Draw one photograph, (HEIGHT, WIDTH, 3) uint8."""
    eye = _eye(rng, 1 if right_eye else -1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    image = _fundus(rng, eye, x, y)
    _optic_disc(rng, eye, x, y, image)
    veins, arteries = _vessels(rng, eye)
    _absorb(image, veins, (0.30, 0.50, 0.42))
    _absorb(image, arteries, (0.12, 0.36, 0.34))
    _lesions(rng, eye, grade, image)
    return _camera(rng, eye, x, y, image)


def _eye(rng: np.random.Generator, side: int) -> _Eye:
    centre = (WIDTH / 2 + rng.uniform(-10, 10), HEIGHT / 2 + rng.uniform(-6, 6))
    radius = HEIGHT * rng.uniform(0.47, 0.53)
    disc_radius = radius * rng.uniform(0.125, 0.165)
    shift = rng.uniform(0.42, 0.66)
    disc = (centre[0] + side * shift * radius, centre[1] + rng.uniform(-0.08, 0.08) * radius)
    macula = (disc[0] - side * rng.uniform(0.74, 0.86) * radius, disc[1] + rng.uniform(0.03, 0.11) * radius)
    return _Eye(side, centre, radius, disc, disc_radius, macula)


def _smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """A smooth random field of about unit deviation, (HEIGHT, WIDTH), with about `cells` bumps along the height."""
    from PIL import Image

    coarse = rng.standard_normal((cells + 3, round(cells * WIDTH / HEIGHT) + 3)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def _distance(x: np.ndarray, y: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    return np.hypot(x - point[0], y - point[1])


def _fundus(rng: np.random.Generator, eye: _Eye, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The bare retina (3, HEIGHT, WIDTH) float32: colour of the person, uneven light, choroid texture, dark macula."""
    red = rng.uniform(150, 212)
    green = red * rng.uniform(0.44, 0.62)
    blue = green * rng.uniform(0.28, 0.72)
    tilt = rng.uniform(-0.16, 0.16, 2)
    light = 1 + tilt[0] * (x - eye.centre[0]) / eye.radius + tilt[1] * (y - eye.centre[1]) / eye.radius
    light += 0.05 * _smooth(rng, 3) - rng.uniform(0.05, 0.22) * (_distance(x, y, eye.centre) / eye.radius) ** 2
    texture = 0.030 * _smooth(rng, 14) + 0.022 * _smooth(rng, 44) + 0.016 * _smooth(rng, 120)
    far = _distance(x, y, eye.macula) / eye.radius
    macula = np.exp(-((far / rng.uniform(0.20, 0.28)) ** 2)) + 0.6 * np.exp(-((far / 0.05) ** 2))
    image = np.empty((3, HEIGHT, WIDTH), dtype=np.float32)
    for band, (value, rough, dark) in enumerate(((red, 0.6, 0.15), (green, 1.2, 0.26), (blue, 1.0, 0.20))):
        image[band] = value * light * (1 + rough * texture) * (1 - dark * macula)
    return image


def _optic_disc(rng: np.random.Generator, eye: _Eye, x: np.ndarray, y: np.ndarray, image: np.ndarray) -> None:
    """Add the bright disc with its paler cup and a soft rim."""
    distance = np.hypot((x - eye.disc[0]) / rng.uniform(0.86, 0.98), y - eye.disc[1]) / eye.disc_radius
    disc = 0.5 - 0.5 * np.tanh((distance - 1) * rng.uniform(7, 12))
    cup = 0.5 - 0.5 * np.tanh((distance - rng.uniform(0.35, 0.55)) * 6)
    halo = np.exp(-((distance / 1.7) ** 2))
    for band, (lift, cup_lift) in enumerate(((1.36, 0.05), (1.85, 0.16), (1.95, 0.26))):
        pale = float(image[band].mean()) * lift
        image[band] *= 1 + 0.08 * halo
        image[band] += (pale - image[band]) * (0.88 * disc)
        image[band] *= 1 + cup_lift * cup


def _blank() -> tuple[PilImage, PilDraw]:
    from PIL import Image, ImageDraw

    layer = Image.new("L", (WIDTH * _FINE, HEIGHT * _FINE))
    return layer, ImageDraw.Draw(layer)


def _reduced(layer: PilImage, blur: float) -> np.ndarray:
    """A drawn layer at image size, (HEIGHT, WIDTH) in [0, 1], blurred by `blur` image pixels."""
    from PIL import ImageFilter

    return np.asarray(layer.reduce(_FINE).filter(ImageFilter.GaussianBlur(blur)), dtype=np.float32) / 255


def _absorb(image: np.ndarray, layer: np.ndarray, share: tuple[float, float, float]) -> None:
    """Darken each band by its share where the layer is 1."""
    for band, part in enumerate(share):
        image[band] *= 1 - np.float32(part) * layer


def _cover(image: np.ndarray, layer: np.ndarray, colour: tuple[float, float, float], opacity: float) -> None:
    """Cover with a colour, given for an image of mean 100, where the layer is 1."""
    exposure = float(image.mean()) / 100
    for band, value in enumerate(colour):
        image[band] += (np.float32(value * exposure) - image[band]) * (np.float32(opacity) * layer)


def _vessels(rng: np.random.Generator, eye: _Eye) -> tuple[np.ndarray, np.ndarray]:
    """Arcades that leave the disc and arch around the macula, a vein and an artery each; two layers in [0, 1]."""
    layers = []
    across = abs(eye.disc[0] - eye.macula[0])
    for width, shade in ((rng.uniform(4.4, 5.6), 255), (rng.uniform(3.2, 4.0), 235)):
        layer, draw = _blank()
        for up in (-1, 1):
            arch = (across * rng.uniform(0.95, 1.1), eye.radius * rng.uniform(0.52, 0.74))
            heading = up * (math.pi / 2 + eye.side * math.radians(rng.uniform(-6, 14)))
            _grow(rng, draw, eye, eye.disc, heading, width, 1.55 * eye.radius, shade, 2, arch)
            heading = up * (math.pi / 2 - eye.side * math.radians(rng.uniform(20, 66)))
            _grow(rng, draw, eye, eye.disc, heading, 0.72 * width, 0.95 * eye.radius, shade, 2, None)
        towards = math.pi if eye.side > 0 else 0.0
        for _ in range(2):
            heading = towards + rng.uniform(-0.6, 0.6)
            _grow(rng, draw, eye, eye.disc, heading, 0.30 * width, 0.5 * eye.radius, shade, 1, None)
        layers.append(_reduced(layer, 0.5))
    return layers[0], layers[1]


def _grow(
    rng: np.random.Generator,
    draw: PilDraw,
    eye: _Eye,
    start: tuple[float, float],
    heading: float,
    width: float,
    length: float,
    shade: int,
    generations: int,
    arch: tuple[float, float] | None,
) -> None:
    """Draw one vessel as a wandering line that thins, and its branches.

    `arch`: half axes of an ellipse around the macula along which an arcade is steered; None = no steering.
    """
    step, (x, y), since = 4.0, start, 0.0
    steps = int(length / step)
    wander = rng.normal(0, 0.030, steps)
    branch = rng.random((steps, 3))
    turn = 0.0
    for number in range(steps):
        dx, dy = x - eye.macula[0], y - eye.macula[1]
        if math.hypot(dx, dy) < 0.13 * eye.radius:  # the fovea has no vessels
            return
        turn = 0.82 * turn + wander[number]
        heading += turn
        if arch is not None:
            across, along = -dy * arch[0] / arch[1], dx * arch[1] / arch[0]
            aim = math.atan2(along, across)
            if math.cos(aim - heading) < 0:
                aim += math.pi
            heading += 0.22 * math.sin(aim - heading)
        ahead = (x + step * math.cos(heading), y + step * math.sin(heading))
        now = width * (1 - 0.62 * number / steps)
        drawn = max(1, round(now * _FINE))
        draw.line([(x * _FINE, y * _FINE), (ahead[0] * _FINE, ahead[1] * _FINE)], fill=shade, width=drawn)
        if drawn > 3:
            box = [v * _FINE + sign * (drawn / 2 - 0.5) for sign in (-1, 1) for v in ahead]
            draw.ellipse(box, fill=shade)
        (x, y), since = ahead, since + step
        if generations and since > 30 and branch[number, 0] < 0.2 and now > 0.8:
            outward = 1 if math.sin(math.atan2(dy, dx) - heading) > 0 else -1
            away = (outward if branch[number, 1] < 0.72 else -outward) * math.radians(26 + 34 * branch[number, 2])
            left = (steps - number) * step
            _grow(rng, draw, eye, ahead, heading + away, 0.62 * now, 0.62 * left, shade, generations - 1, None)
            since = 0.0


def _spot(
    rng: np.random.Generator, draw: PilDraw, at: tuple[float, float], radius: float, ragged: float, shade: int = 255
) -> None:
    """Fill an irregular round spot."""
    angles = np.linspace(0, 2 * math.pi, 14, endpoint=False)
    reach = radius * _FINE * np.clip(1 + ragged * rng.standard_normal(14), 0.4, 1.9)
    squash, tilt = rng.uniform(0.7, 1.0), rng.uniform(0, math.pi)
    u, v = reach * np.cos(angles), squash * reach * np.sin(angles)
    px = at[0] * _FINE + u * math.cos(tilt) - v * math.sin(tilt)
    py = at[1] * _FINE + u * math.sin(tilt) + v * math.cos(tilt)
    draw.polygon(list(zip(px.tolist(), py.tolist(), strict=True)), fill=shade)


def _place(rng: np.random.Generator, eye: _Eye, reach: float = 0.82) -> tuple[float, float]:
    """A place on the retina, off the optic disc."""
    while True:
        angle, distance = rng.uniform(0, 2 * math.pi), eye.radius * reach * math.sqrt(rng.uniform(0.01, 1))
        at = (eye.centre[0] + distance * math.cos(angle), eye.centre[1] + 0.92 * distance * math.sin(angle))
        if math.dist(at, eye.disc) > 1.7 * eye.disc_radius and 6 < at[1] < HEIGHT - 6:
            return at


def _lesions(rng: np.random.Generator, eye: _Eye, grade: int, image: np.ndarray) -> None:
    """Add all that the grade is made of."""

    def count(table: tuple[tuple[int, int], ...]) -> int:
        low, high = table[grade]
        return int(rng.integers(low, high + 1))

    wool, draw = _blank()
    for _ in range(count(_COTTON_WOOL)):
        _spot(rng, draw, _place(rng, eye, 0.7), rng.uniform(6, 11), 0.22, 215)
    _cover(image, _reduced(wool, 2.6), (221, 204, 170), 0.72)

    blood, draw = _blank()
    for _ in range(count(_HAEMORRHAGES)):
        _spot(rng, draw, _place(rng, eye), rng.uniform(3.0, 8.0), 0.13)
    for _ in range(count(_NEW_VESSELS)):
        spread = rng.uniform(0.2, 1.3) * eye.disc_radius
        for _ in range(9):
            start = (eye.disc[0] + rng.normal(0, spread), eye.disc[1] + rng.normal(0, spread))
            _grow(rng, draw, eye, start, rng.uniform(0, 2 * math.pi), 1.2, 34, 190, 1, (11.0, 11.0))
    _absorb(image, _reduced(blood, 1.1), (0.42, 0.68, 0.55))

    dots, draw = _blank()
    for _ in range(count(_MICROANEURYSMS)):
        _spot(rng, draw, _place(rng, eye, 0.75), rng.uniform(1.5, 2.6), 0.1)
    _absorb(image, _reduced(dots, 0.6), (0.36, 0.66, 0.54))

    hard, draw = _blank()
    for _ in range(count(_EXUDATE_CLUSTERS)):
        angle, far = rng.uniform(0, 2 * math.pi), eye.radius * rng.uniform(0.12, 0.45)
        middle = (eye.macula[0] + far * math.cos(angle), eye.macula[1] + far * math.sin(angle))
        spread = rng.uniform(5, 15)
        for _ in range(int(rng.integers(10, 34))):
            at = (middle[0] + rng.normal(0, spread), middle[1] + rng.normal(0, spread * 0.8))
            if math.dist(at, eye.disc) > 1.3 * eye.disc_radius:
                _spot(rng, draw, at, 0.8 + rng.gamma(2.0, 0.55), 0.16)
    _cover(image, _reduced(hard, 0.6), (272, 240, 116), 0.86)

    pool, draw = _blank()
    for _ in range(count(_PRERETINAL)):
        x, y = _place(rng, eye, 0.55)
        w, h = rng.uniform(18, 34), rng.uniform(13, 22)
        box = [(x - w) * _FINE, (y - h) * _FINE, (x + w) * _FINE, (y + h) * _FINE]
        draw.chord(box, rng.uniform(-14, 14), 180 + rng.uniform(-14, 14), fill=255)  # blood settles with a level top
    _absorb(image, _reduced(pool, 1.6), (0.44, 0.74, 0.62))


def _camera(rng: np.random.Generator, eye: _Eye, x: np.ndarray, y: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Aperture, exposure, sharpness, sensor noise: what differs between cameras and not between grades."""
    from PIL import Image, ImageFilter

    distance = _distance(x, y, eye.centre)
    light = np.full((HEIGHT, WIDTH), rng.uniform(0.72, 1.12), dtype=np.float32)
    notch = np.hypot(x - eye.centre[0] - 0.70 * eye.radius, y - eye.centre[1] + 0.70 * eye.radius) < 0.035 * eye.radius
    aperture = np.where(notch, 1.0, np.clip(eye.radius - distance, 0, 1.6) / 1.6)
    if rng.random() < 0.3:
        edge = np.exp(-(((eye.radius - distance) / (0.05 * eye.radius)) ** 2))
        light *= 1 + 0.3 * edge * (0.5 + 0.5 * np.tanh(_smooth(rng, 2)))
    noise = rng.standard_normal((4, HEIGHT, WIDTH), dtype=np.float32)
    noise[3] *= rng.uniform(1.0, 2.6)
    image = image * (light * aperture) + noise[3] + 0.8 * noise[:3] + rng.uniform(0, 4)
    pixels = np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    sharp = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.8))))
