"""The retina as the verbs see it, and how a config of several kinds of image is fitted to those that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.contract import Contract
from core.engine.config import Pretrain
from core.errors import DataError
from core.recipes.base import RecipeSpec
from datasets import Manifest, sample_set
from domains.retina import domain
from domains.verbs import collection
from domains.verbs.collection import median_spacing, with_contract
from domains.verbs.domain import Domain, Kind, Samples

SAMPLES = {"photographs": 240, "volumes": 48}


def resolve(config: Pretrain, manifest: Manifest) -> Pretrain:
    """Fit a config to the images that are there; doing it twice changes nothing.

    Streams without images are left out, with their input; volumes' nominal spacing becomes the training volumes' median,
    rounded to 3 digits, so that one unit of position is one patch of a typical volume. A recipe that loads crops at a finer
    detail than its encoder reads makes the encoder's voxels that much larger.

    Raises:
        DataError: nothing is left to train on.
    """
    present = {RETINA.kind_of(ndim).name for ndim in manifest.column("ndim")}
    encoder = config.recipe.encoder
    inputs = [entry for entry in encoder.contract.inputs if entry.name in present]
    streams = tuple(stream for stream in config.data.streams if stream.input in present)
    if not streams:
        reads = " and ".join(stream.input for stream in config.data.streams)
        raise DataError(
            f"expected images for the streams of this config ({reads}), the data has only {sorted(present)}."
        )
    detail = config.recipe.detail
    inputs = [
        replace(entry, spacing=median_spacing(manifest, entry.ndim, detail)) if entry.unit == "mm" else entry
        for entry in inputs
        if any(stream.input == entry.name for stream in streams)
    ]
    changed = with_contract(encoder, Contract(inputs=tuple(inputs)))
    recipe: RecipeSpec = replace(config.recipe, encoder=changed)  # type: ignore[type-var]
    return replace(config, recipe=recipe, data=replace(config.data, streams=streams))


def _draw(folder: Path) -> Path:
    return sample_set(folder, **SAMPLES) / "labels.csv"


RETINA = Domain(
    name="retina",
    title="Retina",
    kinds=(
        Kind(name="photograph", ndim=2, flips=domain.PHOTOGRAPH_FLIPS),
        Kind(name="volume", ndim=3, flips=domain.VOLUME_FLIPS),
    ),
    samples=Samples(
        folder="retina-samples-{photographs}-{volumes}".format(**SAMPLES),
        draw=_draw,
        label="grade",
        group="patient",
        announcement="SYNTHETIC sample set (no --data was given): drawn by a program, no patient was seen.",
        warning="Synthetic images: these scores say that the software works, nothing about eyes.",
    ),
    ordinal_labels=domain.ORDINAL_LABELS,
    resolve=resolve,
)


def collect(paths: Sequence[str], *, group: str | None = None, quiet: bool = False) -> tuple[Manifest, str]:
    """Look at every image of `paths`, or of the sample set when there are none: the manifest, and what it holds in words."""
    return collection.collect(RETINA, paths, group=group, quiet=quiet)
