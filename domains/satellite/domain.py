"""Facts of scenes from above: legal mirror images, and inputs that a run measures on its own scenes.

Value spaces of published methods stand in `core.encoders.cards`, those of sensors in `core.sensors`.
"""

from __future__ import annotations

from core.contract import EVERY, Input, Normalisation

# North is a convention of the file: a scene seen in a mirror is another scene that could be.
FLIPS = (True, True)


def open_scene(size: int, patch: int) -> Input:
    """Describe scenes of any sensor: a run measures bands, pixel size and value space on its own training images.

    Open is an input in px that is normalised per image; `domains.satellite.collection.resolve` closes it.
    """
    return Input(
        name="scene",
        bands=EVERY,
        patch=(patch, patch),
        size=(size, size),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )


def is_open(entry: Input) -> bool:
    """Say whether bands, pixel size and value space of an input are still to be measured."""
    return entry.unit == "px" and entry.normalisation.method == "per_image"
